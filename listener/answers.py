"""The answers of our SQL functions, as they arrive and as the rooms get them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NotRequired, TypedDict
from uuid import UUID

from listener.jobs import AttemptRef, Job
from listener.outcomes import Answer, Recorded


@dataclass(frozen=True, slots=True)
class Claim:
    """What a queue gave."""

    jobs: Sequence[Job]
    unsettled: int
    """How many more are leased to this process by an answer that was lost: to be asked for again."""
    next_in: timedelta | None
    """When the next row of the known types is due: zero if some are due already, None if there is none."""
    floor: object
    waited: timedelta
    """How long the oldest claimed job had been due."""
    lost_retried: int
    lost_dead: int
    lost_refused: int
    """Those that stay as they are until a rule of the database's own lets them end."""
    unknown_types: Mapping[str, int]


class JobJson(TypedDict):
    id: int
    queue: str
    type: str
    data: dict[str, object]
    user_id: str | None
    priority: int
    run_at: str
    attempt: int
    uncounted: int
    max_attempts: int
    created_at: str
    traceparent: NotRequired[str | None]
    """Not from a database whose migrations are older than this process."""


class ClaimJson(TypedDict):
    jobs: list[JobJson]
    unsettled: int
    lost: dict[str, int]
    next_in_seconds: float | Decimal | None
    floor: object
    unknown_types: dict[str, int] | None
    waited_seconds: float | Decimal | None


class OutcomeJson(TypedDict):
    answer: str
    status: str | None
    run_in_seconds: float | Decimal | None
    failed_job_id: int | None


class FinishJson(TypedDict):
    outcomes: list[OutcomeJson]
    claim: ClaimJson | None


class ReplayedJson(TypedDict):
    failed_job_id: int
    job_id: int


class ReplayJson(TypedDict):
    replayed: list[ReplayedJson]
    skipped: list[int]


def read_claim(said: ClaimJson) -> Claim:
    """What a claim answered."""
    return Claim(
        jobs=[_job(one) for one in said["jobs"]],
        unsettled=said["unsettled"],
        next_in=_duration(said["next_in_seconds"]),
        floor=said["floor"],
        waited=_duration(said["waited_seconds"]) or timedelta(),
        lost_retried=said["lost"]["retried"],
        lost_dead=said["lost"]["dead"],
        lost_refused=said["lost"].get("refused", 0),
        unknown_types=said["unknown_types"] or {},
    )


def _job(said: JobJson) -> Job:
    return Job(
        id=said["id"],
        queue=said["queue"],
        type=said["type"],
        data=said["data"],
        user_id=UUID(said["user_id"]) if said["user_id"] else None,
        priority=said["priority"],
        run_at=datetime.fromisoformat(said["run_at"]),
        attempt=said["attempt"],
        uncounted=said["uncounted"],
        max_attempts=said["max_attempts"],
        created_at=datetime.fromisoformat(said["created_at"]),
        traceparent=said.get("traceparent"),
    )


def read_recorded(ref: AttemptRef, said: OutcomeJson) -> Recorded:
    """What became of one outcome."""
    return Recorded(
        ref,
        Answer(said["answer"]),
        said["status"] or "gone",
        _duration(said["run_in_seconds"]),
        said["failed_job_id"],
    )


def _duration(seconds: float | Decimal | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=float(seconds))
