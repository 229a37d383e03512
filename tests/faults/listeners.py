"""The two that a fault of Realtime is tried on: workers that listen as ours do, and the official client by itself."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from itertools import takewhile
from typing import Any, TypeAlias, cast

import asyncpg
from realtime import AsyncRealtimeChannel, AsyncRealtimeClient, RealtimePostgresChangesListenEvent
from realtime.types import RealtimeChannelConfig, RealtimeSubscribeStates

from devstack.gateway import Gateway
from devstack.keys import LOCAL
from listener.config import Tempo, Timings
from listener.epoch import Epoch
from listener.events import Finished, Hearing, MissedWakeup
from listener.jobs import WokenBy
from listener.subscription import Subscription
from listener.wakeups import Bell
from tests.listener.working import Anything, Shop, Told, runs, working
from tests.waiting import until

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

SWEEP = timedelta(seconds=0.5)
SWEPT, TOLD = "maintenance", "alerts"
"""Two queues: one is swept every half second, the other never, so that what runs there was heard of, or looked for
when hearing came back."""
TIMINGS = Timings(
    look=timedelta(seconds=0.05),
    canary=timedelta(seconds=0.2),
    canary_back=timedelta(seconds=0.6),
    close=timedelta(seconds=0.2),
    again=timedelta(seconds=0.02),
    again_cap=timedelta(seconds=0.1),
    patience=timedelta(seconds=0.1),
)
"""Production's clockwork, some thirty times as fast."""
NO_CANARIES = replace(TIMINGS, canary=timedelta(hours=1))
"""But for the one after each "Subscribed": what the client can know of is noticed without them."""
_SWEEPING = Tempo(sweep=SWEEP, grace=timedelta(seconds=5), reconnect=timedelta(seconds=0.02))
_NOT_SWEEPING = Tempo(sweep=timedelta(hours=1), grace=timedelta(seconds=5), reconnect=timedelta(seconds=0.02))


@dataclass(eq=False)
class Stage:
    """A gateway with its faults, the owner of its database, and somebody who listens."""

    gateway: Gateway
    owner: Connection
    database: str
    by_broadcast: bool
    breaks: bool = False
    """Whether the next callback for an INSERT raises."""
    slowly: float = 0.7
    """Seconds that a join takes which is too slow for the official client."""
    outlasted: Callable[[], bool] = lambda: False
    """Whether the one who listens has tried in vain for as long as the official client would."""
    _doing: list[asyncio.Task[object]] = field(default_factory=list[asyncio.Task[object]])

    async def insert(self, queue: str) -> int:
        """A row as it would be after waiting for two seconds: a sweep that finds it says that it was owed a wake-up."""
        return cast(
            "int",
            await self.owner.fetchval(
                "insert into jobs (queue, type, created_at, run_at)"
                " values ($1, 'note', now() - interval '2 s', now() - interval '2 s') returning id",
                queue,
            ),
        )

    async def passed(self) -> None:
        """Waits until Realtime has read and handed out, or not, what was inserted until now. A reading begins after the
        handing out of the one before, so it is seen to read twice."""
        for _ in range(2):
            await self.owner.execute("select pg_logical_emit_message(true, 'mark', '')")
            position = await self.owner.fetchval("select pg_current_wal_flush_lsn()::text")
            await until("Realtime has read so far", partial(self._has_read, position))

    async def _has_read(self, position: str) -> bool:
        if not (self.by_broadcast or self.gateway.realtime._changes.served):
            return True  # it reads for nobody
        read = "select bool_and(confirmed_flush_lsn >= $1::text::pg_lsn) from pg_replication_slots"
        mine = "where slot_type = 'logical' and database = current_database()"
        return await self.owner.fetchval(f"{read} {mine}", position) is not False

    def __post_init__(self) -> None:
        self.gateway.realtime.acts.limit(bucket_seconds=0.05)  # no limit, but a counter that would judge soon

    def meanwhile(self, what: Coroutine[Any, Any, object]) -> None:
        """Lets that go on until `done`."""
        self._doing.append(asyncio.ensure_future(what))

    async def done(self) -> None:
        """Waits for what was begun."""
        await asyncio.gather(*self._doing)
        self._doing.clear()

    def hear(self) -> None:
        """What every callback for an INSERT does first."""
        if self.breaks:
            self.breaks = False
            raise RuntimeError("a callback that raises")


class _Fragile(Bell):
    """A bell that can be told to raise."""

    def __init__(self, bell: Bell, stage: Stage) -> None:
        super().__init__()
        self._bell = bell
        self._stage = stage

    def ring(self, woken_by: WokenBy) -> None:
        if woken_by is WokenBy.REALTIME:
            self._stage.hear()
        self._bell.ring(woken_by)


