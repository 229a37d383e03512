"""Turns the slots of schedules into jobs: one row per slot, however many processes run this.

The schedules are rows of the database, and its clock alone says what time it is: a wrong clock of this machine
changes nothing. A thread of its own (built on `schedule`) decides when to look and reckons which slots have come, which
may take a while for a thousand schedules; the event loop asks and tells the database.

    thread                                    event loop
    schedule.run_all() at least every 0.5 s
      ├─ time to look ── call_soon_threadsafe ──▶  due_schedules
      └─ slots are reckoned ◀── what is due ─────  and then
                           ── what to run ──────▶  run_slots, and look again at once

It is time to look when the next slot is due, and every few seconds, since operators change rows. Whatever fails in
between, the rows are as they were or done with: the next look finds out. The thread notes each of its rounds; one that
stopped or fell behind makes the process not ready, by name.
"""

import asyncio
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from queue import SimpleQueue

import schedule

from listener.config import Tempo
from listener.errors import StoreError, StoreRefused
from listener.events import (
    Available,
    Emit,
    ScheduleRefused,
    SlotInserted,
    SlotsLeftOut,
    SlotWithoutHandler,
    Swallowed,
    Unavailable,
)
from listener.registry import Registry
from listener.slots import Asks, Due, Look, Turn, declare, look, reckon, run

_ROUND_SECONDS = 0.5
_BEHIND_SECONDS = 30.0
_DECLARE_SECONDS = 600.0
_BEATEN_SECONDS = 0.1
"""Up to three times as long is waited when other processes had everything that was due."""

Reckoned = list[dict[str, object]]


class Timekeeper:
    """The thread: says when to look, and reckons slots. Safe to be told things from the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, time_to_look: Callable[[], None], emit: Emit) -> None:
        self._loop = loop
        self._time_to_look = time_to_look
        self._emit = emit
        self._look_at = time.monotonic()
        self._round_at = time.monotonic()
        self._failure: BaseException | None = None
        self._given: SimpleQueue[tuple[Look, asyncio.Future[Reckoned]]] = SimpleQueue()
        self._woken = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._keep_time, name="scheduler", daemon=True)

    @property
    def problem(self) -> str | None:
        """Why nobody says any more when to look."""
        if self._failure is not None:
            return f"the scheduler thread died ({type(self._failure).__name__})"
        behind = time.monotonic() - self._round_at
        return f"the scheduler thread has been still for {behind:.0f} s" if behind > _BEHIND_SECONDS else None

    def start(self) -> None:
        """Begins; the first look is at once."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread, and waits for it as long as a process that ends can."""
        self._stopped = True
        self._woken.set()
        self._thread.join(timeout=_ROUND_SECONDS * 4)

    def look_in(self, seconds: float) -> None:
        """When the next look shall be."""
        self._look_at = time.monotonic() + seconds
        self._woken.set()

    async def reckoned(self, found: Look) -> Reckoned:
        """What is to be run of what was found due."""
        answer: asyncio.Future[Reckoned] = self._loop.create_future()
        self._given.put((found, answer))
        self._woken.set()
        return await answer

    def _keep_time(self) -> None:
        try:
            clock = schedule.Scheduler()
            # Not run_pending: the library goes by the local clock, which in autumn has an hour twice and would stand
            # still in it. The monotonic clock is what decides.
            clock.every(1).seconds.do(self._round)  # pyright: ignore[reportUnknownMemberType] - the library is half typed
            while not self._stopped:
                clock.run_all()
                self._round_at = time.monotonic()
                self._woken.wait(min(_ROUND_SECONDS, max(self._look_at - time.monotonic(), 0)))
                self._woken.clear()
        except BaseException as error:  # noqa: BLE001 - a thread that dies unseen would be a silent stop
            self._failure = error
            self._call(self._emit, Swallowed("scheduler thread", error))

    def _round(self) -> None:
        while not self._given.empty():
            found, answer = self._given.get()
            self._call(_answer, answer, reckon(found.due, found.now))
        if time.monotonic() >= self._look_at:
            self._look_at = float("inf")  # until the look is done, and says when the next one is
            self._call(self._time_to_look)

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        with suppress(RuntimeError):  # the loop has closed: the process is ending
            self._loop.call_soon_threadsafe(function, *arguments)


def _answer(future: asyncio.Future[Reckoned], answer: Reckoned) -> None:
    if not future.done():
        future.set_result(answer)


