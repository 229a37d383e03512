"""Real worker processes with handlers that a test wrote, and a table in which every run of a handler leaves a trace."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Protocol, cast

import asyncpg
import pytest

from demo.worker import Told
from devstack.gateway import Gateway
from devstack.keys import LOCAL
from tests.nursery import Nursery, Order
from tests.waiting import until

RESOURCES = '''
"""What the test's handlers are handed."""

from collections.abc import AsyncIterator

from handlers.clients.database import Database
from listener import Setting, Settings, resource
from supabase import create_async_client


@resource()
async def database(settings: Settings) -> AsyncIterator[Database]:
    yield await create_async_client(settings["SUPABASE_URL"], settings["SUPABASE_SERVICE_ROLE_KEY"])
'''

TRACE = '''
"""Leaves a trace of each run; holds for ever on the first attempt when it is told to."""

import asyncio

from handlers.clients.database import Database
from listener import Job, Payload, Queue, handler


class Trace(Payload):
    hold: bool = False


@handler(Queue.MAINTENANCE)
async def trace(payload: Trace, *, job: Job, db: Database) -> None:
    await db.table("traces").insert({"job_id": job.id, "attempt": job.attempt}).execute()
    if payload.hold and job.attempt == 1:
        await asyncio.Event().wait()
'''


class Worker:
    """A worker process, running or ended."""

    def __init__(self) -> None:
        self.pid = 0
        self.told: list[Told] = []
        self.code: int | None = None
        """How it ended; negative: by this signal."""
        self.unexpected: list[str] = []
        """What it printed that is no line of its log."""

    def said(self, words: str) -> bool:
        """Whether its log has a message with these words."""
        return any(words in one.message for one in self.told)

    def lines(self, words: str) -> list[Told]:
        """The lines of its log with these words."""
        return [one for one in self.told if words in one.message]

    @property
    def outcomes(self) -> list[Told]:
        """What it said about attempts that ended."""
        return [one for one in self.told if one.job_id is not None]

    def signal(self, number: signal.Signals) -> None:
        """To this one process, if it has not ended yet."""
        if self.code is None:
            with suppress(ProcessLookupError):  # its end is not told yet
                os.kill(self.pid, number)

    async def ends(self) -> int:
        """Waits for its end; its exit code."""
        await until("the process has ended", lambda: self.code is not None)
        assert self.code is not None
        return self.code

    async def listen(self, stream: asyncio.StreamReader) -> None:
        """Reads what the nursery's stream says."""
        async for line in stream:
            words = line.decode().strip()
            if self.pid == 0:
                self.pid = int(words)
            elif words.startswith("{"):
                facts = cast("dict[str, object]", json.loads(words))
                at = datetime.fromisoformat(str(facts.pop("time")))
                self.told.append(Told(at, str(facts.pop("message")), facts))
            elif words.startswith("exit "):
                self.code = int(words.removeprefix("exit "))
            elif words:
                self.unexpected.append(words)


class StartWorker(Protocol):
    """Starts a worker process over the gateway; it is ready inside the block and drained after it."""

    def __call__(
        self,
        *words: str,
        tempo: Mapping[str, float] | None = None,
        wall_clock: Path | None = None,
        ready: bool = True,
        door: bool = False,
        **variables: str,
    ) -> AbstractAsyncContextManager[Worker]:
        """`tempo` is in seconds, by the names in Tempo; `words` and `variables` are given to the process.

        `ready`: wait until it has started. `door`: leave it its door.
        """
        ...


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Where worker processes come from."""
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture
def project(tmp_path: Path, checkout: Path) -> Path:
    """A folder with a `handlers` package of its own."""
    family = tmp_path / "handlers" / "maintenance"
    family.mkdir(parents=True)
    (tmp_path / "handlers" / "__init__.py").touch()
    (family / "__init__.py").touch()
    (tmp_path / "handlers" / "clients").symlink_to(checkout / "handlers" / "clients")
    (tmp_path / "handlers" / "resources.py").write_text(RESOURCES)
    (family / "trace.py").write_text(TRACE)
    return tmp_path


@pytest.fixture
async def traces(owner: "asyncpg.Connection[asyncpg.Record]") -> "asyncpg.Connection[asyncpg.Record]":
    """The owner's connection, to a database with the table in which handlers leave their traces."""
    await owner.execute(
        "create table traces (job_id bigint, attempt int);"
        "grant select, insert on traces to service_role;"
        "notify pgrst, 'reload schema'"
    )
    return owner


@pytest.fixture
def start_worker(gateway: Gateway, project: Path, nursery: Nursery) -> StartWorker:
    """See StartWorker. What is still stopped after the block is woken up, so that it can end."""

    @asynccontextmanager
    async def start(
        *words: str,
        tempo: Mapping[str, float] | None = None,
        wall_clock: Path | None = None,
        ready: bool = True,
        door: bool = False,
        **variables: str,
    ) -> AsyncIterator[Worker]:
        environment = {
            **os.environ,
            "SUPABASE_URL": gateway.url,
            "SUPABASE_SERVICE_ROLE_KEY": LOCAL.secret,
        } | variables
        options = ["worker", *([] if door else ["--no-door"]), *(words or ["--no-scheduler"])]
        order = Order(
            options, str(project), environment, tempo or {}, str(wall_clock) if wall_clock else None
        )
        worker = Worker()
        reader, writer = await nursery.start(order)
        async with asyncio.TaskGroup() as group:
            group.create_task(worker.listen(reader))
            try:
                await until("there is a process", lambda: worker.pid > 0)
                if ready:
                    await until("it has started", lambda: worker.said("started") or worker.code is not None)
                    assert worker.code is None, worker.unexpected
                yield worker
            finally:
                worker.signal(signal.SIGTERM)
                worker.signal(signal.SIGCONT)
                try:
                    await worker.ends()
                finally:
                    worker.signal(signal.SIGKILL)  # a test that failed leaves nothing behind either
                    writer.close()

    return start
