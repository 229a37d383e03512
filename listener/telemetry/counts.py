"""Turns the facts of `events.py` into numbers, and holds them for whoever exports them.

What happened is counted here, as it happens. What is so at a moment (places, the length of a queue) is looked at when
somebody asks: `service.py` adds it to what `read` gives.

Facts may come from any thread, and one may interrupt another in the same thread: Python tells of a broken thrown-away
object wherever it happens to be. Hence the lock, and hence one that its own thread may take twice.
"""

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeAlias

from listener import events as e
from listener.keyring import KeyRefused, KeyTaken
from listener.outcomes import Answer, Cancel, Completed, Dead, Outcome, Recorded, Retry, Snooze
from listener.telemetry import catalogue as c
from listener.telemetry.catalogue import METRICS, OTHER, Kind, Metric, Status

Labels: TypeAlias = tuple[str, ...]
"""The values of a metric's labels, in their order."""
# More than the handlers of one process have types would be a mistake of ours, and must not fill the memory.
_MOST_SERIES = 2_000


class Buckets:
    """The numbers of a histogram with one set of labels."""

    __slots__ = ("counts", "sum")

    def __init__(self, bounds: int) -> None:
        self.counts = [0] * (bounds + 1)
        """How many values lie above the bound before and at most at this one; the last has no bound."""
        self.sum = 0.0

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.counts)

    def copy(self) -> "Buckets":
        """As they are now."""
        twin = Buckets(0)
        twin.counts, twin.sum = list(self.counts), self.sum
        return twin

    def since(self, before: "Buckets | None") -> "Buckets":
        """What has been added since then."""
        twin = self.copy()
        if before is not None:
            twin.counts = [now - then for now, then in zip(self.counts, before.counts, strict=True)]
            twin.sum -= before.sum
        return twin


@dataclass(frozen=True, slots=True)
class Numbers:
    """All numbers of one moment."""

    values: Mapping[Metric, dict[Labels, float]]
    """Of counters and gauges."""
    histograms: Mapping[Metric, dict[Labels, Buckets]]


Tap: TypeAlias = Callable[[Metric, Labels, float], None]
"""Hears each value that a histogram is made of. Never raises and never blocks."""


