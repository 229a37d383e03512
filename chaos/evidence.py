"""What is left when the storm is over: the history, the ledger, the tables, and what the workers said."""

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, TypeAlias, TypeVar

import asyncpg

from chaos.jobs import COMPLETED, Kind
from chaos.ledger import Entry, read

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
_OWED = re.compile(r"a sweep found (\d+) due that Realtime did not announce")


class Change(NamedTuple):
    """One line of the history: a job's state before and after."""

    job_id: int
    at: float
    before: str | None
    """None: it was inserted."""
    after: str | None
    """None: it was deleted."""
    attempt_before: int | None
    attempt: int | None
    uncounted_before: int | None
    uncounted: int | None
    max_attempts: int | None
    run_at: float | None
    worker_id: str | None
    outcome: str | None
    lease_over: bool | None = None
    """Whether the lease that it had before had run out."""


class JobRow(NamedTuple):
    """A job as it stands at the end."""

    id: int
    queue: str
    type: str
    status: str
    attempt: int
    uncounted: int
    max_attempts: int
    leased: bool
    key: str | None


class Letter(NamedTuple):
    """A dead letter."""

    job_id: int
    attempt: int
    error_class: str | None
    replayed: bool


class Stale(NamedTuple):
    """An outcome that was refused."""

    job_id: int
    attempt: int
    kind: str
    at: float


@dataclass(frozen=True, slots=True)
class Exit:
    """The end of one worker process."""

    seat: int
    pid: int
    code: int
    told: frozenset[str]
    """Signals that the lab sent it."""
    log: str


@dataclass(slots=True)
class Said:
    """What the workers' own logs add up to."""

    deaf_seconds: float = 0.0
    """From the last thing that a process heard to the word that it hears again, or to its end."""
    deaf: int = 0
    """How often one went deaf."""
    wakeups_lost: int = 0
    """Due jobs that a sweep found and Realtime had not announced."""
    stale: int = 0
    """Outcomes that were answered "stale"."""
    recovered: int = 0
    """Outcomes out of a dead process's journal."""


@dataclass(slots=True)
class Evidence:
    """Everything that the invariants look at. `changes` are in the order in which they happened."""

    kinds: Mapping[tuple[str, str], Kind] = field(default_factory=dict[tuple[str, str], Kind])
    jobs: Mapping[int, JobRow] = field(default_factory=dict[int, JobRow])
    changes: Mapping[int, Sequence[Change]] = field(default_factory=dict[int, Sequence[Change]])
    entries: Mapping[int, Sequence[Entry]] = field(default_factory=dict[int, Sequence[Entry]])
    letters: Mapping[int, Sequence[Letter]] = field(default_factory=dict[int, Sequence[Letter]])
    stale: Sequence[Stale] = ()
    ids: Mapping[str, int] = field(default_factory=dict[str, int])
    """What the producers were told: the job of each key."""
    disagreed: Sequence[str] = ()
    cancelled: frozenset[int] = frozenset()
    """Jobs that somebody asked to cancel."""
    exits: Sequence[Exit] = ()
    said: Said = field(default_factory=Said)
    longest_wait_allowed: float = 60.0
    over_at: float = math.inf
    """When the storm was over: the lab moves the database's clock then, so that nobody waits for delays."""

    def kind(self, job: JobRow) -> Kind:
        """What was to be expected of a job; of one that nobody enqueued (a schedule's slot), that it completes."""
        return self.kinds.get((job.queue, job.type), Kind(job.queue, job.type, ends=COMPLETED))


async def from_database(connection: Connection, evidence: Evidence) -> None:
    """Reads the history and the tables."""
    changes = await connection.fetch(
        "select job_id, extract(epoch from at)::float8, before, after, attempt_before, attempt, uncounted_before,"
        " uncounted, max_attempts, extract(epoch from run_at)::float8, worker_id, outcome,"
        " lease_over from chaos.history order by n"
    )
    evidence.changes = _by_job(Change(*row) for row in changes)
    jobs = await connection.fetch(
        "select id, queue, type, status, attempt, uncounted, max_attempts, lease_expires_at is not null,"
        " idempotency_key from jobs"
    )
    evidence.jobs = {row["id"]: JobRow(*row) for row in jobs}
    letters = await connection.fetch(
        "select job_id, attempt, error_class, replayed_at is not null from failed_jobs order by id"
    )
    evidence.letters = _by_job(Letter(*row) for row in letters)
    stale = await connection.fetch(
        "select job_id, attempt, kind, extract(epoch from r.at)::float8 from stale_outcomes"
        " join chaos.refused as r using (job_id, attempt, kind) order by r.n"
    )
    evidence.stale = [Stale(*row) for row in stale]


def from_ledgers(folder: Path, evidence: Evidence) -> None:
    """Reads what the handlers wrote."""
    evidence.entries = _by_job(sorted(read(folder), key=lambda entry: entry.at))


Line = TypeVar("Line", Change, Letter, Entry)


def _by_job(lines: Iterable[Line]) -> dict[int, list[Line]]:
    found: dict[int, list[Line]] = defaultdict(list)
    for line in lines:
        found[line.job_id].append(line)
    return dict(found)


def from_logs(folder: Path, over_at: float) -> Said:
    """Adds up what the workers said. A wake-up that is owed after the storm is owed by the lab's own clock."""
    said = Said()
    for file in sorted(folder.glob("*.log")):
        _add_up(file.read_text(errors="replace").splitlines(), said, over_at)
    return said


def _add_up(lines: Iterable[str], said: Said, over_at: float) -> None:
    """What one process said, from its start to its end."""
    deaf_since: float | None = None
    at = 0.0
    for line in lines:
        if '"outcome": ' in line:
            said.stale += '"answer": "stale"' in line
            continue
        try:
            words = json.loads(line)
            at = datetime.fromisoformat(words["time"]).timestamp()
            message = str(words["message"])
        except ValueError:
            continue  # the interpreter's own words, or a line that was cut off
        if message.startswith("deaf to Realtime"):
            said.deaf += deaf_since is None
            deaf_since = at if deaf_since is None else deaf_since
        elif message == "Realtime is ready" and deaf_since is not None:
            # It may have been so for a while before it could know: it counts from the last thing it heard.
            said.deaf_seconds += max(at - deaf_since, float(words.get("deaf_seconds", 0)))
            deaf_since = None
        elif message.startswith("recording ") and "left when it died" in message:
            said.recovered += int(message.split()[1])
        elif at < over_at and (owed := _OWED.search(message)):
            said.wakeups_lost += int(owed[1])
    if deaf_since is not None:
        said.deaf_seconds += at - deaf_since
