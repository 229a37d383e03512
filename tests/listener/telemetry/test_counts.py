"""What is counted is what happened: each fact by its metric, within bounds, from any thread, and never backwards."""

import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, get_args

import pytest

from listener import events as e
from listener.jobs import AttemptRef, Job, WokenBy
from listener.keyring import KeyRefused, KeyTaken, KeyUnusable
from listener.outcomes import (
    Answer,
    Cancel,
    Completed,
    Dead,
    Ended,
    ErrorText,
    Outcome,
    Recorded,
    Retry,
    Snooze,
)
from listener.telemetry import catalogue as c
from listener.telemetry.catalogue import METRICS, OTHER, Kind
from listener.telemetry.counts import Counts

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TWO = timedelta(seconds=2)
JOB = Job(7, "broker", "execute_order", {"n": Decimal(1)}, None, 0, NOW, 1, 0, 4, NOW)
TYPES = {"broker": ["execute_order", "cancel_order"], "payment": ["stripe_webhook"]}
ERROR = ErrorText("OSError", "away")


def counts() -> Counts:
    return Counts(TYPES)


def finished(
    outcome: Outcome,
    status: str = "completed",
    *,
    queue: str = "broker",
    type_: str = "execute_order",
    answer: Answer = Answer.RECORDED,
) -> e.Finished:
    ref = AttemptRef(queue, 7, 1)
    ended = Ended(ref, type_, outcome, TWO, WokenBy.REALTIME)
    return e.Finished(ended, outcome, Recorded(ref, answer, status, None, None))


def value(counted: Counts, metric: c.Metric, *labels: str) -> float:
    return counted.read().values[metric].get(labels, 0.0)


@pytest.mark.parametrize(
    ("event", "metric", "labels", "by"),
    [
        (e.Claimed("broker", WokenBy.SWEEP, 3, TWO), c.CLAIMED, ("broker", "sweep"), 3),
        (e.Claimed("broker", WokenBy.SWEEP, 3, TWO), c.WAKEUPS, ("broker", "sweep"), 1),
        (e.MissedWakeup("broker", 3, TWO), c.MISSED, ("broker",), 3),
        (e.AttemptsLost("broker", 1, 2), c.LOST, ("broker",), 3),
        (e.AttemptsLost("broker", 1, 2), c.GIVEN_UP, ("broker",), 2),
        (e.AttemptStopped(JOB, "overdue"), c.STOPPED, ("broker", "overdue"), 1),
        (e.UnknownTypes("broker", {"a": 2, "b": 3}), c.STRANGE, ("broker",), 5),
        (e.Recovered(4), c.RECOVERED, (), 4),
        (e.SlotInserted("nightly", "slot", 7, True), c.SLOTS, (), 1),
        (e.SlotsLeftOut("nightly", 3), c.LEFT_OUT, (), 3),
        (e.ScheduleRefused("nightly", "unknown queue"), c.REFUSED, (), 1),
        (KeyRefused("PULSE_WORKER_KEY", True), c.KEYS_REFUSED, (), 1),
        (KeyTaken("PULSE_WORKER_KEY"), c.KEYS_TAKEN, (), 1),
        (e.Swallowed("door", OSError()), c.SURVIVED, (), 1),
        (e.StoodStill(TWO, "there"), c.STANDSTILLS, (), 1),
        (e.NotExported("Datadog", "HTTP 503", TWO), c.UNDELIVERED, ("Datadog",), 1),
        (e.Called("claim", TWO, "refused"), c.CALLS, ("claim", "refused"), 1),
        (e.Hearing(TWO), c.DEAF, (), 2),
        (e.Hearing(TWO), c.HEARING, (), 1),
        (e.Deaf("closed", TWO), c.DEAFENED, (), 1),
    ],
    ids=lambda one: type(one).__name__ if isinstance(one, get_args(e.Event)) else None,
)
def test_a_fact_is_counted_once(event: e.Event, metric: c.Metric, labels: tuple[str, ...], by: float) -> None:
    counted = counts()
    before = value(counted, metric, *labels)
    counted(event)
    assert value(counted, metric, *labels) - before == by


