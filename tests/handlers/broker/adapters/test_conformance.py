"""What every adapter must do, tried on each of ours and on one that was written from the interface alone."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest

from handlers.clients.broker import guard
from handlers.clients.broker.broker import (
    BadCredentials,
    BrokerAdapter,
    BrokerError,
    BrokerStatus,
    Dedupe,
    DuplicateClientId,
    OutcomeUnknown,
    Refused,
    TooFast,
)
from tests.handlers.broker.adapters.house import SYMBOL, Client, an_order, at_market
from tests.handlers.conftest import Owner

READS: dict[str, Callable[[BrokerAdapter], Any]] = {
    "find": lambda adapter: adapter.find("pe" + "0" * 32, SYMBOL),
    "get": lambda adapter: adapter.get(str(uuid4()), SYMBOL),
    "open_orders": lambda adapter: adapter.open_orders(),
    "fills": lambda adapter: adapter.fills(datetime.now(UTC) - timedelta(days=1)),
    "positions": lambda adapter: adapter.positions(),
}
BEFALLEN: dict[str, tuple[type[BrokerError], int]] = {
    "lost_before": (OutcomeUnknown, 0),
    "lost_answer": (OutcomeUnknown, 1),
    "unavailable": (OutcomeUnknown, 0),
    "gateway_timeout": (OutcomeUnknown, 1),
    "too_fast": (TooFast, 0),
    "unauthorized": (BadCredentials, 0),
}
"""What becomes of a submission: how it is told, and how many orders there are of it."""


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time-outs that no test has to wait for."""
    monkeypatch.setattr(guard, "CALL", timedelta(seconds=0.3))
    monkeypatch.setattr(guard, "LIST", timedelta(seconds=0.3))


async def found(client: Client, order_id: str) -> Any:
    return await client.ask(lambda adapter: adapter.find(order_id, SYMBOL))


async def test_an_order_is_at_the_broker_as_it_was_asked_for_to_the_last_digit(client: Client) -> None:
    order = an_order(quantity=Decimal("0.123456789"), limit_price=Decimal("15000.12345"))
    placed = await client.ask(lambda adapter: adapter.submit(order))
    again = await found(client, order.client_order_id)
    by_id = await client.ask(lambda adapter: adapter.get(placed.broker_order_id, SYMBOL))
    assert await client.house.orders(order.client_order_id) == 1
    for seen in (placed, again, by_id):
        assert seen.broker_order_id == placed.broker_order_id
        assert (seen.client_order_id, seen.symbol, seen.side) == (order.client_order_id, SYMBOL, "buy")
        assert (seen.order_type, seen.time_in_force) == ("limit", "gtc")
        assert (seen.quantity, seen.limit_price) == (order.quantity, order.limit_price)
        assert (seen.status, seen.filled_quantity) == (BrokerStatus.ACCEPTED, 0)
        assert seen.filled_avg_price is None
        assert seen.updated_at.tzinfo == UTC


async def test_an_order_that_is_filled_says_at_what_price_and_its_fill_is_listed(client: Client) -> None:
    before = datetime.now(UTC) - timedelta(minutes=1)
    order = at_market(quantity=Decimal("0.25"))
    await client.ask(lambda adapter: adapter.submit(order))
    seen = await found(client, order.client_order_id)
    assert seen is not None
    assert (seen.status, seen.filled_quantity) == (BrokerStatus.FILLED, Decimal("0.25"))
    assert seen.filled_avg_price == Decimal("20000.5")
    (fill,) = await client.ask(lambda adapter: adapter.fills(before))
    assert (fill.broker_order_id, fill.quantity, fill.price) == (
        seen.broker_order_id,
        Decimal("0.25"),
        Decimal("20000.5"),
    )
    assert fill.symbol in {None, SYMBOL}
    (position,) = await client.ask(lambda adapter: adapter.positions())
    assert (position.symbol, position.quantity) == (SYMBOL, Decimal("0.25"))


