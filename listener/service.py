"""One process put together: resources, the loops of its queues, Realtime, the scheduler, the door, and how it ends.

Everything runs in one TaskGroup: when any part dies of an error it did not expect, all of it comes down, loudly, and
the platform starts it anew; nothing limps on half alive.

How it ends, from the first SIGTERM or SIGINT (a platform may send several SIGTERM; they change nothing):
  1. Nothing new is claimed or scheduled; the door closes beside what follows; leases are kept.
  2. What runs may finish within the grace (24 s). A second Ctrl-C ends the grace at once.
  3. What still runs is cancelled and handed back, uncounted (2.5 s).
  4. A handler that ignores its cancellation, or an outcome that the database does not take, is abandoned: the process
     leaves anyway, with exit code 1, and the lease gives the job back. So does a resource that cannot be closed (2 s),
     and a thread that goes on (1 s, see `uncaught.py`). Together 29.5 s: platforms kill after 30.
"""

import asyncio
import os
import re
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from secrets import token_hex
from typing import NoReturn

from listener.attempt import Stop
from listener.config import Config, Tempo
from listener.errors import StoreError
from listener.events import DoorOpen, Drained, Draining, Recovered, Started
from listener.heartbeat import keep_leases
from listener.journal import open_journal
from listener.keyring import Key, Keyring, read_keys
from listener.metrics import Metrics
from listener.outbox import Outbox
from listener.presence import Presence, State
from listener.redaction import Redactor
from listener.registry import Registry
from listener.reporter import Reporter
from listener.resources import opened
from listener.scheduler import Scheduler
from listener.stillness import watched
from listener.store import Store, connected
from listener.subscription import Subscription
from listener.telemetry.catalogue import PLACES, READY, TAKEN
from listener.telemetry.counts import Counts, Numbers
from listener.telemetry.depths import Depths
from listener.telemetry.exports import Exports, open_exports
from listener.tokens import Tokens, read_tokens
from listener.wakeups import Bell
from listener.web import Health, open_door
from listener.worker import Worker

