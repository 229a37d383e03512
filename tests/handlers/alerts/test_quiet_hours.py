"""Quiet hours end when the reader's clock says so, on the days on which clocks are changed, too; expected by hand."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from uuid import UUID

import pytest

from tests.handlers.alerts.conftest import ALERT, Office, Person, Post
from tests.handlers.conftest import Owner

ClockAt = Callable[[str], Awaitable[None]]
NIGHT = ("22:00", "07:00")

# Zone, from, until; a moment in UTC; when the quiet hours that hold then end, in UTC (None: none hold).
BY_HAND = [
    # New York: 8 March, 02:00 EST becomes 03:00 EDT; 1 November, 02:00 EDT becomes 01:00 EST.
    ("America/New_York", *NIGHT, "2026-03-08 02:59", None),
    ("America/New_York", *NIGHT, "2026-03-08 03:00", "2026-03-08 11:00"),
    ("America/New_York", *NIGHT, "2026-03-08 10:59", "2026-03-08 11:00"),
    ("America/New_York", *NIGHT, "2026-03-08 11:00", None),
    ("America/New_York", *NIGHT, "2026-11-01 01:59", None),
    ("America/New_York", *NIGHT, "2026-11-01 02:00", "2026-11-01 12:00"),
    ("America/New_York", *NIGHT, "2026-11-01 11:59", "2026-11-01 12:00"),
    ("America/New_York", *NIGHT, "2026-11-01 12:00", None),
    ("America/New_York", "23:00", "02:30", "2026-03-08 06:59", "2026-03-08 07:30"),  # there is no 02:30
    ("America/New_York", "23:00", "02:30", "2026-03-08 07:15", "2026-03-08 07:30"),
    ("America/New_York", "23:00", "01:30", "2026-11-01 05:45", "2026-11-01 06:30"),  # the second 01:30
    ("America/New_York", "23:00", "01:30", "2026-11-01 06:30", None),
    # Berlin: 29 March, 02:00 CET becomes 03:00 CEST; 25 October, 03:00 CEST becomes 02:00 CET.
    ("Europe/Berlin", *NIGHT, "2026-03-28 21:00", "2026-03-29 05:00"),
    ("Europe/Berlin", *NIGHT, "2026-03-29 05:00", None),
    ("Europe/Berlin", *NIGHT, "2026-10-24 20:00", "2026-10-25 06:00"),
    ("Europe/Berlin", *NIGHT, "2026-10-25 06:00", None),
    ("Europe/Berlin", "23:30", "02:30", "2026-10-25 00:45", "2026-10-25 01:30"),
    ("Europe/Berlin", "02:30", "06:00", "2026-10-25 00:45", None),  # the first 02:45
    ("Europe/Berlin", "02:30", "06:00", "2026-10-25 01:30", "2026-10-25 05:00"),
    ("Europe/Berlin", "02:30", "06:00", "2026-03-29 01:15", None),  # 03:15: 02:30 came as 03:30
    ("Europe/Berlin", "02:30", "06:00", "2026-03-29 01:30", "2026-03-29 04:00"),
    # Dublin, whose summer time is its standard time: 29 March, 01:00 becomes 02:00; 25 October, 02:00 becomes 01:00.
    ("Europe/Dublin", *NIGHT, "2026-03-28 22:00", "2026-03-29 06:00"),
    ("Europe/Dublin", *NIGHT, "2026-10-24 21:00", "2026-10-25 07:00"),
    ("Europe/Dublin", "23:00", "01:30", "2026-03-29 01:15", "2026-03-29 01:30"),
    ("Europe/Dublin", "23:00", "01:30", "2026-10-25 00:45", "2026-10-25 01:30"),
    # Lord Howe Island, by half an hour: 5 April, 02:00 (+11) becomes 01:30; 4 October, 02:00 (+10:30) becomes 02:30.
    ("Australia/Lord_Howe", *NIGHT, "2026-04-04 11:00", "2026-04-04 20:30"),
    ("Australia/Lord_Howe", *NIGHT, "2026-10-03 11:30", "2026-10-03 20:00"),
    ("Australia/Lord_Howe", "23:00", "01:45", "2026-04-04 14:50", "2026-04-04 15:15"),
    ("Australia/Lord_Howe", "23:00", "02:15", "2026-10-03 15:31", "2026-10-03 15:45"),
    # Santiago, at midnight: 4 April, 24:00 (-3) becomes 23:00 (-4); 6 September, 00:00 (-4) becomes 01:00 (-3).
    ("America/Santiago", *NIGHT, "2026-04-05 01:00", "2026-04-05 11:00"),
    ("America/Santiago", *NIGHT, "2026-09-06 02:00", "2026-09-06 10:00"),
    ("America/Santiago", "21:00", "23:30", "2026-04-05 02:45", "2026-04-05 03:30"),
    ("America/Santiago", "00:00", "06:00", "2026-09-06 03:59", None),
    ("America/Santiago", "00:00", "06:00", "2026-09-06 04:00", "2026-09-06 09:00"),
    # Auckland: 5 April, 03:00 (+13) becomes 02:00 (+12); 27 September, 02:00 (+12) becomes 03:00 (+13).
    ("Pacific/Auckland", *NIGHT, "2026-04-04 09:00", "2026-04-04 19:00"),
    ("Pacific/Auckland", *NIGHT, "2026-04-04 18:59", "2026-04-04 19:00"),
    ("Pacific/Auckland", *NIGHT, "2026-09-26 10:00", "2026-09-26 18:00"),
    ("Pacific/Auckland", *NIGHT, "2026-09-26 18:00", None),
    # Kolkata never changes; and an hour at noon is as good as a night.
    ("Asia/Kolkata", *NIGHT, "2026-03-08 16:30", "2026-03-09 01:30"),
    ("Asia/Kolkata", "13:00", "14:00", "2026-11-01 08:00", "2026-11-01 08:30"),
    ("Asia/Kolkata", "13:00", "14:00", "2026-11-01 08:30", None),
]


async def test_quiet_hours_over_both_changes_of_a_year(owner: Owner) -> None:
    await owner.execute("set timezone to 'UTC'")
    found = [
        (
            zone,
            begin,
            end,
            at,
            await owner.fetchval(
                "select to_char(quiet_end($1::text::timestamptz, $2, $3::text::time, $4::text::time),"
                " 'YYYY-MM-DD HH24:MI')",
                at,
                zone,
                begin,
                end,
            ),
        )
        for zone, begin, end, at, _ in BY_HAND
    ]
    assert found == BY_HAND


@pytest.fixture
async def sleeper(person: Person, owner: Owner) -> UUID:
    """Somebody in New York who sleeps from ten to seven, and wants to be woken for errors."""
    user = await person(pager="1")
    await owner.execute(
        "insert into notification_preferences (user_id, timezone, quiet_from, quiet_until, quiet_bypass)"
        " values ($1, 'America/New_York', '22:00', '07:00', 'error')",
        user,
    )
    return user


async def test_what_is_told_at_night_arrives_in_the_morning(
    office: Office, pager: Post, sleeper: UUID, owner: Owner, clock_at: ClockAt
) -> None:
    await clock_at("2026-03-08 05:00")
    await office.tell(userId=str(sleeper), **ALERT)
    await office.rounds()
    assert await office.deliveries() == [("pager", "pending", None)]
    due = await owner.fetchval("select run_at from alerts_jobs where type = 'pager'")
    assert due == datetime.fromisoformat("2026-03-08T11:00:00+00:00")
    await clock_at("2026-03-08 10:59")
    assert (await office.rounds(), pager.came) == ([], [])
    await clock_at("2026-03-08 11:00")
    await office.rounds()
    assert pager.titles == ["Filled"]


async def test_what_is_severe_enough_wakes_its_reader(
    office: Office, pager: Post, sleeper: UUID, clock_at: ClockAt
) -> None:
    await clock_at("2026-03-08 05:00")
    for severity in ("warning", "error", "critical"):
        await office.tell(userId=str(sleeper), **ALERT, severity=severity)
    await office.rounds()
    assert sorted(one.alert.severity for one in pager.came if one.alert) == ["critical", "error"]


async def test_quiet_hours_that_began_while_a_delivery_waited_hold_for_it_too(
    office: Office, pager: Post, sleeper: UUID, clock_at: ClockAt
) -> None:
    await clock_at("2026-03-08 02:59:30")
    await office.tell(userId=str(sleeper), **ALERT)
    await office.round()  # it is routed by day, and not sent yet
    await clock_at("2026-03-08 03:00")
    await office.rounds()
    assert (pager.came, await office.deliveries()) == ([], [("pager", "pending", None)])
    await clock_at("2026-03-08 11:00:01")
    await office.rounds()
    assert pager.titles == ["Filled"]