@pytest.mark.parametrize(
    ("event", "status"),
    [
        (finished(Completed()), "success"),
        (finished(Retry(ERROR), "pending"), "retry"),
        (finished(Retry(ERROR), "failed"), "failure"),
        (finished(Dead(ERROR), "failed"), "failure"),
        (finished(Snooze(TWO, "closed"), "pending"), "snooze"),
        (finished(Cancel("gone"), "cancelled"), "cancel"),
        (finished(Completed(), "running", answer=Answer.STALE), "stale"),
        (finished(Completed(), answer=Answer.REPEATED), "success"),
    ],
)
def test_an_attempt_is_counted_by_what_became_of_its_job(event: e.Finished, status: str) -> None:
    counted = counts()
    counted(event)
    assert value(counted, c.PROCESSED, "broker", "execute_order", status) == 1
    assert counted.totals()[status] == 1
    assert value(counted, c.GIVEN_UP, "broker") == (status == "failure")
    assert value(counted, c.STALE, "broker") == (status == "stale")
    ran = counted.read().histograms[c.DURATION]["broker", "execute_order"]
    assert (ran.count, ran.sum) == (1, 2.0)


def test_every_kind_of_fact_is_counted_or_is_of_no_interest() -> None:
    of_no_interest = {
        e.DoorOpen,
        e.AttemptBegan,  # these two are for spans
        e.AttemptEnded,
        e.Unannounced,
        e.Unavailable,  # each of its calls is counted
        e.Available,
        e.Exported,
        e.SlotWithoutHandler,
        KeyUnusable,
        e.Draining,
        e.Drained,
    }
    assert set(counts()._of) == set(get_args(e.Event)) - of_no_interest


def test_every_metric_gets_its_numbers_from_somewhere() -> None:
    """From facts, or from a look at how things are (`Service.numbers`)."""
    looked_at = {c.DUE, c.OLDEST, c.HELD, c.PAUSED, c.RUNNING, c.DEAD, c.PLACES, c.TAKEN, c.READY}
    counted = counts()
    counted(e.Started("w", ["broker"], [], TWO))
    events: list[e.Event] = [
        finished(Completed()),
        e.Claimed("broker", WokenBy.SWEEP, 1, TWO, [JOB]),
        e.AttemptStopped(JOB, "drain"),
        e.UnknownTypes("broker", {}),
        e.NotExported("Datadog", "HTTP 503", TWO),
        e.Called("claim", TWO, "ok"),
        e.LoopAnswered(TWO),
    ]
    for event in events:
        counted(event)
    numbers = counted.read()
    assert {metric for metric, series in numbers.values.items() if not series} == looked_at
    assert all(numbers.histograms.values())
    shapes = {(metric, len(labels)) for metric, series in numbers.values.items() for labels in series}
    shapes |= {(metric, len(labels)) for metric, parts in numbers.histograms.items() for labels in parts}
    assert all(size == len(metric.labels) for metric, size in shapes)


def test_whatever_comes_a_label_takes_few_values() -> None:
    counted = counts()
    for n in range(5_000):
        strange = f"strange_{n}"
        counted(finished(Completed(), queue=strange, type_=strange))
        counted(finished(Completed(), type_=strange))
        counted(e.Claimed(strange, WokenBy.SWEEP, 1, TWO, [replace(JOB, queue=strange)]))
        counted(e.UnknownTypes(strange, {strange: 1}))
        counted(e.Called(strange, TWO, "ok"))  # by a mistake of ours
    numbers = counted.read()
    assert value(counted, c.PROCESSED, OTHER, OTHER, "success") == 5_000
    assert value(counted, c.PROCESSED, "broker", OTHER, "success") == 5_000
    sizes = {metric.name: len(series) for metric, series in numbers.values.items()}
    sizes |= {metric.name: len(parts) for metric, parts in numbers.histograms.items()}
    assert max(sizes.values()) <= 2_001
    assert sum(size for name, size in sizes.items() if "call" not in name) < 60
    assert sum(counted.read().values[c.CALLS].values()) == 5_000, "what has no room is counted as other"


def test_how_long_each_job_waited_is_told_by_the_databases_clock() -> None:
    """Whatever the clock of this machine says: the claim says how long the oldest had been due."""
    heard: list[float] = []
    counted = counts()
    counted.tap(lambda metric, _, seconds: heard.append(seconds) if metric is c.LAG else None)
    minute = timedelta(minutes=1)
    jobs = [
        replace(JOB, run_at=NOW + 2 * minute),
        replace(JOB, run_at=NOW),
        replace(JOB, run_at=NOW - minute, created_at=NOW + minute),  # was not there before
    ]
    counted(e.Claimed("broker", WokenBy.REALTIME, 3, 3 * minute, jobs))
    assert heard == [60.0, 180.0, 120.0]


