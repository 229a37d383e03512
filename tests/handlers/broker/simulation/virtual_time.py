"""Time of one simulated run: it stands still while anybody works, and jumps when all of them wait."""

import asyncio
import heapq
import itertools
from collections.abc import Coroutine
from contextvars import ContextVar


class Time:
    """Of those that wait, one is woken at a time: the run takes the same course each time."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self.now = 0.0
        self._group = group
        self._turns = itertools.count()
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self._at_work = 0

    def start(self, work: Coroutine[None, None, None]) -> None:
        """Runs it beside the others."""
        self._at_work += 1
        self._group.create_task(self._run(work))

    async def _run(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        finally:
            self._at_work -= 1
            self._go_on()

    async def sleep(self, seconds: float) -> None:
        turn = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (self.now + seconds, next(self._turns), turn))
        self._at_work -= 1
        self._go_on()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._at_work += 1
            raise

    def _go_on(self) -> None:
        while not self._at_work and self._waiting:
            at, _, turn = heapq.heappop(self._waiting)
            if not turn.done():
                self.now = at
                self._at_work += 1
                turn.set_result(None)


TIME: ContextVar[Time] = ContextVar("TIME")
"""Of the run that this task belongs to."""


class Clock:
    """What `time` is to the handler."""

    @staticmethod
    def monotonic() -> float:
        return TIME.get().now
