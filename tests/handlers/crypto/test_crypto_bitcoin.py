"""Payments in Bitcoin, by an Esplora API: never before a block, by output, and not when the branch has lost."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from handlers.clients.chains.chain import Misconfigured, Unavailable
from tests.doubles.esplora import GENESIS, REPLACEABLE, Esplora, an_address
from tests.handlers.conftest import Json
from tests.handlers.crypto.conftest import LATER, Shop, Verify

MoveClock = Callable[[timedelta], Awaitable[None]]
PRICE = 50_000
"""29 dollars in satoshi, at 58 000 dollars."""


@pytest.fixture
async def esplora() -> AsyncIterator[Esplora]:
    async with Esplora() as running:
        yield running
        assert running.strange == []


@pytest.fixture
def endpoints(esplora: Esplora) -> dict[str, list[str]]:
    return {"bitcoin:main": [esplora.url]}


@pytest.fixture
async def asset(shop: Shop) -> str:
    return await shop.asset(
        "bitcoin:main", symbol="BTC", decimals=8, unit_price=58_000, required_confirmations=2
    )


@pytest.fixture
async def request_(shop: Shop, asset: str, user_id: UUID) -> Json:
    await shop.addresses(an_address(), network="bitcoin")
    return await shop.request(asset, user_id)


async def test_a_payment_confirms_by_the_block_that_it_is_in(
    verify: Verify, request_: Json, esplora: Esplora, shop: Shop, user_id: UUID
) -> None:
    assert (request_["amount"], request_["amount_units"]) == ("0.0005", str(PRICE))
    paid = esplora.pay((request_["pay_to_address"], PRICE))
    assert (await verify(request_, paid))["reason"] == "The transaction is pending."
    esplora.mine(paid)
    assert (await verify(request_, paid))["reason"] == "The transaction is confirming."
    esplora.mine()
    assert (await verify(request_, paid))["status"] == "confirmed"
    assert await shop.status(user_id) == "active"


async def test_hashes_are_asked_for_as_bitcoin_spells_them(
    verify: Verify, request_: Json, esplora: Esplora
) -> None:
    paid = esplora.pay((request_["pay_to_address"], PRICE))
    esplora.mine(paid, blocks=2)
    for spelling in (paid.upper(), "0x" + paid, paid):
        assert (await verify(request_, spelling))["status"] == "confirmed"


async def test_a_payment_that_may_be_replaced_does_not_count_before_it_is_in_a_block(
    verify: Verify, request_: Json, esplora: Esplora, shop: Shop, move_clock: MoveClock
) -> None:
    paid = esplora.pay((request_["pay_to_address"], PRICE), sequence=REPLACEABLE)
    assert (await verify(request_, paid))["reason"] == "The transaction is pending."
    esplora.drop(paid)  # the same coins went back to the sender
    assert (await verify(request_, paid))["reason"] == "The transaction is not_found."
    await move_clock(LATER)
    ended = await verify(request_, paid)
    assert (ended["transaction"], ended["status"]) == ("dropped", "expired")


async def test_only_the_outputs_to_the_requests_address_count(
    verify: Verify, request_: Json, esplora: Esplora, shop: Shop
) -> None:
    """As an exchange pays many people at once; and the rest goes back to it."""
    ours = request_["pay_to_address"]
    paid = esplora.pay(
        (an_address(), 10 * PRICE),
        (ours, PRICE - 1),
        (None, 0),
        (ours, 1),
        (an_address(), PRICE),
        (ours.upper(), 7),
    )
    esplora.mine(paid, blocks=2)
    assert (await verify(request_, paid))["status"] == "confirmed"
    assert (await shop.row(request_))["amount_received"] == PRICE


async def test_one_transaction_may_pay_the_requests_of_two_users(
    verify: Verify, request_: Json, esplora: Esplora, shop: Shop, asset: str
) -> None:
    await shop.addresses(an_address(), network="bitcoin")
    other = await shop.request(asset, uuid4())
    paid = esplora.pay((request_["pay_to_address"], PRICE), (other["pay_to_address"], PRICE))
    esplora.mine(paid, blocks=2)
    for one in (request_, other):
        assert (await verify(one, paid))["status"] == "confirmed"
        assert (await shop.row(one))["amount_received"] == PRICE


async def test_too_little_is_kept_and_the_rest_may_follow_and_too_much_is_noted(
    verify: Verify, request_: Json, esplora: Esplora, shop: Shop
) -> None:
    first = esplora.pay((request_["pay_to_address"], PRICE - 1))
    esplora.mine(first, blocks=2)
    assert (await verify(request_, first))["status"] == "underpaid"
    rest = esplora.pay((request_["pay_to_address"], 11))
    esplora.mine(rest, blocks=2)
    assert (await verify(request_, rest))["status"] == "confirmed"
    assert (await shop.row(request_))["amount_surplus"] == 10


async def test_a_block_beside_the_best_branch_does_not_count(
    verify: Verify, request_: Json, esplora: Esplora, shop: Shop, user_id: UUID
) -> None:
    paid = esplora.pay((request_["pay_to_address"], PRICE))
    lost = esplora.mine(paid, blocks=2)
    esplora.give_up(lost)
    esplora.mine(blocks=3)
    assert (await verify(request_, paid))["reason"] == "The transaction is pending."
    esplora.mine(paid, blocks=2)
    assert (await verify(request_, paid))["status"] == "confirmed"


async def test_a_branch_that_loses_after_the_payment_confirmed_reverses_it(
    verify: Verify, request_: Json, esplora: Esplora, shop: Shop, user_id: UUID, move_clock: MoveClock
) -> None:
    paid = esplora.pay((request_["pay_to_address"], PRICE))
    lost = esplora.mine(paid, blocks=2)
    assert (await verify(request_, paid))["status"] == "confirmed"
    esplora.give_up(lost)
    esplora.mine(blocks=3)
    assert (await verify(request_, paid))["again"]
    await move_clock(timedelta(minutes=11))
    assert (await verify(request_, paid))["status"] == "reversed"
    assert await shop.status(user_id) == "expired"
    assert "payment_reversed" in await shop.notices()


async def test_the_times_of_blocks_may_be_two_hours_off_and_no_more(
    verify: Verify, request_: Json, esplora: Esplora, shop: Shop
) -> None:
    old = esplora.pay((request_["pay_to_address"], PRICE))
    esplora.mine(old, blocks=2, at=int(time.time()) - 3 * 3600)
    assert (await verify(request_, old))["reason"] == "older_than_request"
    early = esplora.pay((request_["pay_to_address"], PRICE))
    esplora.mine(early, blocks=2, at=int(time.time()) - 3600)
    assert (await verify(request_, early))["status"] == "confirmed"


async def test_another_network_is_our_mistake_and_a_server_that_is_down_is_asked_again(
    verify: Verify, request_: Json, esplora: Esplora
) -> None:
    paid = esplora.pay((request_["pay_to_address"], PRICE))
    esplora.mine(paid, blocks=2)
    esplora.blocks[0].hash = "000000000933ea01ad0ee984209779baaec3ced90fa3f408719526f8d77f4943"
    with pytest.raises(Misconfigured, match="Endpoint 1 of bitcoin:main does not answer for this network"):
        await verify(request_, paid)
    esplora.down = True
    with pytest.raises(Unavailable, match="Endpoint 1 of bitcoin:main did not answer"):
        await verify(request_, paid)
    esplora.down, esplora.blocks[0].hash = False, GENESIS
    assert (await verify(request_, paid))["status"] == "confirmed"