def test_a_value_lies_in_the_bucket_that_ends_with_it() -> None:
    counted = counts()
    for seconds in (0.0, 0.0025, 0.00251, 15.0, 16.0):
        counted(e.Called("claim", timedelta(seconds=seconds), "ok"))
    buckets = counted.read().histograms[c.CALL]["claim",]
    assert (buckets.counts[0], buckets.counts[1], buckets.counts[-2], buckets.counts[-1]) == (2, 1, 1, 1)
    assert buckets.count == 5


def test_counters_never_fall_whatever_realtime_does() -> None:
    counted = counts()
    before: dict[str, float] = {}
    events: list[e.Event] = [
        e.Started("w", ["broker"], [], TWO),
        e.Hearing(timedelta()),  # later than it says, since it counts from its own begin
        e.Deaf("closed", TWO),
        e.Deaf("closed", TWO),
        e.Hearing(timedelta(microseconds=1)),
        e.Hearing(TWO),
        e.Deaf("closed", TWO),
    ]
    for event in events * 3:
        counted(event)
        for _ in range(2):
            read = counted.read().values
            now = {
                f"{metric.name}{labels}": number
                for metric, series in read.items()
                if metric.kind is Kind.COUNTER
                for labels, number in series.items()
            }
            assert all(now[name] >= number for name, number in before.items())
            before = now
    assert value(counted, c.DEAF) >= 6.0
    assert value(counted, c.HEARING) == 0.0


def test_a_process_that_is_only_a_door_is_not_deaf() -> None:
    counted = counts()
    counted(e.Started("w", [], [], TWO))
    assert counted.read().values[c.HEARING] == {}
    assert value(counted, c.DEAF) == 0.0


class Slow(dict[tuple[str, ...], float]):
    """Lets other threads run between a look and what is done with it."""

    def get(self, *words: Any) -> Any:
        found = super().get(*words)
        time.sleep(0)
        return found


def test_facts_from_many_threads_are_all_counted() -> None:
    counted = counts()
    counted._values[c.SURVIVED] = Slow()

    def many() -> None:
        for _ in range(200):
            counted(e.Swallowed("x", OSError()))

    threads = [threading.Thread(target=many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert value(counted, c.SURVIVED) == 800


def test_a_fact_may_come_while_another_is_being_counted() -> None:
    """Python tells of a broken thrown-away object wherever it happens to be."""
    counted = counts()
    counted.tap(lambda _metric, _labels, _value: counted(e.Swallowed("thrown-away object", OSError())))
    counted(e.Called("claim", TWO, "ok"))
    assert value(counted, c.SURVIVED) == 1


def test_what_was_read_stays_as_it_was() -> None:
    counted = counts()
    counted(finished(Completed()))
    numbers = counted.read()
    counted(finished(Completed()))
    assert numbers.values[c.PROCESSED]["broker", "execute_order", "success"] == 1
    assert numbers.histograms[c.DURATION]["broker", "execute_order"].count == 1


def test_what_an_alert_waits_for_is_there_before_it_happens() -> None:
    """The first event of a counter that was not there looks to Prometheus as if nothing had happened."""
    values = counts().read().values
    for metric in (c.GIVEN_UP, c.STALE, c.LOST, c.MISSED):
        assert values[metric] == {("broker",): 0.0, ("payment",): 0.0}
    assert values[c.PROCESSED]["payment", "stripe_webhook", "failure"] == 0.0
    assert values[c.STANDSTILLS] == {(): 0.0}


def test_names_and_units_are_as_both_worlds_want_them() -> None:
    names = [metric.name for metric in METRICS.values()]
    assert len(set(names)) == len(names)
    assert len({metric.dotted for metric in METRICS.values()}) == len(names)
    for metric in METRICS.values():
        assert metric.name.startswith("pulse_")
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
        assert (metric.kind is Kind.HISTOGRAM) == bool(metric.bounds)
        assert list(metric.bounds) == sorted(metric.bounds)
        assert metric.kind is not Kind.HISTOGRAM or metric.name.endswith("_seconds")
        assert metric.help.endswith(".")
