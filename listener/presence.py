"""Says every 15 s how this process is, for people who look at the table `workers`; nothing in the queue depends on it.

A task of its own beside the leases, so that a slow answer holds up nothing else. Whatever becomes of a word, the next
one follows in its time; that none gets through is told once, and once more when one does. The last word says when the
process will be gone: after it nobody is asked any more.
"""

import asyncio
import random
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, version

from listener.errors import StoreError
from listener.events import Available, Emit, Swallowed, Unavailable
from listener.redaction import Redactor
from listener.store import Store

_MOST_PROBLEMS = 10
_LONGEST_PROBLEM = 300


def _version() -> str:
    try:
        return version("pulseengine-workers")
    except PackageNotFoundError:  # run from its sources
        return "unknown"


_VERSION = _version()


@dataclass(frozen=True, slots=True)
class State:
    """How the process is at this moment."""

    running: int
    deaf_for: timedelta | None
    """None: it hears."""
    problems: Sequence[str]


class Presence:
    """Tells of one process. `run` until cancelled, or until its last word is said."""

    def __init__(
        self,
        store: Store,
        *,
        types: Mapping[str, Sequence[str]],
        places: int,
        state: Callable[[], State],
        every: timedelta,
        redactor: Redactor,
        emit: Emit,
    ) -> None:
        """`types` by queue: what the process runs. `places`: how many jobs of each queue at once."""
        self._store = store
        self._types = types
        self._places = places
        self._state = state
        self._every = every.total_seconds()
        self._redactor = redactor
        self._emit = emit
        self._began = time.monotonic()
        self._leaves_at: float | None = None
        self._leaving = asyncio.Event()
        self._away_since: float | None = None

    def leave(self, within: timedelta) -> None:
        """The next word is the last one, and said now: the process will be gone by then."""
        self._leaves_at = time.monotonic() + within.total_seconds()
        self._leaving.set()

    async def run(self) -> None:
        """A word, a pause, a word …"""
        while True:
            is_last = self._leaving.is_set()
            await self._tell()
            if is_last:
                return
            with suppress(TimeoutError):
                # Never sooner, and spread: many processes start in the same moment.
                async with asyncio.timeout(self._every * random.uniform(1.0, 1.2)):
                    await self._leaving.wait()

    async def _tell(self) -> None:
        try:
            await self._store.tell_worker(self._words())
        except StoreError as error:
            if self._away_since is None:
                self._away_since = time.monotonic()
                self._emit(Unavailable("presence", str(error), timedelta(seconds=self._every)))
            return
        except Exception as error:  # noqa: BLE001 - a mistake in here must not end the process
            self._emit(Swallowed("presence", error))
            return
        if self._away_since is not None:
            self._emit(Available("presence", timedelta(seconds=time.monotonic() - self._away_since)))
            self._away_since = None

    def _words(self) -> dict[str, object]:
        state, now = self._state(), time.monotonic()
        return {
            "worker_id": self._store.worker_id,
            "host": socket.gethostname(),
            "version": _VERSION,
            "queues": list(self._types),
            "types": self._types,
            "places": self._places,
            "running": state.running,
            "deaf_seconds": None if state.deaf_for is None else state.deaf_for.total_seconds(),
            "problems": [
                self._redactor.text(problem)[:_LONGEST_PROBLEM] for problem in state.problems[:_MOST_PROBLEMS]
            ],
            "up_seconds": now - self._began,
            "clock": datetime.now(UTC),
            "leaves_in_seconds": None if self._leaves_at is None else max(0.0, self._leaves_at - now),
        }
