"""Digests: one per local day or week whatever happens, windows that leave nothing out, and mails worth reading."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import asyncpg

from handlers.alerts.aggregate import Aggregate, aggregate
from handlers.clients.alerts.digest import DigestFacts
from handlers.clients.alerts.digest_mail import digest_letter
from handlers.clients.database import Database
from tests.handlers.alerts.test_mail_words import EAGER, Page
from tests.handlers.conftest import Owner, a_job

Person = Callable[..., Awaitable[UUID]]
ClockAt = Callable[[str], Awaitable[None]]

# Zone, time of the digest, the moments (UTC) at which it is due around the change of clocks. By hand:
DUE = [
    # 02:30 does not exist on 8 March; the clock jumps from 2 to 3, so it is an hour later by the clock: 03:30 EDT.
    ("America/New_York", "02:30", ["2026-03-07 07:30", "2026-03-08 07:30", "2026-03-09 06:30"]),
    # 01:30 comes twice on 1 November; the second one counts, EST.
    ("America/New_York", "01:30", ["2026-10-31 05:30", "2026-11-01 06:30", "2026-11-02 06:30"]),
    ("Europe/Berlin", "02:30", ["2026-03-28 01:30", "2026-03-29 01:30", "2026-03-30 00:30"]),
    ("Europe/Berlin", "02:30", ["2026-10-24 00:30", "2026-10-25 01:30", "2026-10-26 01:30"]),
    ("Europe/London", "08:00", ["2026-03-28 08:00", "2026-03-29 07:00", "2026-03-30 07:00"]),
    ("Europe/London", "01:00", ["2026-10-24 00:00", "2026-10-25 01:00", "2026-10-26 01:00"]),
    # Half an hour only.
    ("Australia/Lord_Howe", "02:00", ["2026-10-02 15:30", "2026-10-03 15:30", "2026-10-04 15:00"]),
    ("Australia/Lord_Howe", "01:45", ["2026-04-03 14:45", "2026-04-04 15:15", "2026-04-05 15:15"]),
    ("Asia/Kolkata", "00:00", ["2026-03-28 18:30", "2026-03-29 18:30", "2026-03-30 18:30"]),
    ("Asia/Kolkata", "08:00", ["2026-10-24 02:30", "2026-10-25 02:30", "2026-10-26 02:30"]),
    # Midnight does not exist on 6 September: the clock jumps from 0 to 1.
    ("America/Santiago", "00:00", ["2026-09-05 04:00", "2026-09-06 04:00", "2026-09-07 03:00"]),
    ("America/Santiago", "23:30", ["2026-04-04 02:30", "2026-04-05 03:30", "2026-04-06 03:30"]),
]


async def test_a_digest_is_due_once_per_local_day_also_when_clocks_change(owner: Owner) -> None:
    for zone, digest_at, moments in DUE:
        expected = [datetime.fromisoformat(one).replace(tzinfo=UTC) for one in moments]
        rows = await owner.fetch(
            "select distinct d.* from generate_series($1::timestamptz, $2, interval '15 minutes') as at,"
            " digest_due(at, $3, 'daily', $4::text::time, 1) as d order by d.due_at",
            expected[0],
            expected[-1] + timedelta(minutes=5),
            zone,
            digest_at,
        )
        assert [row["due_at"] for row in rows] == expected, (zone, digest_at)
        local = [row["due_at"].astimezone(ZoneInfo(zone)).date() for row in rows]
        assert [row["period_key"] for row in rows] == local


async def wants(owner: Owner, user: UUID, **likes: object) -> None:
    names = {"timezone": "UTC", "digest_daily": True} | likes
    marks = ", ".join(f"${n}" for n in range(2, len(names) + 2))
    row = f"insert into notification_preferences (user_id, {', '.join(names)}) values ($1, {marks})"
    await owner.execute(row, user, *names.values())


async def alert(
    owner: Owner, user: UUID, at: str, title: str = "Filled", severity: str = "info", type_: str = "x"
) -> None:
    await owner.execute(
        "insert into alerts (user_id, alert_type, severity, title, dedupe_key, created_at)"
        " values ($1, $2, $3, $4, $5, $6)",
        user,
        type_,
        severity,
        title,
        uuid4().hex,
        datetime.fromisoformat(at).replace(tzinfo=UTC),
    )


async def run(db: Database, **data: object) -> Any:
    return await aggregate(Aggregate.model_validate(data), job=a_job({}, "alerts", "aggregate"), db=db)


async def digests(owner: Owner) -> list[tuple[str, str, str, str]]:
    rows = await owner.fetch("select * from digests order by window_end, period")
    return [
        (
            str(row["period_key"]),
            f"{row['window_start']:%d %H:%M}",
            f"{row['window_end']:%d %H:%M}",
            row["status"],
        )
        for row in rows
    ]


async def test_many_schedulers_make_one_digest_and_windows_follow_each_other(
    db: Database, owner: Owner, person: Person, clock_at: ClockAt, database: str
) -> None:
    user = await person(email="ann@example.com")
    await wants(owner, user)
    await clock_at("2026-03-10 08:05")
    others = [await asyncpg.connect(database) for _ in range(5)]
    try:
        for moment in ("2026-03-10 08:05", "2026-03-10 12:00", "2026-03-11 08:00", "2026-03-14 09:00"):
            await clock_at(moment)
            await asyncio.gather(*(one.fetchval("select sweep_digests()") for one in others))
            await run(db)
    finally:
        for one in others:
            await one.close()
    # After three days of nothing one digest covers them all.
    assert await digests(owner) == [
        ("2026-03-10", "09 08:00", "10 08:00", "due"),
        ("2026-03-11", "10 08:00", "11 08:00", "due"),
        ("2026-03-14", "11 08:00", "14 08:00", "due"),
    ]
    assert await owner.fetchval("select count(*) from jobs where type = 'aggregate'") == 3


async def test_a_user_who_moves_around_the_world_gets_neither_gap_nor_overlap(
    db: Database, owner: Owner, person: Person, clock_at: ClockAt
) -> None:
    user = await person(email="ann@example.com")
    await wants(owner, user, timezone="America/New_York", digest_weekly=True)
    moment = datetime(2026, 2, 27, tzinfo=UTC)
    zones = ["America/New_York", "Pacific/Auckland", "Europe/Berlin", "Pacific/Honolulu", "Asia/Kolkata"]
    await clock_at("2026-02-26 23:00")
    for period in ("daily", "weekly"):
        await run(db, userId=str(user), period=period)
    for step in range(24):
        await clock_at((moment + timedelta(hours=19 * step)).isoformat()[:16])
        await owner.execute("update notification_preferences set timezone = $1", zones[step // 4 % 5])
        await run(db)
    for period in ("daily", "weekly"):
        rows = await owner.fetch(
            "select window_start, window_end from digests where period = $1 order by window_end", period
        )
        assert all(one["window_end"] == other["window_start"] for one, other in pairwise(rows))
        assert len(rows) >= (10 if period == "daily" else 2)


async def test_nothing_to_say_is_not_said(
    db: Database, owner: Owner, person: Person, clock_at: ClockAt
) -> None:
    user = await person(email="ann@example.com")
    await wants(owner, user)
    await clock_at("2026-03-10 08:05")
    await run(db)
    digest = await owner.fetchval("select id from digests")
    assert await run(db, digestId=str(digest)) == {"status": "empty", "deliveries": 0, "suppressed": 0}
    assert await owner.fetchval("select count(*) from alert_deliveries") == 0


async def test_a_digest_goes_to_the_channels_its_reader_chose_once(
    db: Database, owner: Owner, person: Person, clock_at: ClockAt
) -> None:
    user = await person(email="ann@example.com", pager="1")
    await wants(owner, user, digest_channels=["email", "pager"])
    await owner.execute(
        "insert into email_suppressions (address, scope, reason) values ('ann@example.com', 'digest', 'unsubscribe')"
    )
    await clock_at("2026-03-10 08:05")
    await alert(owner, user, "2026-03-10 07:59")
    await run(db)
    digest = str(await owner.fetchval("select id from digests"))
    for _ in range(3):
        assert await run(db, digestId=digest) == {"status": "sent", "deliveries": 1, "suppressed": 1}
    assert await owner.fetchval("select count(*) from jobs where type = 'pager'") == 1


async def test_the_example_of_the_brief_makes_a_digest_at_once(
    db: Database, owner: Owner, person: Person, clock_at: ClockAt
) -> None:
    user = await person(email="ann@example.com")
    await clock_at("2026-03-10 23:00")
    await alert(owner, user, "2026-03-10 07:59")
    assert await run(db, userId=str(user), period="daily") == {"digests": 1}
    assert await run(db, userId=str(user), period="daily") == {"digests": 0}
    assert await digests(owner) == [("2026-03-10", "09 08:00", "10 08:00", "due")]


async def test_an_alert_is_in_exactly_one_digest(
    db: Database, owner: Owner, person: Person, clock_at: ClockAt
) -> None:
    user = await person(email="ann@example.com")
    await wants(owner, user)
    for moment in ("2026-03-10 07:59:59.999999", "2026-03-10 08:00", "2026-03-11 07:59:59"):
        await alert(owner, user, moment)
    for day in (10, 11):
        await clock_at(f"2026-03-{day} 08:05")
        await run(db)
    counts = await owner.fetch("select digest_facts(id)::text as said from digests order by window_end")
    assert [json.loads(row["said"])["severities"] for row in counts] == [{"info": 1}, {"info": 2}]


async def test_a_digest_is_grouped_counted_and_harmless(
    db: Database, owner: Owner, person: Person, clock_at: ClockAt
) -> None:
    user = await person(email="ann@example.com")
    await wants(owner, user, timezone="Europe/Berlin", locale="de_DE")
    await clock_at("2026-03-10 07:05")
    for n in range(12):
        await alert(owner, user, f"2026-03-09 {8 + n:02}:30", f"Filled {n}", type_="order_filled")
    await alert(owner, user, "2026-03-09 12:00", "<script> http://evil.example", "critical", "halt")
    await owner.execute(
        "insert into payments (user_id, provider, status, amount, currency, paid_at)"
        " values ($1, 'manual', 'succeeded', 12.50, 'eur', '2026-03-09 12:00+00'),"
        " ($1, 'manual', 'succeeded', 0.10, 'eur', '2026-03-09 13:00+00')",
        user,
    )
    await run(db)
    digest = str(await owner.fetchval("select id from digests"))
    facts = DigestFacts.model_validate(
        json.loads(await owner.fetchval("select digest_facts($1)::text", digest))
    )
    subject, letter = digest_letter(
        facts, app_url="https://app.example.com", unsubscribe_url="https://jobs.example.com/unsubscribe/x"
    )
    assert subject == "Your day: 13 alerts, 12,60\xa0€ paid"
    assert [(one.severity, one.count) for one in facts.groups] == [("critical", 1), ("info", 12)]
    assert sum(sum(one.severities.values()) for one in facts.chart) == 13
    page = Page(letter.html())
    assert page.links == ["https://app.example.com", "https://jobs.example.com/unsubscribe/x"]
    assert "script" not in page.tags
    assert not EAGER.search(page.text)
    assert "img" not in page.tags
    assert "12,60 € in 2 payments" in letter.text()
    assert "Filled 11" in letter.text()


async def test_digests_of_many_users_are_made_in_steps(db: Database, owner: Owner, clock_at: ClockAt) -> None:
    await owner.execute(
        "insert into notification_preferences (user_id, digest_daily, digest_at)"
        " select gen_random_uuid(), true, time '08:00' + make_interval(hours => n / 501)"
        " from generate_series(0, 1001) as n"
    )
    await clock_at("2026-03-10 09:05")  # the first half is due for longer than an hour, and begins tomorrow
    assert json.loads(await owner.fetchval("select sweep_digests()")) == {"digests": 500, "more": True}
    assert await run(db) == {"digests": 1}
    assert await run(db) == {"digests": 0}
