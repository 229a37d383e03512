"""Paid time: how it is sold, extended, ended and taken back, with the database's clock moved through months."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from uuid import UUID

import asyncpg
import pytest

from tests.handlers.conftest import Owner
from tests.handlers.paid_time import look, notices, pay, reverse, state


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("2026-01-31", ["2026-02-28", "2026-03-31", "2026-04-30", "2026-05-31"]),
        ("2028-01-31", ["2028-02-29", "2028-03-31"]),  # a leap year
        ("2027-12-15", ["2028-01-15", "2028-02-15"]),
        ("2026-03-28", ["2026-04-28", "2026-05-28"]),  # Europe's change of time lies in between
    ],
)
async def test_the_anchor_day_is_kept_over_short_months(
    owner: Owner,
    user_id: UUID,
    tier: UUID,
    clock_at: Callable[[str], Awaitable[None]],
    first: str,
    then: list[str],
) -> None:
    await clock_at(f"{first}T10:00")
    begins = first
    for ends in then:
        assert (await pay(owner, user_id, tier, f"{first}T10:00"))["period"] == f"{begins} {ends}"
        begins = ends
    ends_at = await owner.fetchval("select current_period_end from subscriptions")
    assert (ends_at.hour, ends_at.minute) == (10, 0)


async def test_a_year_from_a_leap_day(
    owner: Owner, user_id: UUID, tier: UUID, clock_at: Callable[[str], Awaitable[None]]
) -> None:
    await clock_at("2028-02-29T00:00")
    assert (await pay(owner, user_id, tier, "2028-02-29T00:00", "year"))["period"] == "2028-02-29 2029-02-28"
    assert (await pay(owner, user_id, tier, "2028-02-29T00:00", "year"))["period"] == "2029-02-28 2030-02-28"
    assert (await pay(owner, user_id, tier, "2028-02-29T00:00", "year"))["period"] == "2030-02-28 2031-02-28"
    assert (await pay(owner, user_id, tier, "2028-02-29T00:00", "year"))["period"] == "2031-02-28 2032-02-29"


async def test_a_whole_life_with_one_notice_for_each_stage(
    owner: Owner, user_id: UUID, tier: UUID, clock_at: Callable[[str], Awaitable[None]]
) -> None:
    await clock_at("2026-06-10T12:00")
    await pay(owner, user_id, tier, "2026-06-10T12:00")
    told = ["subscription_activated"]
    for moment, outcome, status, notice in [
        ("2026-07-03T11:59", "unchanged", "active", None),
        ("2026-07-03T12:01", "noticed", "active", "renewal_required"),
        ("2026-07-07T12:01", "noticed", "active", "renewal_required"),
        ("2026-07-09T12:01", "noticed", "active", "renewal_required"),
        ("2026-07-10T11:59", "unchanged", "active", None),
        ("2026-07-10T12:01", "past_due", "past_due", "renewal_overdue"),
        ("2026-07-13T11:59", "unchanged", "past_due", None),
        ("2026-07-13T12:01", "expired", "expired", "subscription_expired"),
        ("2026-08-13T12:01", "unchanged", "expired", None),
    ]:
        await clock_at(moment)
        assert await look(owner, user_id) == outcome, moment
        assert await look(owner, user_id) == "unchanged"
        assert await state(owner, user_id) == status
        told += [notice] if notice else []
        assert await notices(owner) == told, moment


async def test_a_look_that_comes_late_sends_the_latest_notice_alone(
    owner: Owner, user_id: UUID, tier: UUID, clock_at: Callable[[str], Awaitable[None]]
) -> None:
    await clock_at("2026-06-10T12:00")
    await pay(owner, user_id, tier, "2026-06-10T12:00")
    await clock_at("2026-07-20T00:00")
    assert await look(owner, user_id) == "expired"
    assert await notices(owner) == ["subscription_activated", "subscription_expired"]


async def test_a_clock_that_steps_back_takes_no_stage_back(
    owner: Owner, user_id: UUID, tier: UUID, clock_at: Callable[[str], Awaitable[None]]
) -> None:
    await clock_at("2026-06-10T12:00")
    await pay(owner, user_id, tier, "2026-06-10T12:00")
    await clock_at("2026-07-10T13:00")
    assert await look(owner, user_id) == "past_due"
    await clock_at("2026-07-04T13:00")
    assert await look(owner, user_id) == "unchanged"
    assert await state(owner, user_id) == "past_due"
    await clock_at("2026-07-10T14:00")
    assert await look(owner, user_id) == "unchanged"
    assert await notices(owner) == ["subscription_activated", "renewal_overdue"]


@pytest.mark.parametrize(
    ("paid_at", "period"),
    [
        ("2026-07-12T12:00", "2026-07-10 2026-08-10"),  # within grace: no day is lost or given away
        ("2026-07-14T12:00", "2026-07-14 2026-08-14"),  # after it: a new beginning with an anchor of its own
    ],
)
async def test_paying_late_within_grace_goes_on_and_after_it_begins_anew(
    owner: Owner,
    user_id: UUID,
    tier: UUID,
    clock_at: Callable[[str], Awaitable[None]],
    paid_at: str,
    period: str,
) -> None:
    await clock_at("2026-06-10T12:00")
    await pay(owner, user_id, tier, "2026-06-10T12:00")
    await clock_at("2026-07-20T12:00")  # found only now: what counts is when it was paid
    await look(owner, user_id)
    assert (await pay(owner, user_id, tier, paid_at))["period"] == period
    assert await state(owner, user_id) == "active"
    assert await owner.fetchval("select count(*) from subscriptions") == 1


async def test_a_cancelled_subscription_asks_for_nothing_and_ends_with_its_period(
    owner: Owner, user_id: UUID, tier: UUID, clock_at: Callable[[str], Awaitable[None]]
) -> None:
    await clock_at("2026-06-10T12:00")
    await pay(owner, user_id, tier, "2026-06-10T12:00")
    await owner.execute("update subscriptions set cancel_at_period_end = true")
    await clock_at("2026-07-08T12:00")
    assert await look(owner, user_id) == "noticed"
    assert await notices(owner) == ["subscription_activated"]
    await clock_at("2026-07-10T12:01")
    assert await look(owner, user_id) == "canceled"
    assert await notices(owner) == ["subscription_activated", "subscription_expired"]
    assert (await pay(owner, user_id, tier, "2026-07-11T12:00"))["period"] == "2026-07-11 2026-08-11"
    assert not await owner.fetchval("select cancel_at_period_end from subscriptions")


async def test_two_payments_at_once_buy_two_periods(
    owner: Owner, database: str, user_id: UUID, tier: UUID, clock_at: Callable[[str], Awaitable[None]]
) -> None:
    await clock_at("2026-06-10T12:00")
    connections = [await asyncpg.connect(database) for _ in range(4)]
    try:
        bought = await asyncio.gather(
            *(pay(connection, user_id, tier, "2026-06-10T12:00") for connection in connections)
        )
    finally:
        for connection in connections:
            await connection.close()
    assert sorted(each["period"] for each in bought) == [
        "2026-06-10 2026-07-10",
        "2026-07-10 2026-08-10",
        "2026-08-10 2026-09-10",
        "2026-09-10 2026-10-10",
    ]
    assert await notices(owner) == ["subscription_activated"]


async def test_sweeps_at_once_enqueue_each_step_once(
    owner: Owner, database: str, user_id: UUID, tier: UUID, clock_at: Callable[[str], Awaitable[None]]
) -> None:
    await clock_at("2026-06-10T12:00")
    await pay(owner, user_id, tier, "2026-06-10T12:00")
    await clock_at("2026-07-04T12:00")
    connections = [await asyncpg.connect(database) for _ in range(4)]
    try:
        swept = await asyncio.gather(
            *(connection.fetchval("select sweep_renewals()") for connection in connections)
        )
    finally:
        for connection in connections:
            await connection.close()
    assert sum(json.loads(each)["enqueued"] for each in swept) == 1
    rows = await owner.fetch("select data, user_id from jobs where type = 'subscription_renewal'")
    subscription = await owner.fetchval("select id from subscriptions")
    assert [(json.loads(row["data"]), row["user_id"]) for row in rows] == [
        ({"subscription_id": str(subscription)}, user_id)
    ]
    assert json.loads(await owner.fetchval("select sweep_renewals()")) == {"enqueued": 0, "more": False}


async def test_a_sweep_passes_over_those_whose_job_is_there_already(
    owner: Owner, tier: UUID, clock_at: Callable[[str], Awaitable[None]]
) -> None:
    """A step that failed for good keeps its job; it may not stand before the others in a sweep with a limit."""
    await clock_at("2026-06-10T12:00")
    for number in range(5):
        await pay(owner, UUID(int=number), tier, f"2026-06-10T12:0{number}")
    await clock_at("2026-07-04T12:00")
    swept = [json.loads(await owner.fetchval("select sweep_renewals(2)")) for _ in range(4)]
    assert swept == [
        {"enqueued": 2, "more": True},
        {"enqueued": 2, "more": True},
        {"enqueued": 1, "more": False},
        {"enqueued": 0, "more": False},
    ]


async def test_time_that_was_never_paid_for_is_taken_back(
    owner: Owner, user_id: UUID, tier: UUID, clock_at: Callable[[str], Awaitable[None]]
) -> None:
    await clock_at("2026-01-31T12:00")
    first = await pay(owner, user_id, tier, "2026-01-31T12:00")
    second = await pay(owner, user_id, tier, "2026-01-31T12:00")
    assert second["period"] == "2026-02-28 2026-03-31"
    await reverse(owner, user_id, second)
    ends = await owner.fetchval("select current_period_end from subscriptions")
    assert ends.date().isoformat() == "2026-02-28"
    assert await state(owner, user_id) == "active"
    await reverse(owner, user_id, first)
    assert await state(owner, user_id) == "expired"
    assert await notices(owner) == [
        "subscription_activated"
    ]  # the reversal itself is told by whoever found it


async def test_time_that_was_taken_back_from_under_later_time_moves_it(
    owner: Owner, user_id: UUID, tier: UUID, clock_at: Callable[[str], Awaitable[None]]
) -> None:
    await clock_at("2026-01-31T12:00")
    first = await pay(owner, user_id, tier, "2026-01-31T12:00")
    await pay(owner, user_id, tier, "2026-01-31T12:00")
    await reverse(owner, user_id, first)
    ends = await owner.fetchval("select current_period_end from subscriptions")
    assert ends.date().isoformat() == "2026-02-28"
    assert await state(owner, user_id) == "active"


async def test_the_status_query_of_the_brief_has_one_row_for_whoever_had_a_subscription(
    owner: Owner, user_id: UUID, tier: UUID, clock_at: Callable[[str], Awaitable[None]]
) -> None:
    await clock_at("2026-01-31T12:00")
    await pay(owner, user_id, tier, "2026-01-31T12:00")
    await owner.execute(
        "insert into subscriptions (user_id, status, payment_method, stripe_subscription_id, started_at, ticket)"
        " values ($1, 'canceled', 'stripe', 'sub_1', now(), 1)",
        user_id,
    )
    rows = await owner.fetch("select status from user_subscriptions where user_id = $1", user_id)
    assert [row["status"] for row in rows] == ["active"]
