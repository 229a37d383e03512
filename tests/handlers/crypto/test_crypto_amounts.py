"""Too little, too much, too late, too early: what becomes of money that is not just as it was asked for."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from decimal import Decimal
from uuid import UUID, uuid4

import pytest

from devstack.chain.anvil import Anvil, Token, new_address
from handlers.clients.database import CallFailed, call
from tests.handlers.conftest import Json, Owner
from tests.handlers.crypto.conftest import LATER, Shop, Verify

MoveClock = Callable[[timedelta], Awaitable[None]]


@pytest.fixture
async def asset(shop: Shop, chain: Anvil, usdt: Token) -> str:
    return await shop.asset(chain.name, usdt, required_confirmations=1)


@pytest.fixture
async def request_(shop: Shop, asset: str, user_id: UUID) -> Json:
    return await shop.request(asset, user_id)


async def told(owner: Owner, kind: str) -> Json:
    """The context of the one notice of this kind."""
    context = await owner.fetchval("select data -> 'context' from jobs where data ->> 'type' = $1", kind)
    return dict(json.loads(context))


async def test_a_millionth_too_little_is_too_little(
    verify: Verify, request_: Json, chain: Anvil, usdt: Token, shop: Shop, user_id: UUID, owner: Owner
) -> None:
    paid = await usdt.pay(chain.accounts[1], request_["pay_to_address"], 28.999999)
    ended = await verify(request_, paid)
    assert (ended["status"], ended["transaction"]) == ("underpaid", "confirmed")
    assert await shop.status(user_id) is None
    words = await told(owner, "payment_underpaid")
    assert (words["amount"], words["missing"], words["currency"]) == ("28.999999", "0.000001", "USDT")


async def test_what_the_owner_tolerates_may_be_missing(
    verify: Verify, chain: Anvil, usdt: Token, shop: Shop, user_id: UUID
) -> None:
    asset = await shop.asset(chain.name, usdt, required_confirmations=1, amount_tolerated=10_000)
    request = await shop.request(asset, user_id)
    paid = await usdt.pay(chain.accounts[1], request["pay_to_address"], 28.99)
    assert (await verify(request, paid))["status"] == "confirmed"


async def test_the_rest_may_follow_and_then_it_is_one_payment(
    verify: Verify,
    request_: Json,
    chain: Anvil,
    usdt: Token,
    shop: Shop,
    user_id: UUID,
    owner: Owner,
    move_clock: MoveClock,
    asset: str,
) -> None:
    first = await usdt.pay(chain.accounts[1], request_["pay_to_address"], 20)
    assert (await verify(request_, first))["status"] == "underpaid"
    again = await shop.request(asset, user_id)
    assert (again["id"], again["amount"], again["status"]) == (request_["id"], "9", "underpaid")
    assert await verify(request_) == {
        "status": "underpaid"
    }  # its job for the end came early: nothing is over

    rest = await usdt.pay(chain.accounts[2], request_["pay_to_address"], 9)
    assert (await verify(request_, rest))["status"] == "confirmed"
    assert await owner.fetchval("select array_agg(amount) from payments") == [Decimal(29)]
    assert await shop.notices() == ["payment_underpaid", "subscription_activated", "payment_received"]


async def test_too_little_starts_the_time_anew_and_then_a_person_hears_of_it(
    verify: Verify,
    request_: Json,
    chain: Anvil,
    usdt: Token,
    shop: Shop,
    owner: Owner,
    move_clock: MoveClock,
) -> None:
    await move_clock(timedelta(hours=20))
    paid = await usdt.pay(chain.accounts[1], request_["pay_to_address"], 20)
    assert (await verify(request_, paid))["status"] == "underpaid"
    await move_clock(timedelta(hours=30))
    assert await verify(request_) == {"status": "underpaid"}
    await move_clock(timedelta(hours=45))
    assert await verify(request_) == {"status": "expired"}
    assert await shop.alerts() == ["crypto_needs_a_person"]
    ends = await owner.fetch(
        "select run_at from jobs where idempotency_key like '%:expiry:%' order by run_at"
    )
    assert ends[1]["run_at"] - ends[0]["run_at"] >= timedelta(hours=19)


async def test_a_transaction_that_runs_otherwise_in_another_block_is_counted_anew_and_not_on_top(
    shop: Shop, request_: Json, usdt: Token
) -> None:
    """A contract may write other logs in another block, so that the same transfer stands at another place."""
    tx_hash, named = "0x" + "ab" * 32, {"crypto_payment_id": request_["id"]}
    for place, block in ((1, "0xaa"), (1, "0xaa"), (2, "0xbb"), (3, "0xcc")):
        begun = await call(shop.db, "submit_crypto_hash", named=named, tx_hash=tx_hash)
        seen = {
            "verdict": "confirmed",
            "transfers": [{"place": place, "sender": None, "amount": str(usdt.units(15))}],
            "block_hash": block,
        }
        words = {"crypto_payment_id": request_["id"], "tx_hash": tx_hash, "look": begun["look"], "seen": seen}
        assert (await call(shop.db, "record_crypto_look", **words))["status"] == "underpaid"
        assert (await shop.row(request_))["amount_received"] == usdt.units(15)


async def test_a_look_that_another_one_has_overtaken_writes_nothing(
    shop: Shop, request_: Json, usdt: Token
) -> None:
    tx_hash, named = "0x" + "ab" * 32, {"crypto_payment_id": request_["id"]}
    first, second = [
        await call(shop.db, "submit_crypto_hash", named=named, tx_hash=tx_hash) for _ in range(2)
    ]
    transfers = [{"place": 1, "sender": None, "amount": str(usdt.units(29))}]
    words = {"crypto_payment_id": request_["id"], "tx_hash": tx_hash}
    stale = {"verdict": "confirmed", "transfers": transfers, "block_hash": "0xaa"}
    ended = await call(shop.db, "record_crypto_look", **words, look=first["look"], seen=stale)
    assert (ended["status"], ended["transaction"], ended["again"]) == ("pending", "submitted", True)
    assert (await shop.row(request_))["amount_received"] == 0
    ended = await call(
        shop.db,
        "record_crypto_look",
        **words,
        look=second["look"],
        seen={"verdict": "pending", "transfers": []},
    )
    assert ended["transaction"] == "pending"


async def test_too_much_is_accepted_and_the_surplus_noted(
    verify: Verify, request_: Json, chain: Anvil, usdt: Token, shop: Shop, owner: Owner
) -> None:
    paid = await usdt.pay(chain.accounts[1], request_["pay_to_address"], 30.5)
    assert (await verify(request_, paid))["status"] == "confirmed"
    assert (await shop.row(request_))["amount_surplus"] == usdt.units(1.5)
    assert (await told(owner, "payment_received"))["surplus"] == "1.5"
    assert await owner.fetchval("select amount from payments") == Decimal(29)
    assert await shop.alerts() == []


async def test_a_second_payment_of_the_same_buys_nothing_more_and_a_person_hears_of_it(
    verify: Verify, request_: Json, chain: Anvil, usdt: Token, shop: Shop, owner: Owner
) -> None:
    for expected in (0, 29):
        paid = await usdt.pay(chain.accounts[1], request_["pay_to_address"], 29)
        assert (await verify(request_, paid))["status"] == "confirmed"
        assert (await shop.row(request_))["amount_surplus"] == usdt.units(expected)
    assert await owner.fetchval("select count(*) from payments") == 1
    assert await shop.alerts() == ["crypto_needs_a_person"]


async def test_paid_in_time_and_told_late_is_paid(
    verify: Verify,
    request_: Json,
    chain: Anvil,
    usdt: Token,
    shop: Shop,
    user_id: UUID,
    move_clock: MoveClock,
) -> None:
    paid = await usdt.pay(chain.accounts[1], request_["pay_to_address"], 29)
    await move_clock(LATER)
    assert await verify(request_) == {"status": "expired"}
    assert (await verify(request_, paid))["status"] == "confirmed"
    assert await shop.status(user_id) == "active"


async def test_told_late_while_the_next_request_is_open_is_paid_too(
    verify: Verify,
    request_: Json,
    chain: Anvil,
    usdt: Token,
    shop: Shop,
    user_id: UUID,
    move_clock: MoveClock,
    asset: str,
) -> None:
    paid = await usdt.pay(chain.accounts[1], request_["pay_to_address"], 29)
    await move_clock(LATER)
    later = await shop.request(asset, user_id)
    assert later["id"] != request_["id"]
    assert (await verify(request_, paid))["status"] == "confirmed"
    assert (await shop.row(later))["status"] == "awaiting"


async def test_paid_after_the_requests_time_is_for_a_person(
    verify: Verify, request_: Json, chain: Anvil, usdt: Token, shop: Shop, owner: Owner
) -> None:
    await owner.execute("update crypto_payments set expires_at = now() - interval '1 hour'")
    paid = await usdt.pay(chain.accounts[1], request_["pay_to_address"], 29)
    ended = await verify(request_, paid)
    assert (ended["status"], ended["reason"]) == ("expired", "too_late")
    assert await shop.alerts() == ["crypto_needs_a_person"]


async def test_a_request_ends_by_the_job_that_was_inserted_with_it(
    verify: Verify, request_: Json, owner: Owner, move_clock: MoveClock
) -> None:
    job = await owner.fetchrow(
        "select type, data, run_at from payment_jobs where type = 'crypto_verification'"
    )
    assert job is not None
    assert json.loads(job["data"]) == {"crypto_payment_id": request_["id"]}
    assert job["run_at"] == await owner.fetchval("select expires_at from crypto_payments")
    assert await verify(request_) == {"status": "awaiting"}
    await move_clock(LATER)
    assert await verify(request_) == {"status": "expired"}


async def test_a_request_is_opened_once_whoever_asks_at_once(
    shop: Shop, asset: str, user_id: UUID, owner: Owner
) -> None:
    await shop.addresses(*(new_address() for _ in range(5)))
    opened = await asyncio.gather(*(shop.open(asset, user_id) for _ in range(5)))
    assert len({str(one["id"]) for one in opened}) == 1
    taken = "select count(*) from crypto_addresses where crypto_payment_id is not null"
    assert await owner.fetchval(taken) == 1


async def test_two_requests_never_share_a_deposit_address(shop: Shop, asset: str, owner: Owner) -> None:
    await shop.addresses(*(new_address() for _ in range(6)))
    opened = await asyncio.gather(*(shop.open(asset, uuid4()) for _ in range(6)))
    assert len({one["pay_to_address"] for one in opened}) == 6


async def test_a_request_that_cannot_be_opened_says_why(
    shop: Shop, asset: str, user_id: UUID, owner: Owner
) -> None:
    await shop.addresses(new_address())
    reasons = [
        ("delete from crypto_addresses", "no deposit address is free"),
        ("update crypto_assets set unit_price_good_for = '0'", "the price of this asset is too old"),
        ("update subscription_tiers set currency = 'eur'", "priced in two currencies"),
        ("update subscription_tiers set price_monthly = 0", 'this tier has no price for "month"'),
        ("update subscription_tiers set active = false", "this tier is not on sale"),
        ("update crypto_assets set active = false", "this asset is not on sale"),
    ]
    for statement, said in reasons:  # each is told before those that came earlier
        await owner.execute(statement)
        with pytest.raises(CallFailed, match=said):
            await shop.open(asset, user_id)
    assert await owner.fetchval("select count(*) from crypto_payments") == 0


async def test_the_next_period_has_one_request_like_the_last_at_todays_price(
    verify: Verify, request_: Json, chain: Anvil, usdt: Token, shop: Shop, owner: Owner
) -> None:
    paid = await usdt.pay(chain.accounts[1], request_["pay_to_address"], 29)
    await verify(request_, paid)
    await owner.execute("update subscription_tiers set price_monthly = 31")
    await shop.addresses(new_address(), new_address())
    renew = "select renew_crypto_request(id) from subscriptions"
    first, again = [await owner.fetchval(renew) for _ in range(2)]
    assert first == again
    assert str(first) != request_["id"]
    row = await shop.row({"id": str(first)})
    assert (row["amount_expected"], row["status"]) == (usdt.units(31), "awaiting")
    before = await owner.fetchval("select current_period_end from subscriptions")
    paid = await usdt.pay(chain.accounts[1], row["pay_to_address"], 31)
    assert (await verify({"id": str(first)}, paid))["status"] == "confirmed"
    period = await owner.fetchrow("select current_period_end, id from subscriptions")
    assert period is not None
    assert period["current_period_end"] > before + timedelta(days=27)
    assert await owner.fetchval("select count(distinct subscription_id) from crypto_payments") == 1


async def test_no_request_is_renewed_where_none_was_or_none_can_be(
    verify: Verify, request_: Json, chain: Anvil, usdt: Token, shop: Shop, owner: Owner
) -> None:
    assert await owner.fetchval("select renew_crypto_request(gen_random_uuid())") is None
    paid = await usdt.pay(chain.accounts[1], request_["pay_to_address"], 29)
    await verify(request_, paid)
    await owner.execute("update crypto_assets set active = false")
    for _ in range(2):
        assert await owner.fetchval("select renew_crypto_request(id) from subscriptions") is None
    assert await shop.alerts() == ["crypto_request_refused"]


async def test_operators_hear_once_a_day_that_deposit_addresses_run_out(
    shop: Shop, asset: str, owner: Owner, move_clock: MoveClock
) -> None:
    await shop.addresses(*(new_address() for _ in range(12)))
    told = "select count(*) from jobs where data ->> 'alert_type' = 'crypto_addresses_low'"
    counts: list[int] = []
    for _ in range(4):
        await shop.open(asset, uuid4())
        counts.append(await owner.fetchval(told))
    assert counts == [0, 0, 1, 1]
    await move_clock(timedelta(days=1))
    await shop.open(asset, uuid4())
    assert await owner.fetchval(told) == 2


async def test_a_payment_whose_job_was_given_up_is_looked_for_again_when_its_request_ends(
    verify: Verify, request_: Json, chain: Anvil, usdt: Token, owner: Owner, move_clock: MoveClock
) -> None:
    """Its provider was away for longer than a job is tried."""
    paid = await usdt.pay(chain.accounts[1], request_["pay_to_address"], 29, mined=False)
    assert (await verify(request_, paid))["again"]
    again = "select data from jobs where idempotency_key like 'crypto:%:again:%'"
    assert await verify(request_) == {"status": "pending"}
    assert await owner.fetch(again) == []
    await move_clock(LATER)
    for _ in range(2):
        assert await verify(request_) == {"status": "expired"}
    [job] = await owner.fetch(again)
    assert json.loads(job["data"]) == {"crypto_payment_id": request_["id"], "tx_hash": paid}
    await chain.mine()
    assert (await verify(request_, paid))["status"] == "confirmed"
