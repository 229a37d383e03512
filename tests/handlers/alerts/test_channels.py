"""Discord and push, whole: the real SQL, the real clients, and their providers' doubles. Each is told once."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias
from uuid import UUID

import pytest

from devstack.alerts.discord import DROPPED_AFTERWARDS, DiscordDouble
from devstack.alerts.firebase import FirebaseDouble
from handlers.clients.alerts import delivery as delivery_file
from handlers.clients.alerts.delivery import AlertJob
from handlers.clients.alerts.discord import Discord
from handlers.clients.alerts.discord_message import RESENT
from handlers.clients.alerts.push import Push
from handlers.clients.database import Database
from listener import Job, Snooze
from tests.handlers.alerts.conftest import ALERT, Home, Office, Post
from tests.handlers.conftest import Json, Owner

MoveClock: TypeAlias = Callable[[timedelta], Awaitable[None]]
IS_OVER = timedelta(minutes=2)
"""So long after it began, a send is over, one way or another."""


async def test_one_alert_reaches_the_webhook_and_the_device(channels: Office, home: Home) -> None:
    await channels.tell(userId=str(home.user), **ALERT, metadata={"symbol": "AAPL"})
    await channels.rounds()
    [message], [shown] = home.webhook.messages, home.device.shown.values()
    [embed] = message["embeds"]
    assert (embed["title"], embed["description"]) == ("Filled", "10 AAPL at 190.10")
    assert embed["fields"] == [{"name": "Symbol", "value": "AAPL", "inline": True}]
    assert shown["notification"] == {"title": "Filled", "body": "10 AAPL at 190.10"}
    assert await channels.deliveries() == [("discord", "sent", None), ("push", "sent", None)]


@pytest.mark.parametrize(
    ("channel", "data"),
    [
        (
            "discord",
            {"alertType": "order_filled", "title": "Filled", "message": "10 AAPL", "metadata": {"a": 1}},
        ),
        ("discord", {"alertType": "order_filled", "title": "Filled", "message": "10 AAPL"}),
        ("push", {"title": "Filled", "message": "10 AAPL"}),
    ],
)
async def test_the_payloads_of_old_are_told_by_that_channel_alone(
    channels: Office, home: Home, channel: str, data: Json
) -> None:
    await channels.tell(channel, userId=str(home.user), **data)
    await channels.rounds()
    assert await channels.deliveries() == [(channel, "sent", None)]


async def test_a_dead_webhook_is_turned_off_and_its_user_is_told_on_the_device(
    channels: Office, home: Home, owner: Owner, discord_double: DiscordDouble
) -> None:
    home.webhook.is_deleted = True
    for _ in range(3):
        await channels.tell(userId=str(home.user), **ALERT)
    await channels.rounds()
    assert discord_double.answers[404] == 1
    said = [one["notification"] for one in home.device.shown.values()]
    assert len(said) == 4
    [about] = [one for one in said if one["title"] != "Filled"]
    assert about["title"] == "Discord 'my server' takes no alerts any more"
    assert "does not exist any more" in about["body"]
    row = await owner.fetchrow("select status, status_reason from alert_targets where channel = 'discord'")
    assert tuple(row or ()) == ("disabled", "webhook_gone")
    assert home.webhook.token not in str(await owner.fetch("select * from alert_deliveries"))


async def test_a_device_that_is_gone_is_forgotten(channels: Office, home: Home, owner: Owner) -> None:
    await channels.tell("push", userId=str(home.user), **ALERT)
    await channels.rounds()  # by which the key is known to reach devices
    home.device.state = "unregistered"
    await channels.tell("push", userId=str(home.user), **ALERT)
    await channels.rounds()
    assert await channels.deliveries() == [("push", "sent", None), ("push", "failed", "unregistered")]
    assert await owner.fetchval("select count(*) from alert_targets where channel = 'push'") == 0


async def test_a_key_of_another_project_costs_no_device_and_operators_are_told_once(
    channels: Office, home: Home, owner: Owner
) -> None:
    pager = channels.channel("pager", Post())
    await owner.execute("select register_operator_target('pager', 'desk')")
    for state in ("other_sender", "unregistered", "invalid"):
        home.device.state = state
        await channels.tell("push", userId=str(home.user), **ALERT)
        await channels.rounds()
    assert await channels.deliveries("channel", "status", "reason") == [
        ("pager", "sent", None),
        *[("push", "pending", "key_doubted")] * 3,
    ]
    assert pager.titles == ["Alerts: channel is refused"]
    assert await owner.fetchval("select status from alert_targets where channel = 'push'") == "active"


async def test_a_webhook_waits_for_its_reset_and_no_call_is_too_many(
    channels: Office, home: Home, discord_double: DiscordDouble, move_clock: MoveClock
) -> None:
    for number in range(12):
        await channels.tell("discord", userId=str(home.user), **ALERT, dedupeKey=f"alert {number}")
    await channels.rounds()
    assert len(home.webhook.messages) == 5
    moved = timedelta()
    while (await channels.deliveries("status")).count(("sent",)) < 12:
        home.webhook.resets_at = 0  # time passes, at Discord and here
        await move_clock(moved := moved + timedelta(seconds=3))
        await channels.rounds()
    assert (len(home.webhook.messages), discord_double.exceeded) == (12, 0)


async def test_too_fast_for_all_holds_every_webhook(
    channels: Office, home: Home, discord_double: DiscordDouble, move_clock: MoveClock
) -> None:
    limits = {"X-RateLimit-Global": "true", "Retry-After": "7"}
    words = {"message": "You are being rate limited.", "retry_after": 6.5, "global": True}
    discord_double.fail_next(429, headers=limits, body=words)
    for number in range(3):
        await channels.tell("discord", userId=str(home.user), **ALERT, dedupeKey=f"alert {number}")
    await channels.rounds()
    assert discord_double.answers == {429: 1}
    await move_clock(timedelta(seconds=9))
    await channels.rounds()
    assert await channels.deliveries("status", "resends") == [("sent", 0)] * 3


# -- a death between "decided to send" and "recorded" --


class Died(BaseException):
    """The worker is no more; what it had written is written. No handler catches it."""


@dataclass
class Worker:
    """One attempt after the other at one delivery; dies right after its n-th word with the outside, when told so."""

    run: Callable[..., Awaitable[Any]]
    db: Database
    delivery_id: UUID
    attempts: int = 0
    dies_after: int | None = None
    words: int = field(default=0, init=False)

    async def attempt(self) -> Any:
        self.attempts += 1
        now = datetime.now(UTC)
        job = Job(7, "alerts", "any", {}, None, 0, now, self.attempts, 0, 6, now)
        return await self.run(AlertJob(delivery_id=self.delivery_id), job=job, db=self.db)

    def has_spoken(self) -> None:
        self.words += 1
        if self.words == self.dies_after:
            raise Died


@pytest.fixture(params=["discord", "push"])
def channel(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def worker(
    channel: str,
    channels: Office,
    home: Home,
    db: Database,
    owner: Owner,
    webhooks: Discord,
    devices: Push,
    monkeypatch: pytest.MonkeyPatch,
) -> Worker:
    await channels.tell(userId=str(home.user), **ALERT)
    await channels.round()
    delivery_id = await owner.fetchval("select id from alert_deliveries where channel = $1", channel)
    worker = Worker(channels._handlers[channel].run, db, delivery_id)

    def counts(of: object, name: str) -> None:
        call = getattr(of, name)

        async def counted(*arguments: object, **named: object) -> Any:
            answer = await call(*arguments, **named)
            worker.has_spoken()
            return answer

        monkeypatch.setattr(of, name, counted)

    counts(delivery_file, "call")
    counts(webhooks, "post")
    counts(devices, "send")
    return worker


async def stands(owner: Owner, channel: str) -> tuple[Any, ...]:
    row = await owner.fetchrow(
        "select status, sends, resends from alert_deliveries where channel = $1", channel
    )
    return tuple(row or ())


@pytest.mark.parametrize(
    ("dies_after", "arrived", "resends"),
    [
        (1, 1, 1),  # begun, and nothing left: nobody but the dead knows
        (2, 2, 1),  # the provider has it, and that is not written
        (3, 1, 0),  # it is written, and nobody heard
    ],
)
async def test_whenever_a_worker_dies_the_next_one_finishes_and_a_copy_is_marked(
    worker: Worker,
    channel: str,
    home: Home,
    owner: Owner,
    move_clock: MoveClock,
    dies_after: int,
    arrived: int,
    resends: int,
) -> None:
    worker.dies_after = dies_after
    with pytest.raises(Died):
        await worker.attempt()
    await move_clock(IS_OVER)
    assert (await worker.attempt())["status"] == "sent"
    assert await stands(owner, channel) == ("sent", 1 + resends, resends)
    came = home.webhook.messages if channel == "discord" else home.device.came
    assert len(came) == arrived
    if channel == "discord":
        assert [message.get("content") for message in came] == [None] * (arrived - resends) + [
            RESENT
        ] * resends
    else:
        assert len(home.device.shown) == 1


async def test_who_dies_again_and_again_costs_one_copy_on_discord_and_shows_one_on_a_device(
    worker: Worker, channel: str, home: Home, owner: Owner, move_clock: MoveClock
) -> None:
    for death in (1, 2, 3):
        worker.words, worker.dies_after = 0, 2
        if channel == "discord" and death == 3:
            break
        with pytest.raises(Died):
            await worker.attempt()
        await move_clock(IS_OVER * death)
    worker.dies_after = None
    ended = await worker.attempt()
    if channel == "discord":
        assert ended["status"] == "unknown"
        assert (await stands(owner, channel), len(home.webhook.messages)) == (("unknown", 2, 1), 2)
    else:
        assert ended["status"] == "sent"
        assert await stands(owner, channel) == ("sent", 4, 3)
        assert (len(home.device.came), len(home.device.shown)) == (4, 1)


async def test_an_answer_that_was_lost_is_one_copy_at_most(
    worker: Worker,
    channel: str,
    home: Home,
    owner: Owner,
    move_clock: MoveClock,
    discord_double: DiscordDouble,
    firebase: FirebaseDouble,
) -> None:
    discord_double.fail_next(DROPPED_AFTERWARDS, 2)
    firebase.fail_next("/v1", DROPPED_AFTERWARDS, 2)
    for lost in (1, 2):
        assert isinstance(await worker.attempt(), Snooze)
        await move_clock(IS_OVER * lost)
    ended = await worker.attempt()
    if channel == "discord":
        assert (ended["status"], len(home.webhook.messages)) == ("unknown", 2)
    else:
        assert (ended["status"], len(home.device.came), len(home.device.shown)) == ("sent", 3, 1)
    assert (await stands(owner, channel))[2] == (1 if channel == "discord" else 2)
