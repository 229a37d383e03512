"""Every outcome that an EVM chain can show, on a real one: tokens, coins, contracts, failures, reorganisations."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from uuid import UUID

import pytest

from devstack.chain.anvil import COIN, Anvil, Token, new_address
from tests.handlers.conftest import Json, Owner
from tests.handlers.crypto.conftest import LATER, Shop, Verify

MoveClock = Callable[[timedelta], Awaitable[None]]
NOBODYS_HASH = "0x" + "ab" * 32


@pytest.fixture
async def request_(shop: Shop, chain: Anvil, usdt: Token, user_id: UUID) -> Json:
    """A request of 29 USDT, confirmed at one block."""
    return await shop.request(await shop.asset(chain.name, usdt, required_confirmations=1), user_id)


async def refused(verify: Verify, request: Json, paid: str, shop: Shop, reason: str) -> None:
    """The transaction buys nothing, and the request waits for a better one."""
    ended = await verify(request, paid)
    assert (ended["transaction"], ended["reason"], ended["status"]) == ("rejected", reason, "awaiting")
    assert (await shop.row(request))["amount_received"] == 0
    assert await shop.owner.fetchval("select count(*) from payments") == 0


async def test_a_token_that_only_bears_the_name_buys_nothing(
    verify: Verify, request_: Json, chain: Anvil, shop: Shop
) -> None:
    fake = await chain.token("USDT", 6)
    paid = await fake.pay(chain.accounts[1], request_["pay_to_address"], 29)
    await refused(verify, request_, paid, shop, "no_transfer_to_us")


async def test_a_payment_to_somebody_else_buys_nothing(
    verify: Verify, request_: Json, chain: Anvil, usdt: Token, shop: Shop
) -> None:
    paid = await usdt.pay(chain.accounts[1], new_address(), 29)
    await refused(verify, request_, paid, shop, "no_transfer_to_us")


async def test_coins_do_not_pay_a_request_of_tokens(
    verify: Verify, request_: Json, chain: Anvil, shop: Shop
) -> None:
    paid = await chain.pay(chain.accounts[1], request_["pay_to_address"], 29 * COIN)
    await refused(verify, request_, paid, shop, "no_transfer_to_us")


async def test_a_transaction_that_failed_buys_nothing(
    verify: Verify, request_: Json, chain: Anvil, usdt: Token, shop: Shop
) -> None:
    poor = chain.accounts[9]
    await usdt.pay(poor, new_address(), 1_000_000)
    paid = await usdt.pay(poor, request_["pay_to_address"], 29, gas=200_000)
    await refused(verify, request_, paid, shop, "failed_on_chain")


async def test_a_payment_through_a_contract_counts_by_its_log(
    verify: Verify, request_: Json, chain: Anvil, usdt: Token
) -> None:
    paid = await usdt.pay_by_router(await chain.router(), chain.accounts[1], request_["pay_to_address"], 29)
    assert (await verify(request_, paid))["status"] == "confirmed"


async def test_two_transfers_in_one_transaction_are_added(
    verify: Verify, request_: Json, chain: Anvil, usdt: Token, shop: Shop
) -> None:
    router = await chain.router()
    paid = await usdt.pay_by_router(router, chain.accounts[1], request_["pay_to_address"], 14.5, times=2)
    assert (await verify(request_, paid))["status"] == "confirmed"
    assert (await shop.row(request_))["amount_received"] == usdt.units(29)


async def test_coins_that_a_contract_passed_on_are_for_a_person(
    verify: Verify, chain: Anvil, shop: Shop, user_id: UUID
) -> None:
    asset = await shop.asset(chain.name, unit_price=2900, required_confirmations=1)
    request = await shop.request(asset, user_id)
    paid = await chain.forward(
        await chain.router(), chain.accounts[1], request["pay_to_address"], COIN // 100
    )
    await refused(verify, request, paid, shop, "paid_within_a_contract")
    assert await shop.alerts() == ["crypto_needs_a_person"]


async def test_a_transaction_older_than_the_request_buys_nothing(
    verify: Verify, chain: Anvil, usdt: Token, shop: Shop, user_id: UUID, move_clock: MoveClock
) -> None:
    """Somebody who knows which address comes next cannot use what was paid to it before."""
    address = new_address()
    paid = await usdt.pay(chain.accounts[1], address, 29)
    await move_clock(timedelta(hours=2))
    asset = await shop.asset(chain.name, usdt, required_confirmations=1)
    await shop.addresses(address)
    request = await shop.request(asset, user_id)
    assert request["pay_to_address"] == address
    await refused(verify, request, paid, shop, "older_than_request")


async def test_an_unknown_hash_is_looked_for_until_the_request_is_over_and_costs_no_attempt(
    verify: Verify, request_: Json, shop: Shop, move_clock: MoveClock
) -> None:
    delays = [(await verify(request_, NOBODYS_HASH))["delay"] for _ in range(8)]
    assert delays == [15, 30, 60, 120, 240, 480, 600, 600]
    assert (await shop.row(request_))["status"] == "pending"
    await move_clock(LATER)
    ended = await verify(request_, NOBODYS_HASH)
    assert (ended["transaction"], ended["status"]) == ("dropped", "expired")


async def test_a_transaction_in_no_block_yet_is_pending_and_then_confirms(
    verify: Verify, request_: Json, chain: Anvil, usdt: Token
) -> None:
    paid = await usdt.pay(chain.accounts[1], request_["pay_to_address"], 29, mined=False)
    assert (await verify(request_, paid))["reason"] == "The transaction is pending."
    await chain.mine()
    assert (await verify(request_, paid))["status"] == "confirmed"


async def test_a_chains_own_word_is_waited_for_where_it_is_asked_for(
    verify: Verify, chain: Anvil, usdt: Token, shop: Shop, user_id: UUID
) -> None:
    asset = await shop.asset(chain.name, usdt, required_confirmations=1, needs_finality=True)
    request = await shop.request(asset, user_id)
    paid = await usdt.pay(chain.accounts[1], request["pay_to_address"], 29)
    await chain.mine(3)
    assert (await verify(request, paid))["reason"] == "The transaction is confirming."
    await chain.mine(70)
    assert (await verify(request, paid))["status"] == "confirmed"


async def test_a_payment_whose_block_is_replaced_before_it_confirms_is_looked_for_again(
    verify: Verify, chain: Anvil, usdt: Token, shop: Shop, user_id: UUID
) -> None:
    request = await shop.request(await shop.asset(chain.name, usdt, required_confirmations=2), user_id)
    paid = await usdt.pay(chain.accounts[1], request["pay_to_address"], 29)
    assert (await verify(request, paid))["reason"] == "The transaction is confirming."
    await chain.rpc("anvil_reorg", 1, [])
    assert (await verify(request, paid))["reason"] == "The transaction is not_found."
    again = await usdt.pay(chain.accounts[1], request["pay_to_address"], 29)
    await chain.mine()
    assert (await verify(request, again))["status"] == "confirmed"


async def confirmed(verify: Verify, request: Json, chain: Anvil, usdt: Token, shop: Shop) -> str:
    """A payment that has confirmed, and could be taken out of the chain again."""
    paid = await usdt.pay(chain.accounts[1], request["pay_to_address"], 29)
    assert (await verify(request, paid))["status"] == "confirmed"
    return paid


async def test_a_payment_that_the_chain_gives_up_after_it_confirmed_is_reversed(
    verify: Verify,
    request_: Json,
    chain: Anvil,
    usdt: Token,
    shop: Shop,
    user_id: UUID,
    owner: Owner,
    move_clock: MoveClock,
) -> None:
    paid = await confirmed(verify, request_, chain, usdt, shop)
    check = await owner.fetchrow("select * from jobs where idempotency_key like 'crypto:%:recheck:%'")
    assert check is not None
    assert check["run_at"] > check["created_at"] + timedelta(minutes=59)
    await chain.rpc("anvil_reorg", 1, [])

    assert (await verify(request_, paid))["again"]
    assert await shop.status(user_id) == "active"  # one node that lags would look the same
    await move_clock(timedelta(minutes=11))
    ended = await verify(request_, paid)
    assert (ended["status"], ended["transaction"]) == ("reversed", "reversed")
    assert await owner.fetchval("select status from payments") == "reversed"
    assert await shop.status(user_id) == "expired"
    assert "payment_reversed" in await shop.notices()
    assert await shop.alerts() == ["payment_reversed"]

    assert (await verify(request_, paid)) == ended
    assert (await shop.notices()).count("payment_reversed") == 1


async def test_a_confirmed_payment_that_comes_back_in_another_block_stays(
    verify: Verify,
    request_: Json,
    chain: Anvil,
    usdt: Token,
    shop: Shop,
    owner: Owner,
    move_clock: MoveClock,
) -> None:
    paid = await confirmed(verify, request_, chain, usdt, shop)
    raw = await chain.rpc("eth_getRawTransactionByHash", paid)
    await chain.rpc("anvil_reorg", 1, [])
    assert (await verify(request_, paid))["again"]
    await chain.pay(chain.accounts[2], new_address(), 1)
    assert await chain.rpc("eth_sendRawTransaction", raw) == paid
    await chain.mine()
    await move_clock(timedelta(minutes=11))
    assert (await verify(request_, paid)) == {
        "status": "confirmed",
        "transaction": "confirmed",
        "reason": None,
        "again": False,
    }
    assert (await shop.row(request_))["amount_received"] == usdt.units(29)
    assert await owner.fetchval("select count(*) from payments where status = 'succeeded'") == 1


async def test_money_that_comes_back_after_it_was_reversed_is_for_a_person(
    verify: Verify, request_: Json, chain: Anvil, usdt: Token, shop: Shop, owner: Owner, move_clock: MoveClock
) -> None:
    paid = await confirmed(verify, request_, chain, usdt, shop)
    raw = await chain.rpc("eth_getRawTransactionByHash", paid)
    await chain.rpc("anvil_reorg", 1, [])
    assert (await verify(request_, paid))["again"]
    await move_clock(timedelta(minutes=11))
    assert (await verify(request_, paid))["status"] == "reversed"
    await chain.rpc("eth_sendRawTransaction", raw)
    await chain.mine()
    ended = await verify(request_, paid)
    assert (ended["status"], ended["transaction"]) == ("reversed", "confirmed")
    assert await shop.alerts() == ["payment_reversed", "crypto_needs_a_person"]
    assert await owner.fetchval("select array_agg(status) from payments") == ["reversed"]
