"""A handler that does what its job says, a ledger of what it did, and a history of what became of the jobs."""

import json
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple, TypeAlias

import asyncpg
import pytest

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
MoveClock = Callable[[timedelta], Awaitable[None]]

ACT = '''
"""Does what it is told, and writes into a file when it begins and when it ends: that asks no database."""

import asyncio
import os
import signal
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from listener import Job, Payload, Queue, RetryAfter, Snooze, handler


class Act(Payload):
    do: str = "nothing"
    size: int = 0


def note(job: Job, what: str) -> None:
    with Path("ledger").open("a") as ledger:
        ledger.write(f"{job.id} {job.attempt} {os.getpid()} {what}\\n")


@handler(Queue.MAINTENANCE, timeout=timedelta(seconds=2) if Path("impatient").exists() else timedelta(minutes=5))
async def act(payload: Act, *, job: Job) -> dict[str, object] | Snooze:
    note(job, "begins")
    may_end = Path(f"open-{job.attempt}")
    match payload.do:
        case "wait":
            while not may_end.exists():
                await asyncio.sleep(0.01)
        case "ignore":
            while not may_end.exists():
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(0.01)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "fail":
            raise RetryAfter(timedelta(), "as it was told")
        case "fail slowly":
            raise RuntimeError("as it was told")
        case "snooze":
            return Snooze(timedelta(hours=1), "as it was told")
        case "be large":
            return {"text": "x" * payload.size}
        case "block":
            time.sleep(payload.size)
        case "work":
            await asyncio.sleep(payload.size / 1000)
        case "unsayable":
            raise Unsayable
    note(job, "ends")
    return {"attempt": job.attempt, "pid": os.getpid()}


class Unsayable(BaseException):
    def __str__(self) -> str:
        raise RuntimeError("no words")
'''

# What happened to each job, by triggers: nothing that the functions do is missing in it.
HISTORY = """
    create table public.history (
        n bigserial, id bigint, attempt integer, status text, worker_id text, lease_expires_at timestamptz,
        last_error text, at timestamptz
    );
    create function public.write_history() returns trigger language plpgsql security definer set search_path = '' as $$
    begin
        insert into public.history (id, attempt, status, worker_id, lease_expires_at, last_error, at)
        values (
            new.id, new.attempt, new.status, new.worker_id, new.lease_expires_at, new.last_error, public.clock_now()
        );
        return null;
    end
    $$;
    create trigger history after insert or update on public.jobs_maintenance
    for each row execute function public.write_history();
"""


class Note(NamedTuple):
    """One line of the ledger."""

    job: int
    attempt: int
    pid: int
    what: str


@dataclass(frozen=True)
class Acting:
    """Jobs of the type `act`, and what came of them."""

    folder: Path
    owner: Connection

    async def enqueue(
        self, do: str = "nothing", count: int = 1, *, size: int = 0, **columns: int
    ) -> list[int]:
        names = "".join(f", {name}" for name in columns)
        places = "".join(f", ${n}" for n in range(3, 3 + len(columns)))
        rows = await self.owner.fetch(
            f"insert into maintenance_jobs (type, data{names}) select 'act', $1::jsonb{places}"
            " from generate_series(1, $2) returning id",
            json.dumps({"do": do, "size": size}),
            count,
            *columns.values(),
        )
        return [row["id"] for row in rows]

    def open(self, attempt: int) -> None:
        """Lets those attempts end that wait for it."""
        (self.folder / f"open-{attempt}").touch()

    @property
    def ledger(self) -> list[Note]:
        """What the handlers wrote; the line of one that was killed may be missing its end."""
        file = self.folder / "ledger"
        lines = file.read_text().splitlines() if file.exists() else []
        fields = [line.split(" ") for line in lines]
        return [Note(int(job), int(attempt), int(pid), what) for job, attempt, pid, what in fields]

    def begun(self, attempt: int | None = None) -> Counter[int]:
        """How often each job was begun."""
        return Counter(
            note.job for note in self.ledger if note.what == "begins" and attempt in {None, note.attempt}
        )

    def pid(self, job: int, attempt: int) -> int:
        """The process in which that attempt runs."""
        return next(note.pid for note in self.ledger if note[:2] == (job, attempt))

    async def row(self, job: int) -> asyncpg.Record:
        found = await self.owner.fetchrow("select * from jobs where id = $1", job)
        assert found is not None
        return found

    async def statuses(self) -> Counter[str]:
        return Counter(row["status"] for row in await self.owner.fetch("select status from jobs"))

    async def all_completed(self) -> bool:
        return set(await self.statuses()) == {"completed"}

    async def stale(self) -> list[tuple[int, int, str]]:
        """(job, attempt, kind) of what was said too late."""
        rows = await self.owner.fetch("select job_id, attempt, kind from stale_outcomes order by 1, 2")
        return [tuple(row) for row in rows]

    async def attempts_are_sound(self) -> None:
        """By the history: attempts are numbered without gaps, and none began while another was live."""
        rows = await self.owner.fetch("select id, attempt, status from history order by id, n")
        last: dict[int, tuple[int, str]] = {}
        for id_, attempt, status in rows:
            before, was = last.get(id_, (0, "pending"))
            if status == "running" and was != "running":
                assert attempt == before + 1, f"job {id_}: attempt {attempt} after {before}"
            else:
                assert attempt == before, f"job {id_}: attempt {before} became {attempt} while {was}"
            last[id_] = (attempt, status)


@pytest.fixture
async def acting(project: Path, owner: Connection) -> Acting:
    """The handler `act` in the test's project, and a database that writes its history."""
    (project / "handlers" / "maintenance" / "act.py").write_text(ACT)
    (project / "handlers" / "maintenance" / "trace.py").unlink()
    (project / "handlers" / "resources.py").write_text('"""None: what acts needs nobody."""')
    await owner.execute(HISTORY)
    return Acting(project, owner)