async def test_a_part_that_was_filled_is_told_as_a_part(client: Client) -> None:
    await client.house.quote(ask_size="0.1")
    order = an_order(limit_price=Decimal("20000.5"))
    placed = await client.ask(lambda adapter: adapter.submit(order))
    seen = await client.ask(lambda adapter: adapter.get(placed.broker_order_id, SYMBOL))
    assert (seen.status, seen.filled_quantity) == (BrokerStatus.PARTIALLY_FILLED, Decimal("0.1"))
    assert seen.quantity == Decimal("0.5")


async def test_a_client_order_id_that_is_taken_is_told_as_that_and_nothing_else_happens(
    client: Client,
) -> None:
    order = an_order()
    await client.ask(lambda adapter: adapter.submit(order))
    with pytest.raises(DuplicateClientId):
        await client.ask(lambda adapter: adapter.submit(order))
    assert await client.house.orders(order.client_order_id) == 1


async def test_an_id_stays_taken_after_its_order_has_ended_and_is_still_found(client: Client) -> None:
    async with client.at() as adapter:
        assert adapter.traits.dedupe is Dedupe.ACCOUNT
        assert adapter.traits.shows_closed
        order = at_market(quantity=Decimal("0.1"))
        await adapter.submit(order)
        with pytest.raises(DuplicateClientId):
            await adapter.submit(order)
        ended = await adapter.find(order.client_order_id, SYMBOL)
    assert ended is not None
    assert ended.status is BrokerStatus.FILLED


async def test_an_order_that_the_account_cannot_pay_is_refused_and_is_not_there(client: Client) -> None:
    order = an_order(quantity=Decimal(100_000))
    with pytest.raises(Refused) as refused:
        await client.ask(lambda adapter: adapter.submit(order))
    assert refused.value.code.replace("_", "").isalpha()
    assert await client.house.orders(order.client_order_id) == 0
    assert await found(client, order.client_order_id) is None


async def test_a_symbol_that_nobody_knows_is_refused(client: Client) -> None:
    order = an_order(symbol="NOBODY/USD")
    with pytest.raises(Refused):
        await client.ask(lambda adapter: adapter.submit(order))
    assert await client.house.orders(order.client_order_id) == 0


async def test_whatever_befalls_a_submission_is_told_as_what_it_is(client: Client) -> None:
    for fault, (error, orders) in BEFALLEN.items():
        await befallen(client, fault, error, orders)


async def befallen(client: Client, fault: str, error: type[BrokerError], orders: int) -> None:
    order = an_order()
    await client.house.befalls(fault, seconds=7)
    with pytest.raises(error) as told:
        await client.ask(lambda adapter: adapter.submit(order))
    if isinstance(told.value, TooFast):
        assert told.value.after == timedelta(seconds=7)
    assert await client.house.orders(order.client_order_id) == orders
    seen = await found(client, order.client_order_id)
    assert (seen is not None) == bool(orders)
    if seen is None:  # sent again under the same id: one order
        await client.ask(lambda adapter: adapter.submit(order))
    else:
        with pytest.raises(DuplicateClientId):
            await client.ask(lambda adapter: adapter.submit(order))
    assert await client.house.orders(order.client_order_id) == 1


@pytest.mark.usefixtures("impatient")
async def test_a_broker_that_hangs_is_left_after_a_while_and_nobody_knows(client: Client) -> None:
    order = an_order()
    await client.ask(lambda adapter: adapter.find(order.client_order_id, SYMBOL))
    await client.house.befalls("hang", seconds=20)
    with pytest.raises(OutcomeUnknown):
        await client.ask(lambda adapter: adapter.submit(order))


async def test_no_answer_is_never_an_empty_answer(client: Client) -> None:
    for question in READS.values():
        await client.ask(question)  # opened, and its answer is known to be good
        for fault, (error, _) in BEFALLEN.items():
            await client.house.befalls(fault, "any", times=2)  # an HTTP library may ask a question again
            with pytest.raises(error):
                await client.ask(question)
            await client.house.is_well()
        assert await client.ask(question) in (None, [])


