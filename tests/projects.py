"""Real worker processes with handlers that a test wrote, and a table in which every run of a handler leaves a trace."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from demo.worker import Told, worker_process
from devstack.gateway import Gateway
from devstack.keys import LOCAL
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
    """A running worker process."""

    def __init__(self) -> None:
        self.pid = 0
        self.told: list[Told] = []

    def said(self, words: str) -> bool:
        """Whether its log has a message with these words."""
        return any(words in one.message for one in self.told)

    @property
    def outcomes(self) -> list[Told]:
        """What it said about attempts that ended."""
        return [one for one in self.told if one.job_id is not None]


StartWorker = Callable[..., AbstractAsyncContextManager[Worker]]
"""Takes further environment variables by name."""


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
def start_worker(gateway: Gateway, project: Path) -> StartWorker:
    """Starts a worker process over the gateway; it is ready inside the block and drained after it."""

    @asynccontextmanager
    async def start(**variables: str) -> AsyncIterator[Worker]:
        worker = Worker()
        environment = {
            "SUPABASE_URL": gateway.url,
            "SUPABASE_SERVICE_ROLE_KEY": LOCAL.secret,
        } | variables
        words = ("--no-door", "--no-scheduler")
        async with worker_process(environment, worker.told.append, *words, project=project) as process:
            worker.pid = process.pid
            await until("the worker has started", lambda: worker.said("started"))
            yield worker

    return start
