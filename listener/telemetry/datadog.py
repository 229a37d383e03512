"""Sends numbers to Datadog without an agent: one request of its HTTP API (POST /api/v2/series) for all of them.

Counters go as what was added since the last request that was taken, so an outage of Datadog's costs no count and no
memory: what it did not take goes with the next. Of a histogram go how many values there were, their mean, and the value
below which 95 % of them lie, as far as the buckets tell.
"""

import socket
import time
from collections.abc import Iterator
from datetime import timedelta

import aiohttp

from listener.destinations import Datadog
from listener.errors import PulseError
from listener.telemetry.catalogue import Kind, Metric
from listener.telemetry.counts import Buckets, Labels, Numbers
from listener.telemetry.statsd import tags

_PATH = "/api/v2/series"
_TIMEOUT = aiohttp.ClientTimeout(total=5, connect=3)
_COUNT, _GAUGE = 1, 3
_SLOW = 0.95
_REFUSED = {401, 403}


class DatadogApi:
    """One account. `send` is for one task."""

    name = "Datadog"

    def __init__(self, to: Datadog, session: aiohttp.ClientSession, every: timedelta) -> None:
        self._to = to
        self._session = session
        self._every = every
        self._host = socket.gethostname()
        self._taken: Numbers | None = None

    async def send(self, numbers: Numbers) -> None:
        """Everything since the last time. Raises PulseError when it was not taken."""
        said = {"series": list(self._series(numbers))}
        try:
            async with self._session.post(
                f"{self._to.base}{_PATH}",
                json=said,
                headers={"DD-API-KEY": self._to.key},
                timeout=_TIMEOUT,
                allow_redirects=False,  # the key is for nobody else
            ) as answer:
                await answer.release()
        except TimeoutError:
            raise PulseError(f"no answer within {_TIMEOUT.total:.0f} s") from None
        except aiohttp.ClientError as error:
            raise PulseError(f"no connection ({type(error).__name__})") from None
        if answer.status in _REFUSED:
            raise PulseError(
                f"HTTP {answer.status}: DATADOG_API_KEY is refused; is it a key of this DATADOG_SITE?"
            )
        if answer.status >= 300:
            raise PulseError(f"HTTP {answer.status}")
        self._taken = numbers

    def close(self) -> None:
        """Nothing is held: the session is somebody else's."""

    def _series(self, numbers: Numbers) -> Iterator[dict[str, object]]:
        now = int(time.time())
        taken = self._taken or Numbers({}, {})

        def one(metric: Metric, labels: Labels, kind: int, value: float, part: str = "") -> dict[str, object]:
            return {
                "metric": f"{metric.dotted}{part}",
                "type": kind,
                "interval": max(1, round(self._every.total_seconds())),
                "points": [{"timestamp": now, "value": value}],
                "tags": tags(metric, labels),
                "resources": [{"name": self._host, "type": "host"}],
            }

        for metric, series in numbers.values.items():
            before = taken.values.get(metric, {})
            for labels, value in series.items():
                if metric.kind is Kind.GAUGE:
                    yield one(metric, labels, _GAUGE, value)
                elif added := value - before.get(labels, 0.0):
                    yield one(metric, labels, _COUNT, added)
        for metric, parts in numbers.histograms.items():
            for labels, all_of_it in parts.items():
                buckets = all_of_it.since(taken.histograms.get(metric, {}).get(labels))
                if count := buckets.count:
                    yield one(metric, labels, _COUNT, count, ".count")
                    yield one(metric, labels, _GAUGE, buckets.sum / count, ".avg")
                    yield one(metric, labels, _GAUGE, below(metric, buckets, _SLOW), ".95percentile")


def below(metric: Metric, buckets: Buckets, share: float) -> float:
    """The value below which that share of the values lies, if they lie evenly within their buckets."""
    rank = share * buckets.count
    lower = 0.0
    for bound, count in zip(metric.bounds, buckets.counts, strict=False):
        if rank <= count and count:
            return lower + (bound - lower) * rank / count
        rank -= count
        lower = bound
    return lower
