"""An order on its way to a broker, through the real functions: sent once, looked for when nobody knows."""

from handlers.clients.broker import OutcomeUnknown, Refused
from tests.handlers.broker.conftest import Broker, Desk, SetClock, raises

LOST = OutcomeUnknown("no answer")


async def test_an_order_is_sent_once_and_the_row_shows_what_the_broker_said(
    desk: Desk, broker: Broker
) -> None:
    order = await desk.place()
    assert await desk.attempt(order) == {"status": "accepted", "reason": None}
    assert await desk.attempt(order) == {"status": "accepted", "reason": None}
    row = await desk.row(order)
    assert broker.submitted == [row["client_order_id"]] == ["pe" + order.hex]
    assert row["broker_order_id"] == f"b-pe{order.hex}"
    assert row["next_check_at"] is not None


async def test_a_refusal_is_a_completed_job_and_a_rejected_order(desk: Desk, broker: Broker) -> None:
    broker.refuses = Refused("insufficient_funds", "The account has too little money.")
    order = await desk.place()
    assert await desk.attempt(order) == {"status": "rejected", "reason": "insufficient_funds"}
    assert (await desk.row(order))["status_words"] == "The account has too little money."
    assert await desk.told() == ["order_rejected"]


async def test_a_lost_answer_is_looked_for_and_found(desk: Desk, broker: Broker) -> None:
    broker.after = raises(LOST)
    order = await desk.place()
    assert (await desk.attempt(order))["again"] == 1
    assert await desk.status(order) == "unknown"
    assert (await desk.attempt(order))["status"] == "accepted"
    assert len(broker.submitted) == 1


async def test_what_never_arrived_is_sent_again_under_its_id_when_looks_have_shown_that_it_is_not_there(
    desk: Desk, broker: Broker, clock: SetClock
) -> None:
    broker.before = raises(LOST)
    order = await desk.place()
    await desk.attempt(order)
    assert "again" in await desk.attempt(order)  # not found yet, and that says nothing
    assert await desk.status(order) == "unknown"
    broker.before = None
    for seconds in (10, 11):
        await clock(seconds)
        assert broker.submitted == []
        await desk.attempt(order)
    assert await desk.status(order) == "new"
    assert (await desk.attempt(order))["status"] == "accepted"
    assert broker.submitted == ["pe" + order.hex]
