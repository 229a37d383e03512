"""Many alerts, several workers, providers in trouble: no limit is exceeded, and nobody waits for who hangs."""

import pytest

from bench.alerts import SHARED_429, Town, ends, post_office, tell, until_done
from devstack.alerts.discord import DiscordDouble
from devstack.alerts.firebase import FirebaseDouble
from devstack.gateway import Gateway
from handlers.clients.alerts import smtp
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


async def test_a_mail_server_that_hangs_holds_up_nobody_else_and_gets_its_mails_when_it_answers(
    gateway: Gateway, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "TIMEOUT_SECONDS",
        "PATIENCE_SECONDS",
    ):  # on a busy machine, too, it answers in time in the end
        monkeypatch.setattr(smtp, name, 120.0)
    async with DiscordDouble() as discord, FirebaseDouble() as firebase, post_office() as post:
        town = Town(discord, firebase, post)
        await town.settle(owner, USERS)
        town.hang("email")
        async with running(a_worker(town, gateway)):
            await tell(owner, town, 2 * USERS)
            await until_done(owner, "discord", "push")
            assert post.mails == 0
            town.heal()
            await until_done(owner, "discord", "email", "push")
        told = await ends(owner)
    assert told == {(channel, "sent", None): 2 * USERS for channel in ("discord", "email", "push")}
    assert post.mails == 2 * USERS


async def test_discord_hangs_and_devices_are_told(gateway: Gateway, owner: Owner) -> None:
    async with DiscordDouble() as discord, FirebaseDouble() as firebase:
        town = Town(discord, firebase)
        await town.settle(owner, USERS)
        town.hang("discord")
        async with running(a_worker(town, gateway)):
            await tell(owner, town, USERS)
            await until_done(owner, "push")
            town.heal()
        told = await ends(owner)
    assert told[("push", "sent", None)] == USERS
    assert discord.messages == []
