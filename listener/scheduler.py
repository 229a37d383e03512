"""Puts periodic jobs into their queues, one row per due slot however many processes run this.

A thread of its own (built on `schedule`) only decides that a slot is due; the row goes out through the event loop's
store with the slot as its idempotency key, so of any number of processes one inserts it and the others learn its id.

    thread                                     event loop
    schedule.run_all() every 0.5 s
      └─ slot due ── call_soon_threadsafe ──▶  a task per schedule ── enqueue, repeated until answered

At start the latest slot of each schedule is put in too: if every process was down when it was due, it is made up for
once; if not, its key is already there. The thread notes each of its rounds; one that stopped or fell behind makes
the process not ready, by name. So does a slot that the database does not take; it holds up no other schedule.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import schedule

from listener.config import Tempo
from listener.errors import StoreError, StoreRefused
from listener.events import Available, Emit, SlotInserted, SlotWithoutHandler, Swallowed, Unavailable
from listener.jobs import QUEUE_OF, NewJob, Queue
from listener.registry import Registry
from listener.store import Store

_ROUND_SECONDS = 0.5
_BEHIND_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """One periodic job: its slots are the multiples of `every` since midnight UTC."""

    type: str
    every: timedelta
    """A divisor of a day."""

    @property
    def queue(self) -> Queue:
        """Where the type lives."""
        return QUEUE_OF[self.type]

    def slot(self, now: datetime) -> datetime:
        """The latest slot that is due at `now`."""
        midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        return now - (now - midnight) % self.every

    def job(self, slot: datetime) -> NewJob:
        """The row of one slot. It is due at the slot, by the database's clock: a machine whose own is ahead puts it in
        too early, and it has to wait, since nobody would put it in again when its time has come."""
        key = f"{self.type}@{slot.astimezone(UTC):%Y-%m-%dT%H:%MZ}"
        return NewJob(self.queue, self.type, {}, run_at=slot, idempotency_key=key)


SCHEDULES = (
    Schedule("monitor_orders", timedelta(minutes=5)),
    Schedule("sync_positions", timedelta(hours=1)),
    Schedule("aggregate", timedelta(minutes=15)),
    Schedule("reconcile_stripe", timedelta(days=1)),
    Schedule("subscription_renewal", timedelta(hours=1)),
    Schedule("prune", timedelta(hours=1)),
)


class Scheduler:
    """Runs the thread and sends out what it finds due. One per process; `run` once."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        *,
        tempo: Tempo,
        emit: Emit,
        schedules: Sequence[Schedule] = SCHEDULES,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._registry = registry
        self._tempo = tempo
        self._emit = emit
        self._schedules = schedules
        self._now = now
        self._due = {one: asyncio.Queue[datetime]() for one in schedules}
        self._refused: dict[Schedule, str] = {}
        self._round_at = time.monotonic()
        self._failure: BaseException | None = None

    @property
    def problem(self) -> str | None:
        """Why the periodic jobs are not being inserted, or None while all is well."""
        if self._failure is not None:
            return f"the scheduler thread died ({type(self._failure).__name__})"
        behind = time.monotonic() - self._round_at
        if behind > _BEHIND_SECONDS:
            return f"the scheduler thread has been still for {behind:.0f} s"
        refused = [f"{one.type} ({why})" for one, why in self._refused.items()]
        return f"schedules that the database does not take: {', '.join(refused)}" if refused else None

    async def run(self) -> None:
        """Until cancelled; the thread ends with it."""
        for one in self._schedules:
            if (one.queue, one.type) not in self._registry.handlers:
                self._emit(SlotWithoutHandler(one.type, one.queue))
        stop = threading.Event()
        loop = asyncio.get_running_loop()
        thread = threading.Thread(target=self._watch, args=(loop, stop), name="scheduler", daemon=True)
        thread.start()
        try:
            async with asyncio.TaskGroup() as group:
                for one in self._schedules:
                    group.create_task(self._follow(one), name=f"schedule {one.type}")
        finally:
            stop.set()
            thread.join(timeout=_ROUND_SECONDS * 4)

    def _watch(self, loop: asyncio.AbstractEventLoop, stop: threading.Event) -> None:
        """The thread: looks which slots are due and hands them to the loop."""
        try:
            clock = schedule.Scheduler()
            sent: dict[Schedule, datetime] = {}

            def look(one: Schedule) -> None:
                slot = one.slot(self._now())
                if sent.get(one) != slot:
                    sent[one] = slot
                    with suppress(RuntimeError):  # the loop has closed: the process is ending
                        loop.call_soon_threadsafe(self._due[one].put_nowait, slot)

            for one in self._schedules:
                look(one)
                clock.every(1).seconds.do(look, one)  # pyright: ignore[reportUnknownMemberType] - the library is half typed
            while not stop.wait(_ROUND_SECONDS):
                # Not run_pending: the library goes by the local clock, which in autumn has an hour twice and would
                # stand still in it. `look` is what decides, by UTC.
                clock.run_all()
                self._round_at = time.monotonic()
        except BaseException as error:  # noqa: BLE001 - a thread that dies unseen would be a silent stop
            self._failure = error
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._emit, Swallowed("scheduler thread", error))

    async def _follow(self, one: Schedule) -> None:
        while True:
            await self._insert(one, await self._due[one].get())

    async def _insert(self, one: Schedule, slot: datetime) -> None:
        """Enqueues one slot's job, asking until it is answered: a slot that could be skipped would be no schedule."""
        job = one.job(slot)
        pause = self._tempo.reconnect
        began = time.monotonic()
        while True:
            try:
                (enqueued,) = await self._store.enqueue([job])
            except StoreError as error:
                if isinstance(error, StoreRefused):
                    self._refused[one] = str(error)
                self._emit(Unavailable(f"schedule {one.type}", str(error), pause))
                await asyncio.sleep(pause.total_seconds())
                pause = min(pause * 2, self._tempo.reconnect * 10)
            else:
                self._refused.pop(one, None)
                if pause > self._tempo.reconnect:
                    away = timedelta(seconds=time.monotonic() - began)
                    self._emit(Available(f"schedule {one.type}", away))
                self._emit(SlotInserted(one.type, str(job.idempotency_key), *enqueued))
                return
