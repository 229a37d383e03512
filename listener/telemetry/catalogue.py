"""Every metric that there is: its name, what it counts, by which labels, and what each exporter calls it.

A label takes few values, whatever happens: the queues and job types that this process knows (`other` stands for the
rest), and words of our own. `docs/metrics.md` tells the same to people, and a test holds the two together.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

OTHER: Final = "other"
"""The value of a label for what this process does not know."""


class Kind(StrEnum):
    """How a metric's numbers are to be read."""

    COUNTER = "counter"
    """Only grows, from the start of the process."""
    GAUGE = "gauge"
    """Is what it is at this moment."""
    HISTOGRAM = "histogram"
    """Many measured values: how many, their sum, and how many were at most so large."""


class Status(StrEnum):
    """What came of an attempt."""

    SUCCESS = "success"
    RETRY = "retry"
    """Failed, and is tried again."""
    FAILURE = "failure"
    """Failed for good: a dead letter."""
    SNOOZE = "snooze"
    """Is not done yet and runs again; does not count as an attempt."""
    CANCEL = "cancel"
    STALE = "stale"
    """Came after the job had moved on, and changed nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """One metric. There is one object of each, which is equal to no other."""

    name: str
    """As Prometheus knows it, units and all."""
    dotted: str
    """As Datadog knows it."""
    kind: Kind
    labels: tuple[str, ...]
    help: str
    bounds: tuple[float, ...] = ()
    """Of a histogram: the upper bounds of its buckets, in seconds."""


_OF_WORK = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_OF_WAITING = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
_OF_CALLS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0)

_all: dict[str, Metric] = {}


def _new(
    kind: Kind, name: str, dotted: str, labels: str, text: str, bounds: tuple[float, ...] = ()
) -> Metric:
    metric = _all[name] = Metric(name, dotted, kind, tuple(labels.split()), text, bounds)
    return metric


def _counter(name: str, dotted: str, labels: str, text: str) -> Metric:
    return _new(Kind.COUNTER, name, dotted, labels, text)


def _gauge(name: str, dotted: str, labels: str, text: str) -> Metric:
    return _new(Kind.GAUGE, name, dotted, labels, text)


def _histogram(name: str, dotted: str, labels: str, text: str, bounds: tuple[float, ...]) -> Metric:
    return _new(Kind.HISTOGRAM, name, dotted, labels, text, bounds)


# What became of jobs.
PROCESSED = _counter(
    "pulse_jobs_processed_total",
    "worker.job.processed",
    "queue type status",
    "Attempts that ended and were recorded, by what came of them.",
)
DURATION = _histogram(
    "pulse_job_duration_seconds",
    "worker.job.duration",
    "queue type",
    "How long handlers ran, per attempt.",
    _OF_WORK,
)
LAG = _histogram(
    "pulse_job_lag_seconds",
    "worker.job.lag",
    "queue",
    "How long jobs had been due when a worker claimed them.",
    _OF_WAITING,
)
GIVEN_UP = _counter(
    "pulse_jobs_given_up_total", "worker.job.given_up", "queue", "Jobs that became dead letters."
)
STALE = _counter(
    "pulse_outcomes_stale_total",
    "worker.outcome.stale",
    "queue",
    "Outcomes that came after their job had moved on: its work was done twice, or in part.",
)
RECOVERED = _counter(
    "pulse_outcomes_recovered_total",
    "worker.outcome.recovered",
    "",
    "Outcomes that a process left in the journal when it died, recorded by this one.",
)
LOST = _counter(
    "pulse_attempts_lost_total",
    "worker.attempt.lost",
    "queue",
    "Attempts whose worker vanished in the middle, found by a sweep of this process.",
)
STOPPED = _counter(
    "pulse_attempts_stopped_total",
    "worker.attempt.stopped",
    "queue reason",
    "Running attempts that were told to stop: drain, cancel, lost, overdue.",
)

# How jobs are found.
CLAIMED = _counter(
    "pulse_jobs_claimed_total", "worker.job.claimed", "queue woken_by", "Jobs claimed, by what made us look."
)
WAKEUPS = _counter(
    "pulse_wakeups_total", "worker.wakeup", "queue woken_by", "Looks that found jobs, by what made us look."
)
MISSED = _counter(
    "pulse_wakeups_missed_total",
    "worker.wakeup.missed",
    "queue",
    "Jobs that a sweep found and Realtime should have announced.",
)
DEAF = _counter(
    "pulse_realtime_deaf_seconds_total",
    "worker.realtime.deaf_seconds",
    "",
    "How long no INSERT would have been heard, the present silence included.",
)
DEAFENED = _counter(
    "pulse_realtime_deafened_total",
    "worker.realtime.deafened",
    "",
    "How often a subscription to Realtime ended or did not come about.",
)
HEARING = _gauge(
    "pulse_realtime_hearing", "worker.realtime.hearing", "", "1 while INSERTs are heard, 0 while deaf."
)
SLOTS = _counter(
    "pulse_schedule_slots_total",
    "worker.schedule.slots",
    "",
    "Due slots of schedules whose job this process put into its queue, or found there.",
)
LEFT_OUT = _counter(
    "pulse_schedule_slots_left_out_total",
    "worker.schedule.slots_left_out",
    "",
    "Slots of schedules that get no job, by `missed` or `overlap` of their schedule.",
)
REFUSED = _counter(
    "pulse_schedules_refused_total",
    "worker.schedule.refused",
    "",
    "How often a schedule was found to stand still; the log says which and why.",
)

# How the queues are: one look of the database, the same from every process.
DUE = _gauge(
    "pulse_queue_due",
    "worker.queue.due",
    "queue",
    "Jobs that are due and that no limit holds, counted to 10000.",
)
OLDEST = _gauge(
    "pulse_queue_oldest_seconds",
    "worker.queue.oldest_seconds",
    "queue",
    "How long the one of them that waits longest has been due.",
)
HELD = _gauge(
    "pulse_queue_held", "worker.queue.held", "queue", "Jobs that a limit holds back, counted to 10000."
)
PAUSED = _gauge(
    "pulse_queue_paused", "worker.queue.paused", "queue", "1 while the queue, or a type of it, is paused."
)
RUNNING = _gauge(
    "pulse_queue_running",
    "worker.queue.running",
    "queue",
    "Jobs that run, in all processes, counted to 10000.",
)
DEAD = _gauge(
    "pulse_dead_letters",
    "worker.dead_letters",
    "queue",
    "Dead letters that nobody has replayed, counted to 10000.",
)

# How this process is.
READY = _gauge("pulse_ready", "worker.ready", "", "1 while this process knows no reason not to be ready.")
PLACES = _gauge(
    "pulse_places", "worker.places", "queue", "How many jobs of a queue this process runs at once."
)
TAKEN = _gauge("pulse_places_taken", "worker.places_taken", "queue", "How many of these places are taken.")
STRANGE = _gauge(
    "pulse_queue_unknown_types",
    "worker.queue.unknown_types",
    "queue",
    "Due jobs whose type no handler of this process serves, as its last sweep found them.",
)
CALL = _histogram(
    "pulse_call_duration_seconds",
    "worker.call.duration",
    "call",
    "How long calls of the database's functions took, answered or not.",
    _OF_CALLS,
)
CALLS = _counter(
    "pulse_calls_total",
    "worker.calls",
    "call answer",
    "Calls of the database's functions: ok, unavailable (to be repeated) or refused.",
)
LOOP = _histogram(
    "pulse_loop_delay_seconds",
    "worker.loop.delay",
    "",
    "How long the event loop took to answer a sign, asked once a second.",
    _OF_CALLS,
)
STANDSTILLS = _counter(
    "pulse_loop_standstills_total",
    "worker.loop.standstills",
    "",
    "How often the event loop was told to stand still.",
)
SURVIVED = _counter(
    "pulse_errors_survived_total",
    "worker.errors_survived",
    "",
    "Errors that a loop of ours met and survived; the log tells each.",
)
KEYS_REFUSED = _counter(
    "pulse_keys_refused_total",
    "worker.keys.refused",
    "",
    "How often the project refused the key of this process.",
)
KEYS_TAKEN = _counter(
    "pulse_keys_taken_total", "worker.keys.taken", "", "How often this process went on with another key."
)
UNDELIVERED = _counter(
    "pulse_exports_failed_total",
    "worker.exports_failed",
    "exporter",
    "How often an exporter could not deliver.",
)

METRICS: Final[Mapping[str, Metric]] = _all
"""All of them, by name."""
