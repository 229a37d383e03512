"""Throws old rows away: finished jobs after a week, dead letters after three months, or as the settings have it."""

from datetime import timedelta

from pydantic import BaseModel, Field

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


class Pruned(BaseModel):
    """What went, by table."""

    jobs: int = 0
    failed_jobs: int = 0
    stale_outcomes: int = 0
    more: bool

    def plus(self, later: "Pruned") -> "Pruned":
        """Both together; only the later one knows whether more is left."""
        return Pruned(
            jobs=self.jobs + later.jobs,
            failed_jobs=self.failed_jobs + later.failed_jobs,
            stale_outcomes=self.stale_outcomes + later.stale_outcomes,
            more=later.more,
        )


@every(timedelta(hours=1))
@handler(Queue.MAINTENANCE)
async def prune(payload: Prune, *, db: Database, kept: Retention) -> dict[str, object]:
    """Calls `prune` until nothing old is left. The result counts what went, and `more` says whether some stayed."""
    total = Pruned(more=True)
    days = {
        "completed_days": kept.completed_days if payload.completed_days is None else payload.completed_days,
        "failed_days": kept.failed_days if payload.failed_days is None else payload.failed_days,
    }
    for _ in range(ROUNDS):
        total = total.plus(Pruned.model_validate(await call(db, "prune", **days, max_jobs=STEP)))
        if not total.more:
            break
    return total.model_dump()
