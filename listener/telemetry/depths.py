"""Knows how the queues are: asks the database when somebody wants to know, seldom, and by one at a time.

A scrape must not cost the database more the more often it comes, and must not wait for a database that does not answer:
then nothing is known, and nothing is what is told.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

from listener.errors import StoreError
from listener.events import Available, Emit, Unavailable
from listener.store import Store
from listener.telemetry.catalogue import DEAD, DUE, HELD, OLDEST, PAUSED, RUNNING
from listener.telemetry.counts import Numbers

KNOWN_FOR = timedelta(seconds=15)
_PATIENCE_SECONDS = 2.0
_CALL = "queue ages"


@dataclass(frozen=True, slots=True)
class Depth:
    """How a queue is, as `queue_ages` in `sql/` tells it."""

    due: int
    oldest_seconds: float
    held: int
    paused: bool
    running: int
    dead: int


class Depths:
    """One per process; for one event loop."""

    def __init__(self, store: Store, emit: Emit, known_for: timedelta = KNOWN_FOR) -> None:
        self._store = store
        self._emit = emit
        self._known_for = known_for
        self._asking = asyncio.Lock()
        self._asked_at: float | None = None
        self._away_since: float | None = None
        self._known: Mapping[str, Depth] = {}

    async def tell(self, numbers: Numbers) -> None:
        """Adds what is known to the numbers of this moment."""
        for queue, depth in (await self.known()).items():
            numbers.values[DUE][queue,] = depth.due
            numbers.values[OLDEST][queue,] = depth.oldest_seconds
            numbers.values[HELD][queue,] = depth.held
            numbers.values[PAUSED][queue,] = depth.paused
            numbers.values[RUNNING][queue,] = depth.running
            numbers.values[DEAD][queue,] = depth.dead

    async def known(self) -> Mapping[str, Depth]:
        """By queue, as they were some seconds ago; empty while the database does not say."""
        async with self._asking:
            now = time.monotonic()
            if self._asked_at is None or now - self._asked_at >= self._known_for.total_seconds():
                self._asked_at = now
                self._known = await self._ask()
            return self._known

    async def _ask(self) -> Mapping[str, Depth]:
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                known = _read(await self._store.ask("queue_ages", {}))
        except (StoreError, TimeoutError, KeyError, TypeError, ValueError, AttributeError) as error:
            reason = str(error) if isinstance(error, StoreError) else "an answer that cannot be read"
            if isinstance(error, TimeoutError):
                reason = f"no answer within {_PATIENCE_SECONDS:g} s"
            self._away_since = self._away_since or time.monotonic()
            self._emit(Unavailable(_CALL, reason, self._known_for))
            return {}
        if self._away_since is not None:
            self._emit(Available(_CALL, timedelta(seconds=time.monotonic() - self._away_since)))
            self._away_since = None
        return known


def _read(answer: object) -> dict[str, Depth]:
    told = cast("dict[str, dict[str, Any]]", answer)
    return {
        queue: Depth(
            due=int(one["due"]),
            oldest_seconds=float(one["oldest_seconds"]),
            held=int(one["held"]),
            paused=bool(one["paused"]),
            running=int(one["running"]),
            dead=int(one["dead"]),
        )
        for queue, one in told.items()
    }
