"""How an attempt can end: the five outcomes, and their JSON as `finish` in `sql/` reads it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Literal

from listener.jobs import AttemptRef, WokenBy

Json = Mapping[str, object]


class Answer(StrEnum):
    """What the database said to an outcome."""

    RECORDED = "recorded"
    REPEATED = "repeated"
    """Already recorded by an earlier try of the same call, whose answer was lost."""
    STALE = "stale"
    """The job had moved on (lease run out, another attempt): nothing was changed."""


@dataclass(frozen=True, slots=True)
class Completed:
    """Done. `result` is a JSON object to keep with the job, or None."""

    result: Json | None = None
    kind: Literal["completed"] = "completed"


@dataclass(frozen=True, slots=True)
class Snooze:
    """Return it from a handler to run again after `delay`; the attempt does not count. `reason` is kept in the row."""

    delay: timedelta
    reason: str
    kind: Literal["snooze"] = "snooze"


@dataclass(frozen=True, slots=True)
class Cancel:
    """Return it from a handler to stop this job for good without calling it a failure."""

    reason: str
    kind: Literal["cancel"] = "cancel"


@dataclass(frozen=True, slots=True)
class ErrorText:
    """An error as it may be stored and read by people: already free of secrets and payload values."""

    error_class: str
    message: str
    stack: str | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """Failed; to be tried again after `delay` (None: by the table), or a dead letter when no attempts are left."""

    error: ErrorText
    delay: timedelta | None = None
    kind: Literal["retry"] = "retry"


@dataclass(frozen=True, slots=True)
class Dead:
    """Failed for good: a dead letter now."""

    error: ErrorText
    kind: Literal["dead"] = "dead"


Outcome = Completed | Snooze | Cancel | Retry | Dead


@dataclass(frozen=True, slots=True)
class Ended:
    """An attempt whose handler has returned, until its outcome is recorded."""

    ref: AttemptRef
    type: str
    outcome: Outcome
    duration: timedelta
    woken_by: WokenBy


@dataclass(frozen=True, slots=True)
class Recorded:
    """The database's answer to one outcome: what became of the job."""

    ref: AttemptRef
    answer: Answer
    status: str
    """The job's status now (for a stale outcome: as the other attempt left it; 'gone' when the row was pruned)."""
    run_in: timedelta | None
    """For a job that is pending again: how long until it is due."""
    failed_job_id: int | None
    """For a job that went to the dead letters: the row in failed_jobs."""


def to_json(ref: AttemptRef, outcome: Outcome) -> dict[str, object]:
    """One element of the `outcomes` argument of `finish`."""
    words: dict[str, object] = {
        "queue": ref.queue,
        "id": ref.id,
        "attempt": ref.attempt,
        "kind": outcome.kind,
    }
    match outcome:
        case Completed(result):
            if result is not None:
                words["result"] = result
        case Snooze(delay, reason):
            words |= {"delay_seconds": delay.total_seconds(), "reason": reason}
        case Cancel(reason):
            words["reason"] = reason
        case Retry(error, delay):
            words |= _error_to_json(error)
            if delay is not None:
                words["delay_seconds"] = delay.total_seconds()
        case Dead(error):
            words |= _error_to_json(error)
    return words


def _error_to_json(error: ErrorText) -> dict[str, object]:
    return {"error_class": error.error_class, "error_message": error.message, "error_stack": error.stack}
