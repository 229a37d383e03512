"""Brings positions to what their broker shows, and tells when orders do not account for them.

    {}                                              every active connection: one job for each
    {"userId": "…"}                                 those of one user
    {"userId": "…", "brokerConnectionId": "…"}      that one, now

Positions are only read, whole or not at all; what is written, and when it is not, says `sql/330_positions.sql`.
"""

from datetime import timedelta
from typing import Final
from uuid import UUID

from handlers.clients.broker.account import Connection
from handlers.clients.broker.broker import BrokerError, BrokerPosition
from handlers.clients.broker.brokers import Brokers
from handlers.clients.broker.questions import Questions
from handlers.clients.database import Database, call
from listener import Job, Payload, Queue, Reject, Snooze, every, handler

QUIET: Final = timedelta(seconds=5)
AGREEMENT: Final = timedelta(seconds=10)
"""Until a second run: in between, the orders of the connection are looked at."""
PATIENCE: Final = 12
"""So often a job comes back, for quiet or for agreement. Then it takes what it sees, and judges nothing."""


class SyncPositions(Payload):
    """Whose positions."""

    user_id: UUID | None = None
    broker_connection_id: UUID | None = None


@every(timedelta(hours=1))
@handler(Queue.BROKER, timeout=timedelta(minutes=2))
async def sync_positions(
    payload: SyncPositions, *, job: Job, brokers: Brokers, db: Database
) -> dict[str, object] | Snooze:
    """The result says how many jobs were enqueued, or what the run has brought."""
    if payload.broker_connection_id is None:
        return await _fan_out(payload.user_id, job, db)
    patient = job.uncounted < PATIENCE
    begun = await call(
        db,
        "begin_position_sync",
        user_id=payload.user_id,
        broker_connection_id=payload.broker_connection_id,
        patient=patient,
    )
    match begun["outcome"]:
        case "unknown":
            raise Reject("There is no such broker connection, or it is not this user's.")
        case "unsettled":
            return Snooze(QUIET, "Orders of this connection are moving.")
        case "look":
            questions = Questions(Connection.read(begun["connection"]), brokers, db)
            return await _run(str(begun["run_id"]), questions, patient=patient)
        case _:
            return dict(begun)


async def _fan_out(user_id: UUID | None, job: Job, db: Database) -> dict[str, object]:
    page: dict[str, object] = {}
    connections = 0
    while True:
        made = await call(db, "enqueue_position_syncs", user_id=user_id, key=job.key, **page)
        connections += int(str(made["connections"]))
        if made["last"] is None:
            return {"connections": connections}
        page = {"after": made["last"]}


async def _run(run_id: str, questions: Questions, *, patient: bool) -> dict[str, object] | Snooze:
    try:
        shown = await questions.ask(lambda adapter: adapter.positions())
    except BrokerError as error:
        return await questions.trouble(error)
    told = {"complete": True, "positions": [_words(position) for position in shown]}
    recorded = await call(questions.db, "record_positions", run_id=run_id, told=told, patient=patient)
    if recorded["outcome"] == "overtaken" and patient:
        return Snooze(QUIET, "An order changed meanwhile.")
    if recorded["unsure"]:
        return Snooze(AGREEMENT, "Another run has to agree.")
    return dict(recorded)


def _words(position: BrokerPosition) -> dict[str, object]:
    return {
        "symbol": position.symbol,
        "quantity": position.quantity,
        "avg_entry_price": position.avg_entry_price,
        "current_price": position.current_price,
    }