class Counts:
    """Receives every fact and counts it."""

    def __init__(self, types: Mapping[str, Collection[str]]) -> None:
        """`types`: the queues that this process knows, and the job types of each."""
        self._types = {queue: frozenset(known) for queue, known in types.items()}
        self._values: dict[Metric, dict[Labels, float]] = {
            metric: {} for metric in METRICS.values() if metric.kind is not Kind.HISTOGRAM
        }
        self._histograms: dict[Metric, dict[Labels, Buckets]] = {
            metric: {} for metric in METRICS.values() if metric.kind is Kind.HISTOGRAM
        }
        self._taps: list[Tap] = []
        self._lock = threading.RLock()
        self._deaf_since: float | None = None
        self._of: dict[type, Callable[[Any], None]] = {
            e.Finished: self._finished,
            e.Called: self._called,
            e.Claimed: self._claimed,
            e.LoopAnswered: self._loop_answered,
            e.Started: self._started,
            e.Hearing: self._hearing,
            e.Deaf: self._deaf,
            e.MissedWakeup: lambda event: self._add(c.MISSED, self._queue(event.queue), event.count),
            e.AttemptsLost: self._attempts_lost,
            e.AttemptStopped: lambda event: self._add(
                c.STOPPED, (*self._queue(event.job.queue), str(event.why))
            ),
            e.UnknownTypes: lambda event: self._set(
                c.STRANGE, self._queue(event.queue), sum(event.counts.values())
            ),
            e.Recovered: lambda event: self._add(c.RECOVERED, (), event.count),
            e.SlotInserted: lambda _: self._add(c.SLOTS, ()),
            e.SlotsLeftOut: lambda event: self._add(c.LEFT_OUT, (), event.count),
            e.ScheduleRefused: lambda _: self._add(c.REFUSED, ()),
            KeyRefused: lambda _: self._add(c.KEYS_REFUSED, ()),
            KeyTaken: lambda _: self._add(c.KEYS_TAKEN, ()),
            e.Swallowed: lambda _: self._add(c.SURVIVED, ()),
            e.StoodStill: lambda _: self._add(c.STANDSTILLS, ()),
            e.NotExported: lambda event: self._add(c.UNDELIVERED, (event.exporter,)),
        }
        self._begin_at_zero()

    def __call__(self, event: e.Event) -> None:
        """Counts the fact, if it is one that is counted."""
        count = self._of.get(type(event))
        if count is not None:
            with self._lock:
                count(event)

    def tap(self, tap: Tap) -> None:
        """From now on this one hears each measured value."""
        self._taps.append(tap)

    def read(self) -> Numbers:
        """What has been counted so far; the reader's own."""
        with self._lock:
            values = {metric: dict(series) for metric, series in self._values.items()}
            histograms = {
                metric: {labels: buckets.copy() for labels, buckets in series.items()}
                for metric, series in self._histograms.items()
            }
            values[c.DEAF][()] += self._silence()
        return Numbers(values, histograms)

    def totals(self) -> dict[str, int]:
        """The counters in short, for people: attempts by their status, all else by name; without those at zero."""
        short: dict[str, int] = {}
        for metric, series in self.read().values.items():
            if metric.kind is Kind.COUNTER:
                name = metric.name.removeprefix("pulse_").removesuffix("_total")
                for labels, value in series.items():
                    word = labels[-1] if metric is c.PROCESSED else name
                    short[word] = short.get(word, 0) + int(value)
        return {word: total for word, total in short.items() if total}

    # -- what each fact counts for ---------------------------------------------------------------------------------

    def _finished(self, event: e.Finished) -> None:
        ended = event.ended
        queue, type_ = ended.ref.queue, ended.type
        known = self._types.get(queue)
        labels = (OTHER, OTHER) if known is None else (queue, type_ if type_ in known else OTHER)
        status = _status(event.outcome, event.recorded)
        self._add(c.PROCESSED, (*labels, status.value))
        self._observe(c.DURATION, labels, ended.duration)
        if status is Status.STALE:
            self._add(c.STALE, labels[:1])
        elif status is Status.FAILURE:
            self._add(c.GIVEN_UP, labels[:1])

    def _called(self, event: e.Called) -> None:
        self._observe(c.CALL, (event.call,), event.took)
        self._add(c.CALLS, (event.call, event.answer))

    def _claimed(self, event: e.Claimed) -> None:
        queue = self._queue(event.queue)
        labels = (*queue, event.woken_by.value)
        self._add(c.WAKEUPS, labels)
        self._add(c.CLAIMED, labels, event.count)
        if event.jobs:
            due = [max(job.run_at, job.created_at) for job in event.jobs]
            claimed_at = min(due) + event.waited  # by the database's clock, as both are
            for at in due:
                self._observe(c.LAG, queue, claimed_at - at)

    def _loop_answered(self, event: e.LoopAnswered) -> None:
        self._observe(c.LOOP, (), event.after)

    def _started(self, event: e.Started) -> None:
        if event.queues:  # a process that is a door only listens to nothing
            self._begin_silence()

    def _hearing(self, event: e.Hearing) -> None:
        # Never less than what was read a moment ago: a counter does not fall.
        self._add(c.DEAF, (), max(event.deaf_for.total_seconds(), self._silence()))
        self._deaf_since = None
        self._set(c.HEARING, (), 1.0)

    def _deaf(self, _: e.Deaf) -> None:
        self._add(c.DEAFENED, ())
        self._begin_silence()

    def _begin_silence(self) -> None:
        self._set(c.HEARING, (), 0.0)
        if self._deaf_since is None:
            self._deaf_since = time.monotonic()

    def _attempts_lost(self, event: e.AttemptsLost) -> None:
        queue = self._queue(event.queue)
        self._add(c.LOST, queue, event.retried + event.dead)
        self._add(c.GIVEN_UP, queue, event.dead)

    # -- how it is kept --------------------------------------------------------------------------------------------

    def _begin_at_zero(self) -> None:
        """A counter that appears with its first event looks to Prometheus as if nothing had happened."""
        for metric in (c.GIVEN_UP, c.STALE, c.LOST, c.MISSED):
            for queue in self._types:
                self._set(metric, (queue,), 0.0)
        for metric in METRICS.values():
            if metric.kind is Kind.COUNTER and not metric.labels:
                self._set(metric, (), 0.0)
        for queue, types in self._types.items():
            for type_ in types:
                for status in (Status.SUCCESS, Status.RETRY, Status.FAILURE):
                    self._set(c.PROCESSED, (queue, type_, status.value), 0.0)

    def _queue(self, queue: str) -> Labels:
        return (queue if queue in self._types else OTHER,)

    def _silence(self) -> float:
        """How long nothing has been heard, as far as it is known."""
        return 0.0 if self._deaf_since is None else time.monotonic() - self._deaf_since

    def _add(self, metric: Metric, labels: Labels, by: float = 1.0) -> None:
        series = self._values[metric]
        labels = _bounded(series, labels)
        series[labels] = series.get(labels, 0.0) + by

    def _set(self, metric: Metric, labels: Labels, value: float) -> None:
        series = self._values[metric]
        series[_bounded(series, labels)] = value

    def _observe(self, metric: Metric, labels: Labels, value: timedelta) -> None:
        seconds = value.total_seconds()
        series = self._histograms[metric]
        labels = _bounded(series, labels)
        if (buckets := series.get(labels)) is None:
            buckets = series[labels] = Buckets(len(metric.bounds))
        buckets.counts[bisect_left(metric.bounds, seconds)] += 1
        buckets.sum += seconds
        for tap in self._taps:
            tap(metric, labels, seconds)


def _bounded(series: Mapping[Labels, object], labels: Labels) -> Labels:
    return labels if labels in series or len(series) < _MOST_SERIES else (OTHER,) * len(labels)


def _status(outcome: Outcome, recorded: Recorded) -> Status:
    """By what became of the job: the handler asks for a retry, and the database knows whether one is left."""
    if recorded.answer is Answer.STALE:
        return Status.STALE
    match outcome:
        case Completed():
            return Status.SUCCESS
        case Snooze():
            return Status.SNOOZE
        case Cancel():
            return Status.CANCEL
        case Retry() | Dead():
            return Status.RETRY if recorded.status == "pending" else Status.FAILURE