async def test_what_is_canceled_is_seen_canceled_and_again_is_no_mistake(client: Client) -> None:
    order = an_order()
    placed = await client.ask(lambda adapter: adapter.submit(order))
    for _ in range(2):
        await client.ask(lambda adapter: adapter.cancel(placed.broker_order_id, SYMBOL))
        seen = await client.ask(lambda adapter: adapter.get(placed.broker_order_id, SYMBOL))
        assert (seen.status, seen.filled_quantity) == (BrokerStatus.CANCELED, 0)
    assert await client.ask(lambda adapter: adapter.open_orders()) == []


async def test_to_cancel_what_has_ended_or_was_never_there_is_no_mistake(client: Client) -> None:
    placed = await client.ask(lambda adapter: adapter.submit(at_market(quantity=Decimal("0.1"))))
    async with client.at() as adapter:
        for order_id in (placed.broker_order_id, str(uuid4())):
            await adapter.cancel(order_id, SYMBOL)
    seen = await client.ask(lambda adapter: adapter.get(placed.broker_order_id, SYMBOL))
    assert seen.status is BrokerStatus.FILLED


async def test_a_cancellation_that_brings_no_answer_is_told_as_that(client: Client) -> None:
    placed = await client.ask(lambda adapter: adapter.submit(an_order()))
    for fault, (error, _) in BEFALLEN.items():
        await client.house.befalls(fault, "cancel", times=2)
        with pytest.raises(error):
            await client.ask(lambda adapter: adapter.cancel(placed.broker_order_id, SYMBOL))
        await client.house.is_well()


async def test_all_open_orders_are_listed_however_many_pages_that_takes(client: Client, owner: Owner) -> None:
    placed = await client.ask(lambda adapter: adapter.submit(an_order()))
    await owner.execute(
        "insert into paper_orders (id, account_id, number, client_order_id, dedupe, symbol, side, order_type,"
        " time_in_force, quantity, limit_price, reserve_price, triggered, status, filled_quantity, filled_value,"
        " fees, fills, submitted_at, updated_at) select gen_random_uuid(), account_id, number + n, 'by hand ' || n,"
        " dedupe, symbol, side, order_type, time_in_force, quantity, limit_price, reserve_price, triggered, status,"
        " 0, 0, 0, 0, submitted_at + n * interval '1 ms', updated_at from paper_orders, generate_series(1, 1199) as n"
        " where id = $1::uuid",
        placed.broker_order_id,
    )
    seen = await client.ask(lambda adapter: adapter.open_orders())
    assert len({one.broker_order_id for one in seen}) == len(seen) == 1200
    assert placed.broker_order_id in {one.broker_order_id for one in seen}


async def test_all_fills_are_listed_once_oldest_first_however_many_pages_that_takes(
    client: Client, owner: Owner
) -> None:
    placed = await client.ask(lambda adapter: adapter.submit(at_market(quantity=Decimal("0.1"))))
    await owner.execute(
        "insert into paper_fills (order_id, number, account_id, symbol, side, quantity, price, fee, filled_quantity,"
        " left_quantity, filled_at) select order_id, n, account_id, symbol, side, n, price, fee, n, 0,"
        " filled_at + n * interval '1 ms' from paper_fills, generate_series(2, 300) as n where order_id = $1::uuid",
        placed.broker_order_id,
    )
    seen = await client.ask(lambda adapter: adapter.fills(placed.updated_at - timedelta(minutes=1)))
    assert [fill.quantity for fill in seen] == [Decimal("0.1"), *range(2, 301)]
    assert len({fill.broker_fill_id for fill in seen}) == 300
    assert {fill.broker_order_id for fill in seen} == {placed.broker_order_id}


async def test_after_rejected_credentials_the_account_is_opened_anew(client: Client) -> None:
    async with client.at() as first:
        pass
    await client.house.befalls("unauthorized", "any")
    with pytest.raises(BadCredentials):
        await client.ask(READS["find"])
    async with client.at() as second:
        assert second is not first
