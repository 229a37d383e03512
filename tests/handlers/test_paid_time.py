"""What could cost paid time, or give it away: reversals, changes of tier, jobs that came to nothing, two at once."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from uuid import UUID

import asyncpg
import pytest

from tests.handlers.conftest import Json, Owner
from tests.handlers.paid_time import blocked, look, notices, pay, reverse, state
from tests.waiting import until

ASK = "select open_crypto_request($1, $2, 'month', 'eth') ->> 'id'"
HASH = "0x" + "ab" * 32


async def sell_for_coins(owner: Owner) -> None:
    await owner.execute(
        "insert into crypto_assets (id, chain, symbol, decimals, required_confirmations)"
        " values ('eth', 'evm:1', 'ETH', 18, 1)"
    )
    for number in range(3):
        await owner.execute(
            "insert into crypto_addresses (network, address) values ('evm', $1)", f"0x{number:040x}"
        )


async def look_at_chain(owner: Owner, request: str, **seen: object) -> Json:
    """One look at the transaction of a request, signed by nobody in particular."""
    words = "select submit_crypto_hash($1, $2, $3)"
    named = json.dumps({"crypto_payment_id": request})
    begun = json.loads(await owner.fetchval(words, named, HASH, seen.pop("signature", None)))
    words = "select record_crypto_look($1, $2, $3, $4)"
    seen = {"transfers": [], "verdict": "not_found", **seen}
    ended = await owner.fetchval(words, UUID(request), HASH, begun["look"], json.dumps(seen))
    return {**begun["request"], **json.loads(ended)}


CONFIRMED = {
    "verdict": "confirmed",
    "block_hash": "0x01",
    "block_number": 1,
    "transfers": [{"place": -1, "sender": "0x01", "amount": "12500000000000000000"}],
}


async def test_a_reversal_leaves_a_later_life_of_the_subscription_alone(
    owner: Owner, user_id: UUID, tier: UUID, clock_at: Callable[[str], Awaitable[None]]
) -> None:
    """An old transaction may be looked for again, at a node that has forgotten it."""
    await clock_at("2026-01-10T12:00")
    first = await pay(owner, user_id, tier, "2026-01-10T12:00")
    await clock_at("2026-06-10T12:00")
    await look(owner, user_id)
    await pay(owner, user_id, tier, "2026-06-10T12:00")
    await reverse(owner, user_id, first)
    assert await state(owner, user_id) == "active"
    ends = await owner.fetchval("select current_period_end from subscriptions")
    assert ends.date().isoformat() == "2026-07-10"


async def test_who_pays_again_after_a_reversal_begins_with_that_payment(
    owner: Owner, user_id: UUID, tier: UUID, clock_at: Callable[[str], Awaitable[None]]
) -> None:
    await clock_at("2026-06-10T12:00")
    first = await pay(owner, user_id, tier, "2026-06-10T12:00")
    await reverse(owner, user_id, first)
    assert await state(owner, user_id) == "expired"
    await clock_at("2026-06-12T12:00")
    assert (await pay(owner, user_id, tier, "2026-06-12T12:00"))["period"] == "2026-06-12 2026-07-12"
    assert await notices(owner) == ["subscription_activated", "subscription_activated"]


async def test_a_step_whose_job_came_to_nothing_is_enqueued_again_a_day_later(
    owner: Owner, user_id: UUID, tier: UUID, clock_at: Callable[[str], Awaitable[None]]
) -> None:
    """The job ran while the clock was back, or was given up: nobody keeps access for that."""
    await clock_at("2026-06-10T12:00")
    await pay(owner, user_id, tier, "2026-06-10T12:00")
    for moment, enqueued in [("13T12:01", 1), ("13T11:59", 1), ("13T13:00", 0), ("14T12:01", 1)]:
        await clock_at(f"2026-07-{moment}")
        assert json.loads(await owner.fetchval("select sweep_renewals()"))["enqueued"] == enqueued, moment
        if moment == "13T11:59":
            assert await look(owner, user_id) == "past_due"
    assert await look(owner, user_id) == "expired"


@pytest.mark.parametrize(
    ("had", "then", "interval", "period"),
    [
        ("year", "gold", "month", "2026-07-11 2026-08-11"),  # 365 days at 120 a year are 29.2 at 1500
        ("month", "mini", "month", "2026-08-11 2026-09-11"),  # 30 days at 120 a year are 60 at 5 a month
        ("month", "pro", "year", "2026-07-12 2027-07-12"),  # the same tier: as it was
    ],
)
async def test_what_is_left_of_a_tier_is_worth_as_much_in_another(
    owner: Owner,
    user_id: UUID,
    tier: UUID,
    clock_at: Callable[[str], Awaitable[None]],
    had: str,
    then: str,
    interval: str,
    period: str,
) -> None:
    """A month of the dearest tier does not turn a year of the cheapest into one of the dearest, nor the other way."""
    await owner.execute(
        "insert into subscription_tiers (slug, name, price_monthly, price_yearly)"
        " values ('gold', 'Gold', 125, 1400), ('mini', 'Mini', 5, null)"
    )
    wanted = await owner.fetchval("select id from subscription_tiers where slug = $1", then)
    await clock_at("2026-06-12T12:00")
    await pay(owner, user_id, tier, "2026-06-12T12:00", had)
    bought = await pay(owner, user_id, wanted, "2026-06-12T12:00", interval)
    assert bought["period"] == period
    await reverse(owner, user_id, bought)
    row = await owner.fetchrow("select status, current_period_end, tier_id from subscriptions")
    assert row is not None
    assert (row["status"], row["current_period_end"].date().isoformat()) == ("active", period[:10])
    assert row["tier_id"] == wanted


async def test_a_renewal_and_a_payment_wait_for_each_other_in_one_order(
    owner: Owner, database: str, user_id: UUID, tier: UUID, clock_at: Callable[[str], Awaitable[None]]
) -> None:
    """Who finds a payment holds its request and wants the subscription; a renewal ends old requests."""
    await clock_at("2026-06-10T12:00")
    await sell_for_coins(owner)
    bought = await pay(owner, user_id, tier, "2026-06-10T12:00", method="crypto")
    paid = UUID(await owner.fetchval(ASK, user_id, tier))
    await owner.execute(
        "update crypto_payments set status = 'confirmed', confirmed_at = clock_now(), subscription_id = $2"
        " where id = $1",
        paid,
        UUID(bought["subscription_id"]),
    )
    request = UUID(await owner.fetchval(ASK, user_id, tier))
    await clock_at("2026-07-09T13:00")
    other = await asyncpg.connect(database)
    try:
        async with asyncio.TaskGroup() as group, owner.transaction():
            await owner.fetchval("select id from crypto_payments where id = $1 for update", request)
            renewal = group.create_task(look(other, user_id))
            await until("the renewal waits", lambda: blocked(owner, other))
            await pay(owner, user_id, tier, "2026-07-09T13:00", method="crypto")
        assert renewal.result() == "unchanged"
    finally:
        await other.close()


async def test_a_reversal_takes_as_much_of_the_new_tier_as_the_old_time_was_worth(
    owner: Owner, user_id: UUID, tier: UUID, clock_at: Callable[[str], Awaitable[None]]
) -> None:
    await clock_at("2026-06-10T12:00")
    await sell_for_coins(owner)
    request = await owner.fetchval(ASK, user_id, tier)
    assert (await look_at_chain(owner, request, **CONFIRMED))["status"] == "confirmed"
    gold = await owner.fetchval(
        "insert into subscription_tiers (slug, name, price_monthly) values ('gold', 'Gold', 125) returning id"
    )
    assert (await pay(owner, user_id, gold, "2026-06-10T12:00"))["period"] == "2026-06-12 2026-07-12"
    await look_at_chain(owner, request)
    await clock_at("2026-06-10T12:11")
    assert (await look_at_chain(owner, request))["status"] == "reversed"
    ends = await owner.fetchval("select current_period_end from subscriptions")
    assert ends.date().isoformat() == "2026-07-10"
    assert await state(owner, user_id) == "active"


async def test_a_node_that_has_forgotten_an_old_transaction_takes_nothing_back(
    owner: Owner, user_id: UUID, tier: UUID, clock_at: Callable[[str], Awaitable[None]]
) -> None:
    """Many keep the last year alone; and a user may name an old hash again."""
    await clock_at("2026-06-10T12:00")
    await sell_for_coins(owner)
    request = await owner.fetchval(ASK, user_id, tier)
    await look_at_chain(owner, request, **CONFIRMED, mined_at="2026-06-10T12:00Z")
    for moment in ("2027-07-10T12:00", "2027-07-10T12:11"):
        await clock_at(moment)
        ended = await look_at_chain(owner, request)
        assert (ended["status"], ended["again"]) == ("confirmed", False)
    assert await owner.fetchval("select status from payments") == "succeeded"


async def test_another_signature_for_what_counts_already_changes_nothing(
    owner: Owner, user_id: UUID, tier: UUID, clock_at: Callable[[str], Awaitable[None]]
) -> None:
    """Else a payer who signs again with another wallet would lose what was paid."""
    await clock_at("2026-06-10T12:00")
    await sell_for_coins(owner)
    request = await owner.fetchval(ASK, user_id, tier)
    assert (await look_at_chain(owner, request, signature="0x01", verdict="rejected"))["status"] == "awaiting"
    seen = await look_at_chain(owner, request, signature="0x02", **CONFIRMED)
    assert (seen["payer_signature"], seen["status"]) == ("0x02", "confirmed")
    assert (await look_at_chain(owner, request, signature="0x03", **CONFIRMED))["payer_signature"] == "0x02"


async def test_of_two_subscriptions_that_are_both_paid_the_dearer_one_counts(
    owner: Owner, user_id: UUID, tier: UUID, clock_at: Callable[[str], Awaitable[None]]
) -> None:
    """A user who pays for gold by hand and then for a smaller tier at Stripe keeps what gold gives."""
    gold = await owner.fetchval(
        "insert into subscription_tiers (slug, name, price_monthly) values ('gold', 'Gold', 125) returning id"
    )
    await clock_at("2026-06-10T12:00")
    await pay(owner, user_id, gold, "2026-06-10T12:00")
    await owner.execute(
        "insert into subscriptions"
        " (user_id, tier_id, status, payment_method, stripe_subscription_id, started_at, ticket)"
        " values ($1, $2, 'active', 'stripe', 'sub_1', clock_now() + '1 day', 1)",
        user_id,
        tier,
    )
    counts = "select tier_id from user_subscriptions where user_id = $1"
    assert await owner.fetchval(counts, user_id) == gold
    await owner.execute("update subscriptions set status = 'canceled'")
    assert await owner.fetchval(counts, user_id) == tier  # none is paid: the one that began last


async def test_a_request_that_nobody_opened_has_no_state(owner: Owner) -> None:
    ended = json.loads(await owner.fetchval("select expire_crypto_request($1)", UUID(int=1)))
    assert ended == {"status": None}


async def test_a_request_that_is_handed_out_again_gives_time_to_pay(
    owner: Owner, user_id: UUID, tier: UUID, clock_at: Callable[[str], Awaitable[None]]
) -> None:
    """The notice of the last day and that of the end are a day apart, as long as a request lives."""
    await clock_at("2026-06-10T12:00")
    await sell_for_coins(owner)
    request = await owner.fetchval(ASK, user_id, tier)
    ends = "select to_char(expires_at at time zone 'UTC', 'DD HH24') from crypto_payments where id = $1"
    for moment, expires in [("10T13:00", "11 12"), ("11T11:59", "12 11"), ("12T11:30", "13 11")]:
        await clock_at(f"2026-06-{moment}")
        assert await owner.fetchval(ASK, user_id, tier) == request
        assert await owner.fetchval(ends, UUID(request)) == expires
    await owner.execute("update crypto_assets set unit_price = 2")  # at another price it ends as it was told
    await clock_at("2026-06-13T11:00")
    assert await owner.fetchval(ASK, user_id, tier) == request
    assert await owner.fetchval(ends, UUID(request)) == "13 11"
    assert await owner.fetchval("select count(*) from jobs where type = 'crypto_verification'") == 3
    await clock_at("2026-06-13T11:31")
    assert await owner.fetchval(ASK, user_id, tier) != request
