"""Digests on Discord and on devices: short, the most severe first, within every limit."""

import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import uuid4

from devstack.alerts.discord_form import faults_of
from handlers.clients.alerts.delivery import Reader, Sending
from handlers.clients.alerts.digest import DigestFacts, Group, Money, Trades
from handlers.clients.alerts.discord_digest import discord_digest
from handlers.clients.alerts.discord_message import RESENT
from handlers.clients.alerts.push_message import push_digest
from handlers.clients.database import Database
from tests.handlers.alerts.conftest import Home, Office, Post
from tests.handlers.alerts.test_digests import alert, run, wants
from tests.handlers.alerts.test_discord_message import active
from tests.handlers.conftest import Owner

ClockAt = Callable[[str], Awaitable[None]]


async def test_a_digest_is_told_where_its_reader_wants_it_if_that_channel_knows_how(
    channels: Office, home: Home, owner: Owner, db: Database, clock_at: ClockAt
) -> None:
    channels.channel("pager", Post())
    await owner.execute(
        "insert into alert_targets (user_id, channel, address) values ($1, 'pager', '1')", home.user
    )
    await wants(owner, home.user, digest_channels=["discord", "pager", "push"])
    await clock_at("2026-03-10 08:05")
    await alert(owner, home.user, "2026-03-09 10:00", "Filled")
    await alert(owner, home.user, "2026-03-09 11:00", "Filled again")
    await alert(owner, home.user, "2026-03-09 12:00", "Trading halted", "critical", "halt")
    await run(db)
    digest = str(await owner.fetchval("select id from digests"))
    await run(db, digestId=digest)
    await channels.rounds()
    assert await channels.deliveries() == [
        ("discord", "sent", None),
        ("pager", "suppressed", "no_digests"),
        ("push", "sent", None),
    ]
    [message] = home.webhook.messages
    [embed] = message["embeds"]
    assert embed["title"] == "Your day: 3 alerts"
    assert embed["description"].splitlines() == [
        "Critical: 1, Notice: 2",
        "Critical: Trading halted",
        "Notice: 2 × Filled again",
    ]
    [shown] = home.device.shown.values()
    assert shown["notification"] == {
        "title": "Your day: 3 alerts",
        "body": "Critical: Trading halted, and 2 more",
    }
    assert shown["data"]["digest_id"] == digest
    # However old what it sums: Apple keeps it for a device that is off.
    assert int(shown["apns"]["headers"]["apns-expiration"]) > time.time()


def a_digest(groups: int, name: str, others: int) -> DigestFacts:
    return DigestFacts(
        period="weekly",
        window_start=datetime(2026, 3, 2, 8, tzinfo=UTC),
        window_end=datetime(2026, 3, 9, 8, tzinfo=UTC),
        reader=Reader(),
        severities={"error": groups * 7},
        groups=[Group(alert_type="x", severity="error", title=name, count=7)] * groups,
        chart=[],
        trades=[
            Trades(
                symbol=name,
                side="buy",
                fills=2,
                quantity=Decimal("0.00012345678"),
                value=Decimal("1234567.891"),
                commission=Decimal(0),
            )
        ]
        * others,
        orders={f"{name}_{number}": number for number in range(others)},
        payments=[Money(currency="eur", count=2, amount=Decimal("12.5"))] * others,
    )


def test_no_digest_is_too_large_for_discord_or_says_more_than_words() -> None:
    nasty = "**@everyone** [a](http://evil.example) <@1> # ||x|| `y` \u202e" * 20
    for groups, name, others in ((20, nasty, 60), (20, "Filled", 1), (0, "AAPL", 1), (1, "\u200b", 0)):
        message: Any = discord_digest(a_digest(groups, name, others), is_resend=True)
        assert faults_of(message) == {}
        assert message["content"] == RESENT
        [embed] = message["embeds"]
        texts = [embed["title"], embed.get("description", "")]
        texts += [one["value"] for one in embed.get("fields", [])]
        assert [active(text) for text in texts] == [""] * len(texts)
        if others == 60:
            assert [text.splitlines()[-1][-5:] for text in texts[1:]] == [" more"] * 4


def test_a_digest_on_a_device_is_two_short_lines() -> None:
    sending = Sending.model_validate(
        {
            "delivery_id": uuid4(),
            "channel": "push",
            "send": 1,
            "resend": False,
            "alert": None,
            "digest_id": uuid4(),
            "target": {"id": uuid4(), "address": "a", "kind": "fid", "label": None, "secret": None},
            "reader": {},
        }
    )
    message = push_digest(a_digest(20, "word " * 500, 60), sending, "a")
    assert (message.kind, message.key) == ("fid", sending.delivery_id.hex)
    assert len(message.title) <= 100
    assert message.body is not None
    assert message.body.startswith("Error: word word")
    assert message.body.endswith("…, and 139 more")
    assert len(message.body) < 150
    assert push_digest(a_digest(0, "AAPL", 1), sending, "a").body is None