class Scheduler:
    """Runs the thread and talks with the database. One per process; `run` once."""

    def __init__(self, store: Asks, registry: Registry, *, tempo: Tempo, emit: Emit) -> None:
        self._store = store
        self._registry = registry
        self._tempo = tempo
        self._emit = emit
        self._words: Mapping[str, dict[str, object]] = {one.name: one.words for one in registry.schedules}
        self._declare_at = 0.0
        self._time_to_look = asyncio.Event()
        self._thread: Timekeeper | None = None
        self._refused: str | None = None
        self._told: set[str] = set()

    @property
    def problem(self) -> str | None:
        """Why the periodic jobs are not being inserted, or None while all is well."""
        still = None if self._thread is None else self._thread.problem
        return still or (
            self._refused and f"the database refuses to tell which schedules are due ({self._refused})"
        )

    async def run(self) -> None:
        """Until cancelled; the thread ends with it."""
        self._thread = Timekeeper(asyncio.get_running_loop(), self._time_to_look.set, self._emit)
        self._thread.start()
        try:
            while True:
                await self._time_to_look.wait()
                self._time_to_look.clear()
                self._thread.look_in(await self._looked(self._thread))
        finally:
            self._thread.stop()

    async def _looked(self, thread: Timekeeper) -> float:
        """One look with all that follows from it, begun anew until it is answered; in how many seconds the next is."""
        pause = self._tempo.reconnect
        began = time.monotonic()
        while True:
            try:
                wait = await self._turn(thread)
            except StoreError as error:
                self._refused = str(error) if isinstance(error, StoreRefused) else None
                self._emit(Unavailable("schedules", str(error), pause))
                await asyncio.sleep(pause.total_seconds())
                pause = min(pause * 2, self._tempo.reconnect * 10)
            else:
                self._refused = None
                if pause > self._tempo.reconnect:
                    self._emit(Available("schedules", timedelta(seconds=time.monotonic() - began)))
                return wait

    async def _turn(self, thread: Timekeeper) -> float:
        if self._words and time.monotonic() >= self._declare_at:
            await self._declare()
        found = await look(self._store)
        self._tell_undeclared(found.undeclared)
        if not found.due:
            longest = self._tempo.sweep.total_seconds()
            return longest if found.next_in is None else min(longest, found.next_in.total_seconds())
        reckoned = await thread.reckoned(found)
        turns = await run(self._store, reckoned)
        due = {one.name: one for one in found.due}
        for turn in turns:
            if not turn.moved:
                self._tell(turn, due[turn.name])
        # All was somebody else's, who may be at it just now.
        beaten = all(turn.moved for turn in turns)
        return _BEATEN_SECONDS * random.uniform(1, 3) if beaten else 0.0

    def _tell(self, turn: Turn, due: Due) -> None:
        if turn.refused is not None:
            self._emit(ScheduleRefused(turn.name, turn.refused))
            return
        if turn.left_out:
            self._emit(SlotsLeftOut(turn.name, turn.left_out))
        for key, job_id, created in turn.jobs:
            self._emit(SlotInserted(turn.name, key, job_id, created))
        if turn.jobs:
            self._tell_unserved(due)

    async def _declare(self) -> None:
        refused, again = await declare(self._store, list(self._words.values()))
        self._declare_at = 0.0 if again else time.monotonic() + _DECLARE_SECONDS
        for name, why in refused:
            self._emit(ScheduleRefused(name, why))

    def _tell_undeclared(self, names: Sequence[str]) -> None:
        """Those of ours are declared at once; the database's clock may have jumped. Of others it is told once."""
        if not self._words.keys().isdisjoint(names):
            self._declare_at = 0.0
        for name in names:
            if name not in self._words and name not in self._told:
                self._told.add(name)
                self._emit(
                    ScheduleRefused(
                        name,
                        "no process has declared it for a day, so it has no more slots;"
                        " delete its row if it is not wanted any more",
                    )
                )

    def _tell_unserved(self, due: Due) -> None:
        """Once: the type of a schedule has no handler in this process, which serves its queue."""
        served = due.queue in self._registry.queues
        if served and due.name not in self._told and (due.queue, due.type) not in self._registry.handlers:
            self._told.add(due.name)
            self._emit(SlotWithoutHandler(due.type, due.queue))
