"""Cancels an order, wherever it is (`sql/315_cancel.sql`).

It is withdrawn before it is sent, found while nobody knows where it is, asked for at its broker. The job comes back
until the order has ended; how it has, a look says, not our wish.
"""

from contextlib import suppress
from datetime import timedelta
from uuid import UUID

from handlers.clients.broker.broker import BrokerError, OutcomeUnknown, Refused
from handlers.clients.broker.brokers import Brokers
from handlers.clients.broker.order_looks import look_up
from handlers.clients.broker.order_words import Begun, Told, begun, no_answer, progress, seen
from handlers.clients.database import Database, call
from listener import Job, Payload, Queue, Reject, Snooze, handler


class CancelOrder(Payload):
    order_id: UUID


@handler(Queue.BROKER, timeout=timedelta(minutes=2))
async def cancel_order(
    payload: CancelOrder, *, job: Job, brokers: Brokers, db: Database
) -> dict[str, object] | Snooze:
    """One step towards its end. The result says how it ended, and why."""
    told = begun(await call(db, "begin_cancel", order_id=payload.order_id, asked_by=job.user_id))
    match told.step:
        case "cancel":
            outcome = await _cancel(told, brokers)
            return progress(await call(db, "record_cancel", order_id=payload.order_id, told=outcome))
        case "look_up":
            looked = await look_up(told, brokers, db)
            if isinstance(looked, Snooze) or looked["status"] == "in_doubt":
                return looked
            return Snooze(timedelta(), "It was found, or has ended.")
        case "later":
            return Snooze(timedelta(seconds=told.delay_seconds or 1), told.reason or "later")
        case "unknown_order":
            raise Reject("There is no such order, or it is another user's.")
        case _:
            return {"status": told.status, "reason": told.reason}


async def _cancel(told: Begun, brokers: Brokers) -> Told:
    """Asks, and looks. A refusal may mean that nothing is left to cancel, so it is looked all the same."""
    order, connection = told.call
    if order.broker_order_id is None:
        raise ValueError("what has no id at the broker is looked for, not canceled")
    try:
        async with brokers.at(connection) as adapter:
            with suppress(Refused, OutcomeUnknown):
                await adapter.cancel(order.broker_order_id, order.symbol)
            found = await adapter.get(order.broker_order_id, order.symbol)
    except BrokerError as error:
        return no_answer(error, connection)
    return {"order": found and seen(found)}