_KEYS_SECONDS = 30.0
_CLEAN_UP_SECONDS = 2.5
_CLOSING_SECONDS = 2.0
_LAST_WORD_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What this process is to do."""

    queues: Sequence[str]
    """Empty: the door alone."""
    places: int = 50
    """How many jobs of each queue run at once."""
    host: str = "127.0.0.1"
    port: int | None = None
    """None: no door."""
    exact_port: bool = True
    """Whether a taken port is an error; otherwise a free one is chosen and told."""
    schedules: bool = True


class Service:
    """A process of workers. `run` returns when it has drained after a signal or `stop`."""

    def __init__(
        self,
        config: Config,
        registry: Registry,
        plan: Plan,
        *,
        tempo: Tempo | None = None,
        leave: Callable[[int], NoReturn] = os._exit,
    ) -> None:
        # It also travels in a Realtime filter, where a dot or a comma would have a meaning.
        host = re.sub(r"[^A-Za-z0-9]", "-", socket.gethostname())
        self.worker_id = f"{host}-{os.getpid()}-{token_hex(3)}"
        self.counts = Counts({queue: registry.types(queue) for queue in registry.queues})
        self.redactor = Redactor(config.secrets)
        self.metrics = Metrics(self.redactor, self.counts)
        self.keyring = Keyring(
            Key(config.key_name, config.key, config.apikey or config.key),
            partial(read_keys, config.environment),
            tell=lambda event: self.metrics(event),  # noqa: PLW0108 - tests put another one in its place
            learn=self.redactor.learn,
        )
        self.tokens = Tokens(
            config.door_tokens, partial(read_tokens, config.environment), tell=self.keyring.tell
        )
        self._config = config
        self._registry = registry
        self._plan = plan
        self._tempo = tempo or Tempo()
        self._leave = leave
        self._began = time.monotonic()
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._look_at_keys = asyncio.Event()
        self._deadline: asyncio.TimerHandle | None = None
        self._workers: list[Worker] = []
        self._store: Store | None = None
        self._depths: Depths | None = None
        self._subscription: Subscription | None = None
        self._scheduler: Scheduler | None = None

    def drain(self) -> None:
        """Begins the drain; again: changes nothing."""
        self._stopping.set()

    def stop(self) -> None:
        """Begins the drain; again: ends its grace; and again: leaves at once."""
        if self._hurry.is_set():
            self.metrics(Drained(timedelta(), handed_back=0, abandoned=self._running))
            self._leave(1)
        (self._hurry if self._stopping.is_set() else self._stopping).set()

    def look_at_keys(self) -> None:
        """Reads again what keys there are, now and not in half a minute."""
        self._look_at_keys.set()

    async def run(self) -> None:
        """Works until told to stop."""
        async with AsyncExitStack() as stack:
            stack.callback(self._no_deadline)
            stack.enter_context(watched(self.metrics))
            store = self._store = await stack.enter_async_context(
                connected(self._config.supabase_url, self.keyring, self.worker_id, emit=self.metrics)
            )
            self._depths = Depths(store, self.metrics)
            exports = await stack.enter_async_context(
                open_exports(
                    self._config.destinations,
                    self.counts,
                    self.numbers,
                    self._tempo.export,
                    self.worker_id,
                    self.metrics,
                )
            )
            needed = self._registry.resources if self._plan.queues else ()
            resources = await stack.enter_async_context(opened(needed, self._config.settings, self.keyring))
            bells = {queue: Bell() for queue in self._plan.queues}
            journal, left = stack.enter_context(
                open_journal(self._config.journal if bells else None, self.worker_id, self.metrics)
            )
            reporter = Reporter(store, self._tempo.progress, self.metrics)
            outboxes = {queue: Outbox(store, journal, reporter, self.metrics) for queue in bells}
            for ended in left:  # any loop can record what a queue's own cannot, since nobody here serves it
                outboxes.get(ended.ref.queue, next(iter(outboxes.values()))).add(ended)
            if left:
                self.metrics(Recovered(len(left)))
            self._workers = [
                Worker(
                    queue,
                    self._registry,
                    resources,
                    outbox=outboxes[queue],
                    bell=bell,
                    places=self._plan.places,
                    tempo=self._tempo,
                    redactor=self.redactor,
                    emit=self.metrics,
                )
                for queue, bell in bells.items()
            ]
            self._subscription = Subscription(
                url=self._config.supabase_url,
                key=self.keyring,
                bells=bells,
                canary=store.canary,
                worker_id=self.worker_id,
                emit=self.metrics,
                timings=self._tempo.listening,
                by_broadcast=self._config.listens_to_broadcast,
            )
            if self._plan.schedules:
                self._scheduler = Scheduler(store, self._registry, tempo=self._tempo, emit=self.metrics)
            await self._work(store, self._subscription, reporter, exports)

    def _leave_after(self, seconds: float) -> None:
        """Unless all is closed by then, the process leaves by force."""
        self._no_deadline()
        self._deadline = asyncio.get_running_loop().call_later(seconds, self._leave, 1)

    def _no_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()

    async def _work(
        self, store: Store, subscription: Subscription, reporter: Reporter, exports: Exports
    ) -> None:
        async with asyncio.TaskGroup() as group:
            async with AsyncExitStack() as door:
                await door.enter_async_context(self._door(store))
                loops = [group.create_task(worker.run(), name=worker.queue) for worker in self._workers]
                leases = group.create_task(
                    keep_leases(self._workers, store, self._tempo, self.metrics), name="leases"
                )
                reports = group.create_task(reporter.run(), name="progress")
                presence = self._presence(store, subscription)
                told = group.create_task(presence.run(), name="presence") if self._workers else None
                hints = [group.create_task(self._keep_keys(store), name="keys")]
                if self._workers:
                    hints.append(group.create_task(subscription.run(), name="subscription"))
                if self._scheduler is not None:
                    hints.append(group.create_task(self._scheduler.run(), name="scheduler"))
                group.create_task(exports.run(), name="exports")
                self._tell_started()
                await self._stopping.wait()
                for task in hints:
                    task.cancel()
                for worker in self._workers:
                    worker.drain()
                within = self._tempo.grace.total_seconds() + _CLEAN_UP_SECONDS + _CLOSING_SECONDS
                presence.leave(timedelta(seconds=within))
                self._leave_after(within)
                # Beside the drain: a client that does not finish its request must not keep the workers claiming.
                group.create_task(door.pop_all().aclose(), name="door")
            await self._drain(group, loops)
            self._leave_after(_CLOSING_SECONDS)
            leases.cancel()
            reports.cancel()
            exports.end()
            if told is not None:
                await asyncio.wait([told], timeout=_LAST_WORD_SECONDS)
                told.cancel()

    def _presence(self, store: Store, subscription: Subscription) -> Presence:
        """What people read about this process in the table `workers`."""

        def state() -> State:
            deaf_for = None if subscription.ready else subscription.deaf_for
            return State(self._running, deaf_for, self.health().problems)

        return Presence(
            store,
            types={worker.queue: self._registry.types(worker.queue) for worker in self._workers},
            places=self._plan.places,
            state=state,
            every=self._tempo.presence,
            redactor=self.redactor,
            emit=self.metrics,
        )

    async def _keep_keys(self, store: Store) -> None:
        """Looks for the next key, and has it proven before the one in use is withdrawn."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_KEYS_SECONDS):
                    await self._look_at_keys.wait()
            self._look_at_keys.clear()
            await self.tokens.look()
            if await self.keyring.look():
                with suppress(StoreError):  # the loops of the queues tell of it
                    await store.heartbeat([], timedelta(seconds=1))

    async def _drain(self, group: asyncio.TaskGroup, loops: Sequence[asyncio.Task[None]]) -> None:
        """Steps 2 to 4 of the end."""
        began = time.monotonic()
        self.metrics(Draining(self._running, self._tempo.grace))
        handed_back = 0
        if loops:
            ended = group.create_task(_ended(loops))
            hurry = group.create_task(_rung(self._hurry))
            await asyncio.wait(
                [ended, hurry],
                timeout=self._tempo.grace.total_seconds(),
                return_when=asyncio.FIRST_COMPLETED,
            )
            hurry.cancel()
            handed_back = self._running
            for worker in self._workers:
                worker.stop_all(Stop.DRAIN)
            await asyncio.wait([ended], timeout=_CLEAN_UP_SECONDS)
        abandoned = sum(len(worker.held) for worker in self._workers)
        took = timedelta(seconds=time.monotonic() - began)
        self.metrics(Drained(took, handed_back - min(handed_back, abandoned), abandoned))
        if not all(loop.done() for loop in loops):
            for worker in self._workers:
                await worker.keep()
            self._leave(1)

    @property
    def _running(self) -> int:
        return sum(len(worker.running) for worker in self._workers)

    def health(self) -> Health:
        """What the door tells."""
        problems = [self.keyring.problem] if self.keyring.problem else []
        problems += [problem for worker in self._workers if (problem := worker.problem)]
        if self._workers and self._subscription is not None and self._subscription.problem is not None:
            problems.append(self._subscription.problem)
        if self._stopping.is_set():
            problems.append("draining: the process is about to end")
        if self._scheduler is not None and self._scheduler.problem is not None:
            problems.append(self._scheduler.problem)
        facts: dict[str, object] = {
            "worker_id": self.worker_id,
            "uptime_seconds": round(time.monotonic() - self._began, 3),
            "queues": {
                worker.queue: {"running": len(worker.running), "places": self._plan.places}
                for worker in self._workers
            },
            "counts": self.counts.totals(),
            "calls": self._store.calls if self._store is not None else 0,
            "cpu_seconds": round(time.process_time(), 3),
        }
        if self._subscription is not None and self._workers:
            facts["realtime"] = {
                "ready": self._subscription.ready,
                "deaf_for_seconds": round(self._subscription.deaf_for.total_seconds(), 3),
                "deaf_seconds": round(self._subscription.deaf_in_all.total_seconds(), 3),
                "gaps": self._subscription.gaps,
                "epochs": self._subscription.epochs,
            }
        return Health(problems, facts)

    async def numbers(self) -> Numbers:
        """What was counted, and how things are at this moment."""
        numbers = self.counts.read()
        if self._depths is not None and not self._stopping.is_set():  # the last words wait for nobody
            await self._depths.tell(numbers)
        for worker in self._workers:
            numbers.values[PLACES][worker.queue,] = self._plan.places
            numbers.values[TAKEN][worker.queue,] = len(worker.running)
        numbers.values[READY][()] = 0.0 if self.health().problems else 1.0
        return numbers

    def _tell_started(self) -> None:
        types = [f"{queue}/{type_}" for queue in self._plan.queues for type_ in self._registry.types(queue)]
        self.metrics(
            Started(
                self.worker_id, self._plan.queues, types, timedelta(seconds=time.monotonic() - self._began)
            )
        )

    @asynccontextmanager
    async def _door(self, store: Store) -> AsyncIterator[None]:
        if self._plan.port is None:
            yield
            return
        async with open_door(
            self._plan.host,
            self._plan.port,
            exact=self._plan.exact_port,
            config=self._config,
            registry=self._registry,
            store=store,
            health=self.health,
            numbers=self.numbers,
            emit=self.metrics,
            tokens=self.tokens,
        ) as url:
            self.metrics(DoorOpen(url))
            yield


async def _ended(tasks: Sequence[asyncio.Task[None]]) -> None:
    await asyncio.wait(tasks)


async def _rung(event: asyncio.Event) -> None:
    await event.wait()
