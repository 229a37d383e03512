"""Sends what attempts say of their progress: of all of a process in one call, at most once per second.

What is said in between is overwritten by what is said later. The last word of an attempt goes out before its outcome
is sent, in a call of its own if it has to (`last_words`). Progress is a hint: when the database is away, or does not
know the function, nothing waits for it and no attempt fails.
"""

import asyncio
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import cast

from listener.errors import StoreError, StoreRefused, StoreUnavailable
from listener.events import Available, Emit, Unavailable
from listener.jobs import AttemptRef
from listener.progress import Report
from listener.store import Store

_WHOSE = "progress"
_LAST_WORDS_SECONDS = 2.0
_MOST_TRIES = 3
_AT_ONCE = 500


class Reporter:
    """Where the progress of all attempts of a process gathers."""

    def __init__(self, store: Store, pause: timedelta, emit: Emit) -> None:
        self._store = store
        self._pause = pause
        self._emit = emit
        self._unsent: dict[AttemptRef, Report] = {}
        self._something = asyncio.Event()
        self._one_call = asyncio.Lock()
        """An older word must not overtake a newer one."""
        self._on_its_way: set[AttemptRef] = set()
        self._away_since: float | None = None

    def tell(self, report: Report) -> None:
        """Takes note of what an attempt says; what it said before is past."""
        self._unsent[report.ref] = report
        self._something.set()

    async def run(self) -> None:
        """Sends until cancelled."""
        while True:
            await self._something.wait()
            self._something.clear()
            if await self._send(list(self._unsent)):
                self._something.set()
            await asyncio.sleep(self._pause.total_seconds())

    async def last_words(self, refs: Iterable[AttemptRef]) -> None:
        """Before the outcomes of these are sent: what they have said and nobody has sent, as far as it can be."""
        ended = [ref for ref in refs if ref in self._unsent or ref in self._on_its_way]
        if not ended:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                for _ in range(_MOST_TRIES):
                    if not await self._send(ended):
                        break
        for ref in ended:
            self._unsent.pop(ref, None)

    async def _send(self, refs: Sequence[AttemptRef]) -> bool:
        """Answers whether to call again for these: somebody had locked a row, or they were too many."""
        async with self._one_call:
            reports = [self._unsent.pop(ref) for ref in refs if ref in self._unsent][:_AT_ONCE]
            if not reports:
                return False
            self._on_its_way = {report.ref for report in reports}
            try:
                said = [{**one.ref._asdict(), "progress": one.progress} for one in reports]
                answer = await self._store.ask("report_progress", {"reports": said})
            except StoreRefused as error:
                self._not_answered(error)
                return False
            except StoreUnavailable as error:
                self._not_answered(error)
                self._keep(reports)
                return False
            finally:
                self._on_its_way = set()
            self._answered()
            locked = cast("dict[str, list[list[int]]]", answer)["again"]
            self._keep(one for one in reports if [one.ref.id, one.ref.attempt] in locked)
            return any(ref in self._unsent for ref in refs)

    def _keep(self, reports: Iterable[Report]) -> None:
        """For the next call, unless something newer has been said meanwhile."""
        for report in reports:
            self._unsent.setdefault(report.ref, report)
            self._something.set()

    def _not_answered(self, error: StoreError) -> None:
        if self._away_since is None:  # told once: the calls that matter tell of the rest
            self._away_since = time.monotonic()
            self._emit(Unavailable(_WHOSE, str(error), self._pause))

    def _answered(self) -> None:
        if self._away_since is not None:
            self._emit(Available(_WHOSE, timedelta(seconds=time.monotonic() - self._away_since)))
            self._away_since = None
