"""Looks for an order whose submission had no answer, by the id that we gave it, and says what was found."""

from handlers.clients.broker.broker import BrokerError
from handlers.clients.broker.brokers import Brokers
from handlers.clients.broker.order_words import Begun, Told, no_answer, progress, seen, traits
from handlers.clients.database import Database, call
from listener import Snooze


async def look_up(told: Begun, brokers: Brokers, db: Database) -> dict[str, object] | Snooze:
    """The step `look_up` of begin_order and begin_cancel: one look, and what follows from it."""
    order, connection = told.call
    outcome: Told = {}
    try:
        async with brokers.at(connection) as adapter:
            outcome = traits(adapter.traits)
            found = await adapter.find(order.client_order_id, order.symbol)
        outcome |= {"found": found and seen(found), "begun_at": told.begun_at}
    except BrokerError as error:
        outcome |= no_answer(error, connection)
    recorded = await call(db, "record_lookup", order_id=order.id, submission=order.submission, told=outcome)
    return progress(recorded)
