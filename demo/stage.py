"""What every part of the demo's story stands on: a project to insert into, a worker to listen to, promises to keep."""

import asyncio
import sys
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import cast

from supabase import AsyncClient

from demo.clock import Connection, move_clock
from demo.worker import ROOT, Told

_PATIENCE_SECONDS = 30


class Stage:
    """What the worker tells comes in through `hear`; what the database holds is asked of it."""

    def __init__(self, database: AsyncClient, owner: Connection, environment: Mapping[str, str]) -> None:
        self.database = database
        self.owner = owner
        self.broken: list[str] = []
        self._environment = environment
        self._began = time.time()
        self._ahead = timedelta()
        self._sent: dict[int, float] = {}
        self._sending = self._began
        self._outcomes: dict[int, list[Told]] = {}
        self._ready = asyncio.Event()
        self._news = asyncio.Event()

    def hear(self, told: Told) -> None:
        """A line of the worker's log: outcomes and readiness are shown, the rest is its own business."""
        if told.message == "Realtime is ready":
            self._ready.set()
        job_id = told.job_id
        if job_id is not None:
            self._outcomes.setdefault(job_id, []).append(told)
            since = (told.at.timestamp() - self._sent.get(job_id, self._began)) * 1000
            timing = (
                f"{since:.0f} ms later"
                if job_id in self._sent
                else "inserted by the database or the scheduler"
            )
            self.say(
                f"  job {job_id:<3} attempt {told.facts['attempt']}  {_brief(told.message)}"
                f"  ({timing}; handler {told.duration_ms:.0f} ms, woken by {told.facts['woken_by']})"
            )
        self._news.set()

    @property
    def url(self) -> str:
        """Where the project answers."""
        return self._environment["SUPABASE_URL"]

    async def opens(self) -> None:
        """Returns when the worker is there."""
        await self.until("the worker is ready and hears inserts", self._ready.is_set)
        self.say("A worker process is up and subscribed to the inserts of its queues.")

    async def insert(self, queue: str, type_: str, data: Mapping[str, object], what: str) -> int:
        """A job as any program inserts it."""
        self.expect_now()
        row = {"type": type_, "data": dict(data)}
        answer = await self.database.table(f"{queue}_jobs").insert(row).execute()
        job = cast("int", cast("list[dict[str, object]]", answer.data)[0]["id"])
        self.is_inserted(job, what)
        return job

    def expect_now(self) -> None:
        """From now on it is counted how long the next job takes."""
        self._sending = time.time()

    def is_inserted(self, job: int, what: str) -> None:
        """Tells of a job that was inserted since."""
        self._sent[job] = self._sending
        self.say(f"  job {job:<3} inserted   {what}")

    async def move_clock(self, seconds: int) -> None:
        """So far ahead, on top of what it is already."""
        self._ahead += timedelta(seconds=seconds)
        await move_clock(self.owner, self._ahead)

    async def pulse(self, *words: str, quiet: bool = False) -> int:
        """Runs `pulse`; its exit code."""
        output = asyncio.subprocess.DEVNULL if quiet else None
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "listener", *words),
            cwd=ROOT,
            env=dict(self._environment),
            stdout=output,
            stderr=output,
        )
        return await process.wait()

    def runs_again(self, job: int) -> None:
        """An old job is about to be run once more."""
        self._sent[job] = time.time()

    def attempts(self, job: int) -> int:
        """How many have ended."""
        return len(self._outcomes.get(job, []))

    def has_run(self, job: int, attempts: int) -> bool:
        """Whether so many have ended."""
        return self.attempts(job) >= attempts

    def is_done(self, job: int) -> bool:
        """Whether its last attempt completed it."""
        told = self._outcomes.get(job)
        return told is not None and told[-1].facts["outcome"] == "completed"

    def promise(self, what: str, kept: bool) -> None:
        """Tells whether it was kept."""
        if not kept:
            self.broken.append(what)
        self.say(f"   {'✓' if kept else '✗'} {what}")

    async def until(self, what: str, is_so: Callable[[], bool]) -> None:
        """Waits for what the worker's log tells."""
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while not is_so():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise SystemExit(f"Waited {_PATIENCE_SECONDS} s in vain until {what}.") from None

    def say(self, text: str) -> None:
        """To the one who watches."""
        print(text, flush=True)


def _brief(message: str) -> str:
    """What became of a job, without the sentences of its error: they are in the dead letter."""
    outcome, *rest = message.partition(": ")[2].split("; ")
    return "; ".join([outcome.partition(": ")[0], *rest])
