"""A worker under test: its handlers, what it told, and what it leaves behind."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeAlias, TypeVar

import asyncpg
from pydantic import BaseModel, ConfigDict

from devstack.gateway import Gateway
from devstack.keys import LOCAL
from listener.attempt import Stop
from listener.backoff import Backoff
from listener.config import Tempo
from listener.events import Event, Finished
from listener.jobs import Enqueued, Job, NewJob, WokenBy
from listener.journal import Journal
from listener.outbox import Outbox
from listener.progress import Progress
from listener.redaction import Redactor
from listener.registry import DEFAULT_TIMEOUT, Handler, Registry
from listener.reporter import Reporter
from listener.store import Store, connected
from listener.wakeups import Bell
from listener.worker import Worker
from tests.waiting import until

QUEUE = "maintenance"
QUICK = Tempo(
    lease=timedelta(seconds=60),
    sweep=timedelta(seconds=600),
    grace=timedelta(seconds=5),
    reconnect=timedelta(seconds=0.02),
)
"""Nothing by the clock: what a test does not ring for is not looked at. Unanswered calls are repeated at once."""

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
MoveClock = Callable[[timedelta], Awaitable[None]]
E = TypeVar("E", bound=Event)


class Anything(BaseModel):
    """A payload that takes what comes."""

    model_config = ConfigDict(extra="allow", frozen=True)


class Told(list[Event]):
    """All events, in their order."""

    def __call__(self, event: Event) -> None:
        self.append(event)

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self if isinstance(event, kind)]


def runs(
    function: Callable[..., Awaitable[object]],
    *,
    name: str | None = None,
    queue: str = QUEUE,
    payload: type[BaseModel] = Anything,
    timeout: timedelta = DEFAULT_TIMEOUT,
    backoff: Backoff | None = None,
) -> Handler:
    """The handler of the type that is called like the function; it may ask for its `job` and its `progress`."""
    own: dict[str, type[object]] = {"job": Job, "progress": Progress}
    wants = {name: own[name] for name in inspect.signature(function).parameters if name in own}
    return Handler(queue, name or function.__name__, function, payload, wants, timeout, backoff)


def registry_of(*handlers: Handler) -> Registry:
    return Registry({(one.queue, one.type): one for one in handlers}, (), ())


class Gate:
    """A handler that stays inside until it is let out."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.inside = 0
        self.stopped = 0

    async def gated(self, _payload: Anything) -> None:
        self.inside += 1
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.stopped += 1
            raise


@dataclass(eq=False)
class Shop:
    """One worker at work."""

    worker: Worker
    store: Store
    bell: Bell
    told: Told
    task: asyncio.Task[None] = field(init=False)

    async def enqueue(
        self, type_: str, data: Mapping[str, object] | None = None, *, count: int = 1, max_attempts: int = 4
    ) -> list[int]:
        """Inserts that many jobs, tells the worker as Realtime would, and answers their ids."""
        job = NewJob(self.worker.queue, type_, data or {}, max_attempts=max_attempts)
        made: list[Enqueued] = await self.store.enqueue([job] * count)
        self.bell.ring(WokenBy.REALTIME)
        return [one.id for one in made]

    async def job(
        self, type_: str, data: Mapping[str, object] | None = None, *, max_attempts: int = 4
    ) -> int:
        (id_,) = await self.enqueue(type_, data, max_attempts=max_attempts)
        return id_

    @property
    def finished(self) -> list[Finished]:
        return self.told.of(Finished)

    async def finishes(self, count: int) -> Finished:
        """Waits for the n-th answered outcome and gives it."""
        await until(f"{count} outcomes are answered", lambda: len(self.finished) >= count or self.task.done())
        if self.task.done():
            self.task.result()  # says why
        assert len(self.finished) == count
        return self.finished[count - 1]

    async def has_looked(self) -> None:
        """Waits until the look at the start is done, so that what comes is found by a later one."""
        await until("the first look is done", lambda: self.worker.problem is None)

    async def runs_jobs(self, count: int) -> None:
        await until(f"{count} handlers run", lambda: len(self.worker.running) == count)

    async def drained(self) -> None:
        """Waits for the end of the worker, which somebody has told to drain."""
        await until("the worker has drained", self.task.done)
        self.task.result()
        assert not self.worker.held


@asynccontextmanager
async def working(
    gateway: Gateway,
    *handlers: Handler,
    places: int = 10,
    tempo: Tempo = QUICK,
    worker_id: str = "test-worker",
    queue: str = QUEUE,
    url: str | None = None,
    journal: Journal | None = None,
) -> AsyncIterator[Shop]:
    """Runs a worker, then drains it: what it still runs is stopped, and all that it held must be recorded."""
    told, bell = Told(), Bell()
    async with connected(url or gateway.url, LOCAL.service_role, worker_id) as store:
        reporter = Reporter(store, tempo.progress, told)
        worker = Worker(
            queue,
            registry_of(*handlers),
            {},
            outbox=Outbox(store, journal or Journal(None, worker_id, told), reporter, told),
            bell=bell,
            places=places,
            tempo=tempo,
            redactor=Redactor(),
            emit=told,
        )
        shop = Shop(worker, store, bell, told)
        shop.task = asyncio.create_task(worker.run())
        reporting = asyncio.create_task(reporter.run())
        try:
            yield shop
            worker.drain()
            worker.stop_all(Stop.DRAIN)
            await shop.drained()
        finally:
            shop.task.cancel()
            reporting.cancel()
            await asyncio.wait({shop.task, reporting})


async def row(owner: Connection, id_: int) -> asyncpg.Record:
    """The job as it stands."""
    found = await owner.fetchrow("select * from jobs where id = $1", id_)
    assert found is not None
    return found


async def dead_letters(owner: Connection) -> list[asyncpg.Record]:
    return await owner.fetch("select * from failed_jobs order by id")
