"""A subscription under test, with its bells, what it told, and what it leaves behind."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol, TypeVar

from listener.config import Timings
from listener.events import Deaf, Event, Hearing
from listener.jobs import WokenBy
from listener.subscription import Subscription
from listener.wakeups import Bell

PATIENCE = 10.0
"""Seconds after which a test gives up waiting for what it names. Nothing waits this long when all is well."""

E = TypeVar("E", Hearing, Deaf)


class Server(Protocol):
    """What a subscription is pointed at."""

    @property
    def url(self) -> str: ...
    @property
    def key(self) -> str: ...
    async def canary(self, token: str) -> str | None: ...


@dataclass(eq=False)
class Ears:
    """What a worker's loops and its metrics would see."""

    subscription: Subscription
    bells: dict[str, Bell]
    events: list[Event]
    moved: asyncio.Event
    task: asyncio.Task[None] = field(init=False)

    def told(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    async def until(self, holds: Callable[[], bool]) -> None:
        """Waits until that is so; looks at each event."""
        async with asyncio.timeout(PATIENCE):
            while not holds():
                self.moved.clear()
                await self.moved.wait()

    async def hearing(self, times: int = 1) -> None:
        """Waits until it became ready for the n-th time."""
        await self.until(lambda: len(self.told(Hearing)) >= times)

    async def deaf(self, times: int = 1) -> Deaf:
        """Waits for the end of the n-th epoch and answers with what was told of it."""
        await self.until(lambda: len(self.told(Deaf)) >= times)
        return self.told(Deaf)[times - 1]

    async def woken(self, queue: str) -> WokenBy | None:
        """Waits for the bell of that queue."""
        return await self.bells[queue].wait(PATIENCE)

    async def all_woken(self) -> set[WokenBy | None]:
        return {await self.woken(queue) for queue in self.bells}


@asynccontextmanager
async def listening(
    server: Server,
    *,
    canary: Callable[[str], Awaitable[str | None]] | None = None,
    worker_id: str = "worker-1",
    bells: dict[str, Bell] | None = None,
    timings: Timings | None = None,
    by_broadcast: bool = False,
) -> AsyncIterator[Ears]:
    """Runs a subscription to two queues; then cancels it and asserts that nothing of it is left."""

    moved = asyncio.Event()
    events: list[Event] = []

    def emit(event: Event) -> None:
        events.append(event)
        moved.set()

    bells = bells or {"payment": Bell(), "broker": Bell()}
    subscription = Subscription(
        url=server.url,
        key=server.key,
        bells=bells,
        canary=canary or server.canary,
        worker_id=worker_id,
        emit=emit,
        timings=timings or quick(),
        by_broadcast=by_broadcast,
    )
    ears = Ears(subscription, bells, events, moved)
    before = client_tasks()
    ears.task = asyncio.create_task(subscription.run())
    try:
        yield ears
        assert not ears.task.done(), "the subscription ended by itself"
    finally:
        ears.task.cancel()
        await asyncio.wait({ears.task})
    assert ears.task.cancelled()
    assert not subscription.ready
    assert client_tasks() == before


def quick(  # Named as in Timings, in seconds. What a test does not wait for is out of reach.
    *,
    ready: float = PATIENCE,
    canary: float = 600,
    canary_back: float = PATIENCE,
    recycle: float = 600,
    again: float = 0.01,
    again_cap: float = 1,
    patience: float = 0.1,
) -> Timings:
    return Timings(
        ready=timedelta(seconds=ready),
        ready_cold=timedelta(seconds=2 * ready),
        look=timedelta(seconds=0.02),
        canary=timedelta(seconds=canary),
        canary_back=timedelta(seconds=canary_back),
        recycle=timedelta(seconds=recycle),
        close=timedelta(seconds=0.2),
        again=timedelta(seconds=again),
        again_cap=timedelta(seconds=again_cap),
        patience=timedelta(seconds=patience),
    )


def client_tasks() -> list[str]:
    """The names of the coroutines of `realtime` and `websockets` that run as tasks of this event loop."""
    names: list[str] = []
    for task in asyncio.all_tasks():
        code = getattr(task.get_coro(), "cr_code", None)
        if code is not None and ("/realtime/" in code.co_filename or "/websockets/" in code.co_filename):
            names.append(code.co_qualname)
    return sorted(names)