@dataclass(eq=False)
class Workers:
    """Our listening, with a loop behind each queue."""

    stage: Stage
    subscription: Subscription
    told: Told
    shops: dict[str, Shop]

    def woken_by(self, job: int) -> WokenBy | None:
        """What made the worker look that ran this job, if it has run."""
        found = [
            one for shop in self.shops.values() for one in shop.told.of(Finished) if one.ended.ref.id == job
        ]
        assert len(found) <= 1
        return found[0].ended.woken_by if found else None

    async def runs(self, job: int, *, within: float) -> None:
        await until(f"job {job} has run", lambda: self.woken_by(job) is not None, patience=within)

    async def hears(self, *, within: float) -> None:
        """Waits until an insert is heard of, which is tried again and again, since one that is not heard stays so."""
        async with asyncio.timeout(within):
            while not await self._hears_one():
                pass

    async def _hears_one(self) -> bool:
        job, began = await self.stage.insert(TOLD), time.monotonic()
        await until(
            "it has had its time", lambda: self.woken_by(job) is not None or time.monotonic() > began + 0.1
        )
        return self.woken_by(job) is WokenBy.REALTIME

    @property
    def tries_in_vain(self) -> int:
        """How many epochs have ended since something was heard."""
        return sum(1 for _ in takewhile(lambda event: not isinstance(event, Hearing), reversed(self.told)))

    @property
    def missed(self) -> int:
        return sum(event.count for shop in self.shops.values() for event in shop.told.of(MissedWakeup))

    def weight(self) -> tuple[list[str], int, int]:
        """What must not grow: the client's tasks, our epochs in memory, the client's channels in memory."""
        gc.collect()
        kept = gc.get_objects()
        epochs = sum(isinstance(one, Epoch) for one in kept)
        return _tasks_of_libraries(), epochs, sum(isinstance(one, AsyncRealtimeChannel) for one in kept)


def _tasks_of_libraries() -> list[str]:
    codes = [getattr(task.get_coro(), "cr_code", None) for task in asyncio.all_tasks()]
    names = [code.co_qualname for code in codes if code is not None and "site-packages" in code.co_filename]
    return sorted(name for name in names if "Client" in name or "Channel" in name or "Connection" in name)


@asynccontextmanager
async def our_listening(stage: Stage, timings: Timings = TIMINGS) -> AsyncIterator[Workers]:
    """Workers on two queues that hear."""
    told = Told()

    async def note(_payload: Anything) -> None:
        """Does nothing."""

    async with (
        working(stage.gateway, runs(note, queue=SWEPT), queue=SWEPT, tempo=_SWEEPING) as swept,
        working(stage.gateway, runs(note, queue=TOLD), queue=TOLD, tempo=_NOT_SWEEPING) as unswept,
    ):
        shops = {SWEPT: swept, TOLD: unswept}
        subscription = Subscription(
            url=stage.gateway.url,
            key=LOCAL.service_role,
            bells={queue: _Fragile(shop.bell, stage) for queue, shop in shops.items()},
            canary=swept.store.canary,
            worker_id="listens",
            emit=told,
            timings=timings,
            by_broadcast=stage.by_broadcast,
        )
        running = asyncio.create_task(subscription.run())
        workers = Workers(stage, subscription, told, shops)
        stage.outlasted = lambda: workers.tries_in_vain > 3
        try:
            await until("it hears for the first time", lambda: subscription.ready)
            await workers.hears(within=10)
            await stage.passed()
            yield workers
            assert not running.done(), "the subscription ended by itself"
        finally:
            running.cancel()
            await asyncio.wait({running})


@dataclass(eq=False)
class Bare:
    """The official client as its documentation shows it, on the inserts of one queue. What it heard, in order."""

    stage: Stage
    client: AsyncRealtimeClient
    heard: list[int] = field(default_factory=list[int])
    states: list[RealtimeSubscribeStates] = field(default_factory=list[RealtimeSubscribeStates])

    async def listen(self) -> None:
        if self.stage.by_broadcast:
            config = RealtimeChannelConfig(broadcast={"replication_ready": True}, presence=None, private=True)
            channel = self.client.channel("pulse", {"config": config})
            channel.on_broadcast(f"jobs_{SWEPT}", self._hear)
        else:
            channel = self.client.channel("bare")
            insert = RealtimePostgresChangesListenEvent.Insert
            channel.on_postgres_changes(insert, self._hear, f"jobs_{SWEPT}", "public")
        await channel.subscribe(lambda state, _: self.states.append(state))

    def _hear(self, event: Any) -> None:
        self.stage.hear()
        self.heard.append(-1 if self.stage.by_broadcast else int(event["data"]["record"]["id"]))

    async def hears(self, *, within: float = 10) -> None:
        """Waits until something new is heard, inserting again and again."""
        async with asyncio.timeout(within):
            while not await self._hears_one():
                pass

    async def _hears_one(self) -> bool:
        before = len(self.heard)
        _, began = await self.stage.insert(SWEPT), time.monotonic()
        await until("it has had its time", lambda: len(self.heard) > before or time.monotonic() > began + 0.1)
        return len(self.heard) > before

    @property
    def is_over(self) -> bool:
        """Whether it has given up: nobody listens to the socket, or it has forgotten its channel."""
        task = cast("asyncio.Task[None] | None", self.client._listen_task)  # pyright: ignore[reportUnknownMemberType]
        return task is None or task.done() or not self.client.channels


@asynccontextmanager
async def bare_listening(stage: Stage) -> AsyncIterator[Bare]:
    """The official client, with quick retries, that hears."""
    client = AsyncRealtimeClient(
        f"{stage.gateway.url}/realtime/v1",
        LOCAL.service_role,
        auto_reconnect=True,
        max_retries=2,
        initial_backoff=0.3,
        timeout=1,
    )
    bare = Bare(stage, client)
    stage.outlasted = lambda: bare.is_over
    stage.slowly = 2.5  # its patience of 1 s, the 1 s after which it joins again, and some more
    try:
        await bare.listen()
        await bare.hears()
        await stage.passed()  # all that was inserted for it
        bare.heard.clear()
        yield bare
    finally:
        socket = client._ws_connection
        closing = asyncio.ensure_future(client.close())
        await asyncio.wait({closing}, timeout=0.2)
        if socket is not None:
            socket.transport.abort()  # a half-open one would wait for an answer to its farewell
        await closing
