"""A job as it stands, in one row of a table, and the sentence about what it waits for."""

from collections.abc import Mapping
from datetime import datetime
from typing import TypedDict, cast

from console.screen import Cell, Colour, Column, Row
from console.words import moment, since

COLOUR_OF: Mapping[str, Colour] = {
    "pending": Colour.YELLOW,
    "running": Colour.CYAN,
    "completed": Colour.GREEN,
    "cancelled": Colour.DIM,
    "failed": Colour.RED,
}
STATUSES = tuple(COLOUR_OF)
COLUMNS = (
    Column("id", right=True),
    Column("queue"),
    Column("type", bends=True),
    Column("status"),
    Column("try", right=True),
    Column("made", right=True, spare=True),
    Column("note", bends=True),
)


class JobJson(TypedDict):
    """What `tell_jobs` says of a job."""

    id: int
    queue: str
    type: str
    status: str
    user_id: str | None
    priority: int
    run_at: str
    attempt: int
    counted: int
    max_attempts: int
    worker_id: str | None
    lease_expires_at: str | None
    cancel_requested: bool
    progress: dict[str, float] | None
    last_outcome: str | None
    last_error: str | None
    woken_by: str | None
    created_at: str
    updated_at: str
    finished_at: str | None


def row(job: JobJson, now: datetime) -> Row:
    """Its line below COLUMNS."""
    return (
        str(job["id"]),
        job["queue"],
        job["type"],
        Cell(job["status"], COLOUR_OF.get(job["status"], Colour.PLAIN)),
        f"{job['counted']}/{job['max_attempts']}",
        since(moment(job["created_at"]), now),
        note(job, now),
    )


def note(job: JobJson, now: datetime) -> str:
    """What it waits for, or how it ended."""
    match job["status"]:
        case "pending":
            return _waits(job, now)
        case "running":
            return _runs(job, now)
        case "completed":
            return f"done {since(moment(job['finished_at']), now)}"
        case _:
            ended = since(moment(job["finished_at"]), now)
            return f"{job['last_error']} ({ended})" if job["last_error"] else ended


def _waits(job: JobJson, now: datetime) -> str:
    due = moment(job["run_at"])
    when = f"due {since(due, now)}" if due is not None else "due"
    return f"{when}, after {job['last_error']}" if job["last_error"] else when


def _runs(job: JobJson, now: datetime) -> str:
    lease = moment(job["lease_expires_at"])
    held = f"lease ends {since(lease, now)}" if lease is not None and lease > now else "lease is over"
    asked = ", asked to stop" if job["cancel_requested"] else ""
    return f"{_progress(job)}{held}{asked}, on {job['worker_id']}"


def _progress(job: JobJson) -> str:
    said = job["progress"] or {}
    if "done" not in said:
        return ""
    return f"{said['done']:g} of {said['of']:g} done, " if "of" in said else f"{said['done']:g} done, "


def now_of(said: object) -> datetime:
    """The database's now, by which all ages are told."""
    return datetime.fromisoformat(cast("dict[str, str]", said)["now"])
