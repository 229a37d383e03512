"""Many alerts, several workers, providers in trouble: no limit is exceeded, and nobody waits for who hangs."""

from bench.alerts import SHARED_429, Town, ends, tell, until_done
from devstack.alerts.discord import DiscordDouble
from devstack.alerts.firebase import FirebaseDouble
from devstack.gateway import Gateway
from listener.config import read_config
from listener.registry import load
from listener.service import Plan, Service
from tests.handlers.conftest import Owner
from tests.handlers.stripe_door import running

ALERTS, USERS = 36, 3


def a_worker(town: Town, gateway: Gateway) -> Service:
    """As a process of its own would have it: with its own clients, and nothing in common but the database."""
    registry = load("handlers", ["alerts"])
    config = read_config(town.environment(gateway.url), registry.handler_settings)
    return Service(config, registry, Plan(["alerts"], schedules=False))


async def test_discord_is_told_by_several_workers_while_firebase_hangs(
    gateway: Gateway, owner: Owner
) -> None:
    async with DiscordDouble(per_seconds=0.5) as discord, FirebaseDouble() as firebase:
        town = Town(discord, firebase)
        await town.settle(owner, USERS)
        dead = discord.webhooks[next(iter(discord.webhooks))]
        dead.is_deleted = True
        discord.fail_next(
            429,
            2,
            headers=SHARED_429,
            body={"message": "The resource is being rate limited.", "retry_after": 0.3, "global": False},
        )
        firebase.may_take_messages.clear()
        async with running(a_worker(town, gateway)), running(a_worker(town, gateway)):
            await tell(owner, town, ALERTS)
            await until_done(owner, "discord")
        told = await ends(owner)

    on_discord = {
        (status, reason): n for (channel, status, reason), n in told.items() if channel == "discord"
    }
    living = ALERTS - ALERTS // USERS
    assert on_discord.pop(("sent", None)) == living
    assert set(on_discord) <= {("failed", "webhook_gone"), ("suppressed", "target_disabled")}
    assert sum(on_discord.values()) == ALERTS // USERS
    assert len(discord.messages) == living
    assert discord.exceeded == 0
    assert set(discord.most_at_once.values()) == {1}
    assert discord.answers[404] == 1
    assert {status for channel, status, _ in told if channel == "push"} <= {"pending", "sending"}
    assert (
        sum(n for (channel, _, _), n in told.items() if channel == "push") == ALERTS + 1
    )  # one about the webhook
