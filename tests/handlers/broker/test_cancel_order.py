"""An order that somebody wants out of: wherever it is at that moment, it ends once, and as the broker says."""

from dataclasses import replace
from uuid import uuid4

import pytest

from handlers.clients.broker.broker import BrokerStatus, OutcomeUnknown
from handlers.clients.database import call
from listener import Reject
from tests.handlers.broker.conftest import Broker, Desk, SetClock, raises

LOST = OutcomeUnknown("no answer")
WITHDRAWN = {"status": "canceled", "reason": "canceled_before_sent"}


async def test_a_new_order_is_withdrawn_without_a_call(desk: Desk, broker: Broker) -> None:
    order = await desk.place()
    assert await desk.cancel(order) == WITHDRAWN
    assert await desk.cancel(order) == WITHDRAWN
    assert await desk.attempt(order) == WITHDRAWN
    assert (broker.submitted, broker.cancels, await desk.told()) == ([], [], [])


async def test_an_open_order_is_canceled_at_its_broker_once_however_often_it_is_asked_for(
    desk: Desk, broker: Broker
) -> None:
    order = await desk.place()
    await desk.attempt(order)
    assert (await desk.cancel(order))["status"] == "canceled"
    assert (await desk.cancel(order))["status"] == "canceled"
    assert broker.cancels == [f"b-pe{order.hex}"]
    assert await desk.told() == []  # it is what the user asked for


async def test_a_lost_answer_to_a_cancel_is_settled_by_a_look(desk: Desk, broker: Broker) -> None:
    order = await desk.place()
    await desk.attempt(order)
    broker.canceling = raises(LOST)
    assert (await desk.cancel(order))["again"] >= 1  # it did not arrive
    broker.canceling = None
    assert (await desk.cancel(order))["status"] == "canceled"
    assert len(broker.cancels) == 2


async def test_an_order_that_was_filled_meanwhile_is_filled(desk: Desk, broker: Broker) -> None:
    order = await desk.place()
    await desk.attempt(order)
    filled = broker.orders["pe" + order.hex]
    broker.orders["pe" + order.hex] = replace(
        filled, status=BrokerStatus.FILLED, filled_quantity=filled.quantity
    )
    assert (await desk.cancel(order))["status"] == "filled"


async def test_an_order_whose_answer_was_lost_is_found_first_and_canceled_then(
    desk: Desk, broker: Broker
) -> None:
    broker.after = raises(LOST)
    order = await desk.place()
    await desk.attempt(order)
    assert (await desk.cancel(order))["again"] == 0
    assert (await desk.cancel(order))["status"] == "canceled"
    assert (broker.looks, broker.cancels) == (1, [f"b-pe{order.hex}"])


async def test_an_order_that_never_arrived_is_canceled_when_looks_have_shown_that_it_is_not_there(
    desk: Desk, broker: Broker, clock: SetClock
) -> None:
    broker.before = raises(LOST)
    order = await desk.place()
    await desk.attempt(order)
    assert "again" in await desk.cancel(order)
    for seconds in (10, 11):
        await clock(seconds)
        await desk.cancel(order)
    assert await desk.cancel(order) == WITHDRAWN
    assert await desk.attempt(order) == WITHDRAWN
    assert broker.submitted == []


async def test_another_users_order_is_unknown(desk: Desk) -> None:
    order = await desk.place()
    with pytest.raises(Reject):
        await desk.cancel(order, asked_by=uuid4())
    with pytest.raises(Reject):
        await desk.cancel(uuid4())
    assert await desk.cancel(order, asked_by=desk.user) == WITHDRAWN


async def test_a_halt_cancels_what_is_open_when_it_is_told_to(desk: Desk) -> None:
    new = await desk.place()
    at_broker = await desk.place()
    await desk.attempt(at_broker)
    halted = await call(desk.db, "halt_trading", user_id=desk.user, reason="a bad day", cancel_open=True)
    assert halted == {"in_flight": 0, "cancelling": 2}
    jobs = await desk.owner.fetch("select data ->> 'order_id' from jobs where type = 'cancel_order'")
    assert {row[0] for row in jobs} == {str(new), str(at_broker)}
    assert (await desk.cancel(at_broker))[
        "status"
    ] == "canceled"  # a halt never keeps anybody from getting out
    assert (await desk.cancel(new))["status"] == "canceled"
