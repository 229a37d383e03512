"""Throws old rows away: finished jobs after a week, dead letters after three months, or as the settings have it."""

from collections import Counter
from datetime import timedelta
from typing import cast

from pydantic import Field

from handlers.clients.database import Database, call
from handlers.clients.retention import Retention
from listener import Payload, Queue, every, handler

STEP = 1000
"""Rows of each kind in one transaction: a few hundredths of a second."""
ROUNDS = 200
"""A run ends after so many calls even if more is left: the next run goes on, and no attempt lasts for ever."""


class Prune(Payload):
    """How many days each kind is kept after it ended, this once; left out: as the settings have it."""

    completed_days: float | None = Field(default=None, ge=0)
    failed_days: float | None = Field(default=None, ge=0)


@every(timedelta(hours=1))
@handler(Queue.MAINTENANCE)
async def prune(payload: Prune, *, db: Database, kept: Retention) -> dict[str, object]:
    """Prunes until nothing old is left. Answers what went from each table, and in `more` whether some stayed."""
    gone: Counter[str] = Counter()
    more = True
    days = {
        "completed_days": kept.completed_days if payload.completed_days is None else payload.completed_days,
        "failed_days": kept.failed_days if payload.failed_days is None else payload.failed_days,
    }
    for _ in range(ROUNDS):
        said = cast("dict[str, int]", await call(db, "prune", **days, max_jobs=STEP))
        more = bool(said.pop("more"))
        gone.update(said)
        if not more:
            break
    return {**gone, "more": more}
