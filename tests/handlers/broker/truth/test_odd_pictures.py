"""Pictures of orders that are not as they should be: unreadable ones, and ones with a clock that goes back."""

from dataclasses import replace
from datetime import timedelta

import pytest

from handlers.clients.broker.broker import BrokerOrder, BrokerStatus, OutcomeUnknown
from handlers.clients.broker.order_words import seen
from tests.handlers.broker.truth.conftest import Desk
from tests.handlers.broker.truth.exchange import Exchange


async def test_an_order_that_cannot_be_read_keeps_no_other_from_being_followed_and_is_told(
    desk: Desk, exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd, good = await desk.order(), await desk.order()
    odd_id, good_id = await desk.broker_id(odd), await desk.broker_id(good)

    async def get(broker_order_id: str, symbol: str) -> BrokerOrder | None:
        if broker_order_id == odd_id:
            raise OutcomeUnknown("cannot be read")
        return exchange.orders[broker_order_id]

    monkeypatch.setattr(exchange, "get", get)
    exchange.fill(good_id, "10")
    exchange.end(odd_id)
    for _ in range(6):
        await desk.later(minutes=6)
        await desk.work()
    assert ((await desk.row(good))["status"], len(await desk.fills())) == ("filled", 1)
    assert (await desk.account())["failures"] == 0
    assert len(await desk.told("order_missing")) == 2  # its user, and the desk
    monkeypatch.undo()
    await desk.later(minutes=6)
    await desk.work()
    assert (await desk.row(odd))["status"] == "canceled"


@pytest.mark.parametrize("first", [0, 1])
async def test_that_an_order_has_ended_is_believed_however_old_the_picture_is(
    desk: Desk, exchange: Exchange, first: int
) -> None:
    order = await desk.order()
    broker_id = await desk.broker_id(order)
    exchange.fill(broker_id, "4")
    open_ = seen(exchange.orders[broker_id])
    exchange.end(broker_id)
    ended = exchange.orders[broker_id]
    pictures = [open_, seen(replace(ended, updated_at=ended.updated_at - timedelta(days=1)))]
    for picture in (pictures[first], pictures[1 - first]):
        await desk.apply(order, picture)
    row = await desk.row(order)
    assert (row["status"], row["filled_quantity"]) == (BrokerStatus.CANCELED, 4)
