"""Sends this process's numbers and spans to where it was told to, beside the work and never in its way.

Each exporter has a task of its own: one that is slow or broken holds up neither the others nor a job, is told once per
trouble, and tries again. What an outage of it costs is bounded: numbers are sums, so what was not delivered is in the
next delivery. At the end of the process each gets a moment for its last words.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Protocol, TypeAlias

import aiohttp

from listener.destinations import Destinations
from listener.errors import PulseError
from listener.events import Emit, Exported, NotExported
from listener.metrics import Metrics
from listener.telemetry.counts import Counts, Numbers
from listener.telemetry.datadog import DatadogApi
from listener.telemetry.statsd import Statsd

_PATIENCE_SECONDS = 8.0
_LAST_WORDS = timedelta(seconds=0.8)
Read: TypeAlias = Callable[[], Awaitable[Numbers]]


class Exporter(Protocol):
    """Somebody who wants the numbers every few seconds."""

    name: str

    async def send(self, numbers: Numbers) -> None:
        """Delivers them. Raises PulseError when that did not succeed."""
        ...

    def close(self) -> None:
        """Lets go of what it holds."""
        ...


class Exports:
    """All exporters of one process. `run` ends when `end` was called and each has had its last word."""

    def __init__(self, exporters: Sequence[Exporter], read: Read, every: timedelta, emit: Emit) -> None:
        self._exporters = exporters
        self._read = read
        self._every = every
        self._emit = emit
        self._over = asyncio.Event()

    async def run(self) -> None:
        """Delivers every few seconds, and once more at the end."""
        async with asyncio.TaskGroup() as group:
            for one in self._exporters:
                serving = _serve(one, self._read, self._every, self._over, self._emit)
                group.create_task(serving, name=f"export to {one.name}")

    def end(self) -> None:
        """There is nothing more to come."""
        self._over.set()


@asynccontextmanager
async def open_exports(
    to: Destinations, counts: Counts, read: Read, every: timedelta, worker_id: str, metrics: Metrics
) -> AsyncIterator[Exports]:
    """The exporters of these destinations; without any they cost nothing."""
    async with AsyncExitStack() as stack:
        exporters: list[Exporter] = []
        if to.statsd is not None:
            statsd = Statsd(*to.statsd)
            counts.tap(statsd.measured)
            exporters.append(statsd)
        if to.datadog is not None:
            session = await stack.enter_async_context(aiohttp.ClientSession())
            exporters.append(DatadogApi(to.datadog, session, every))
        if to.traces:
            from listener.telemetry.spans import Spans  # which not everybody has installed

            spans = Spans(worker_id, metrics)
            metrics.listen(spans)
            stack.push_async_callback(spans.close, _LAST_WORDS)
        for one in exporters:
            stack.callback(one.close)
        yield Exports(exporters, read, every, metrics)


async def _serve(exporter: Exporter, read: Read, every: timedelta, over: asyncio.Event, emit: Emit) -> None:
    """Delivers again and again, and once more at the end."""
    away_since: float | None = None
    while True:
        is_last = await _rung(over, every)
        patience = _LAST_WORDS.total_seconds() if is_last else _PATIENCE_SECONDS
        try:
            async with asyncio.timeout(patience):
                await exporter.send(await read())
        except Exception as error:  # noqa: BLE001 - a mistake in an exporter is none of the work's
            away_since = away_since or time.monotonic()
            emit(NotExported(exporter.name, _reason(error, patience), every))
        else:
            if away_since is not None:
                emit(Exported(exporter.name, timedelta(seconds=time.monotonic() - away_since)))
                away_since = None
        if is_last:
            return


def _reason(error: Exception, patience: float) -> str:
    """In words; of what is not ours only the kind, since its text may quote what was sent."""
    if isinstance(error, PulseError):
        return str(error)
    return f"not within {patience:g} s" if isinstance(error, TimeoutError) else type(error).__name__


async def _rung(event: asyncio.Event, timeout: timedelta) -> bool:
    try:
        async with asyncio.timeout(timeout.total_seconds()):
            await event.wait()
    except TimeoutError:
        return False
    return True
