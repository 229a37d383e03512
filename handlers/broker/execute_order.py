"""Sends an order to its broker, once; or looks for it, while nobody knows whether it has arrived.

The database decides what is to be done and writes it down before it is done (`sql/310_orders.sql` has the whole
protocol). Here is what happens between: one call of the broker, and an honest word about what it came to.

    before the call                                     the order
    --------------------------------------------------  ---------------------------------------------------
    its market is closed                                is new again until it opens, or refused, as it says
    the adapter objects (precision, size, symbol)       is refused
    too many calls of this connection are under way     is new again, and the job makes place for others
    more than 5 s have passed since begin_order         is new again: too late to be sent by this attempt
    anything else goes wrong, or the worker drains      is new again

    the call                                            the order
    --------------------------------------------------  ---------------------------------------------------
    shows it                                            accepted, and whatever else the broker says
    is refused for certain                              rejected: the job is completed, a business outcome
    was not sent, too fast, bad credentials             is new again, and the connection held
    its client order id is taken                        looked for at once
    anything else                                       unknown: looked for, at once and after the settle time

None of these counts an attempt of the job. What does is a database that does not answer, and a mistake of ours.
"""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final
from uuid import UUID

from handlers.clients.broker.broker import (
    BrokerAdapter,
    BrokerError,
    BrokerOrder,
    DuplicateClientId,
    OrderRequest,
    OutcomeUnknown,
)
from handlers.clients.broker.brokers import Brokers, Connection
from handlers.clients.broker.order_looks import look_up
from handlers.clients.broker.order_words import Begun, Order, Told, begun, no_answer, progress, seen, traits
from handlers.clients.database import Database, call
from listener import Payload, Queue, Reject, Snooze, handler

SUBMIT_WINDOW: Final = timedelta(seconds=5)
"""From the call of begin_order on: who has not begun to send by then never does. `sql/` counts on it."""


class ExecuteOrder(Payload):
    order_id: UUID


@dataclass(slots=True)
class _Submission:
    """One that has begun: until `was_sent`, nothing of it has left for certain."""

    order: Order
    started: float
    """By the monotonic clock, before begin_order was called: no later than when the database counts from."""
    was_sent: bool = False
    traits: Told = field(default_factory=dict[str, object])

    @property
    def is_late(self) -> bool:
        return time.monotonic() - self.started >= SUBMIT_WINDOW.total_seconds()

    def told(self, outcome: str, **words: object) -> Told:
        return {"outcome": outcome, **words, **self.traits}

    def fate(self, error: BrokerError, connection: Connection) -> Told:
        """What an error means: before the call nothing was sent for certain."""
        if isinstance(error, DuplicateClientId):
            return self.told("duplicate")
        if isinstance(error, OutcomeUnknown) and not self.was_sent:
            return self.told("not_sent", code="no_connection")
        return no_answer(error, connection) | self.traits


@handler(Queue.BROKER, timeout=timedelta(minutes=2))
async def execute_order(
    payload: ExecuteOrder, *, brokers: Brokers, db: Database
) -> dict[str, object] | Snooze:
    """One step of the order's way. The result says how it stands, and why."""
    started = time.monotonic()
    told = begun(await call(db, "begin_order", order_id=payload.order_id))
    match told.step:
        case "submit":
            return await _submit(told, started, brokers, db)
        case "look_up":
            return await look_up(told, brokers, db)
        case "later":
            return Snooze(timedelta(seconds=told.delay_seconds or 1), told.reason or "later")
        case "unknown_order":
            raise Reject("There is no such order: place_order makes it, and its job.")
        case _:
            return {"status": told.status, "reason": told.reason}


async def _submit(told: Begun, started: float, brokers: Brokers, db: Database) -> dict[str, object] | Snooze:
    """Sends, and records what became of it, whatever happens to this attempt meanwhile."""
    order, connection = told.call
    submission = _Submission(order, started)

    async def record(outcome: Told) -> dict[str, object] | Snooze:
        numbered = {"order_id": order.id, "submission": order.submission}
        return progress(await call(db, "record_submission", **numbered, told=outcome))

    try:
        async with brokers.at(connection) as adapter:
            submission.traits = traits(adapter.traits)
            outcome = await _send(submission, adapter)
    except BrokerError as error:
        outcome = submission.fate(error, connection)
    except BaseException:
        with suppress(Exception):  # unheard, the order stays `submitting`, and is looked for
            await record(submission.told("unknown" if submission.was_sent else "not_sent", code="stopped"))
        raise
    return await record(outcome)


async def _send(submission: _Submission, adapter: BrokerAdapter) -> Told:
    """What stands against it, or what the broker says. Raises what `submit` raises."""
    order = submission.order
    hours = await adapter.hours(order.symbol)
    if not hours.is_open and order.when_closed == "refuse":
        return submission.told("refused", code="market_closed", words="Its market is closed.")
    if not hours.is_open:
        return submission.told("not_sent", code="market_closed", opens_at=hours.changes_at)
    request = order.request()
    if (objection := adapter.objection(request)) is not None:
        return submission.told("refused", code=objection.code, words=str(objection))
    found = await _to_the_end(submission, adapter, request)
    return (
        submission.told("not_sent", code="late")
        if found is None
        else submission.told("accepted", order=seen(found))
    )


async def _to_the_end(
    submission: _Submission, adapter: BrokerAdapter, request: OrderRequest
) -> BrokerOrder | None:
    """Whoever stops this attempt (a worker that drains, say) waits for the call: nobody knows its outcome otherwise.

    None: it is too late to begin it.
    """

    async def submit() -> BrokerOrder | BrokerError | None:
        if submission.is_late:  # asked here: a process may stand still before a task of it begins
            return None
        submission.was_sent = True
        try:
            return await adapter.submit(request)
        except BrokerError as error:
            return error

    async with asyncio.TaskGroup() as group:
        submitted = group.create_task(submit())
        while not submitted.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([submitted])
    answer = submitted.result()
    if isinstance(answer, BrokerError):
        raise answer
    return answer
