"""Throws old rows away: finished jobs after a week, dead letters after three months."""

from pydantic import Field

from handlers.clients.database import Database, call
from listener import Payload, Queue, handler

ROUNDS = 20
"""A run ends after so many calls even if more is left: the next run goes on, and no attempt lasts for ever."""


class Prune(Payload):
    """How many days each kind is kept after it ended."""

    completed_days: float = Field(default=7, ge=0)
    failed_days: float = Field(default=90, ge=0)


@handler(Queue.MAINTENANCE)
async def prune(payload: Prune, *, db: Database) -> dict[str, object]:
    """Calls `prune` until nothing old is left. The result counts what went, and `more` says whether some stayed."""
    gone = {"jobs": 0, "failed_jobs": 0, "stale_outcomes": 0}
    more = True
    for _ in range(ROUNDS):
        answer = await call(
            db, "prune", completed_days=payload.completed_days, failed_days=payload.failed_days
        )
        for kind in gone:
            gone[kind] += int(str(answer[kind]))
        if not (more := bool(answer["more"])):
            break
    return {**gone, "more": more}
