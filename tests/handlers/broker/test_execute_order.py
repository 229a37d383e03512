"""An order on its way to a broker, through the real functions: sent once, looked for when nobody knows."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from handlers.clients.broker.broker import Dedupe, OutcomeUnknown, Refused
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


async def test_one_call_of_the_database_lies_between_the_job_and_the_request_at_the_broker(
    desk: Desk, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []
    counted: list[list[str]] = []
    rpc = desk.db.rpc

    def count(name: str, *words: Any) -> Any:
        called.append(name)
        return rpc(name, *words)

    async def note() -> None:
        counted.append(list(called))

    order = await desk.place()
    monkeypatch.setattr(desk.db, "rpc", count)
    broker.before = note
    await desk.attempt(order)
    assert counted == [["begin_order"]]
    assert called == ["begin_order", "record_submission"]


async def test_an_accepted_order_is_a_fact_whoever_reports_it_and_however_late(
    desk: Desk, broker: Broker, clock: SetClock
) -> None:
    """The first attempt hangs in its call, the second finds nothing and calls a person; then the first answers."""
    broker.traits = replace(broker.traits, dedupe=Dedupe.NONE)
    entered, leave = asyncio.Event(), asyncio.Event()

    async def hangs() -> None:
        entered.set()
        await leave.wait()

    broker.before = hangs
    order = await desk.place()
    first = asyncio.create_task(desk.attempt(order))
    await entered.wait()
    for seconds in (31, 32):
        await clock(seconds)
        await desk.attempt(order)
    assert await desk.status(order) == "in_doubt"
    leave.set()
    assert (await first)["status"] == "accepted"
    assert await desk.told() == ["order_in_doubt", "order_found"]
