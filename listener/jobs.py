"""The words for a piece of work: a queue, a job, one attempt at it, and a job that is not yet a row."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from listener.traces import traceparent


class Queue(StrEnum):
    """The queues that the project starts with; `select create_queue('reports')` adds one, and its plain name serves."""

    PAYMENT = "payment"
    BROKER = "broker"
    ALERTS = "alerts"
    MAINTENANCE = "maintenance"


QUEUE_OF: Mapping[str, Queue] = {
    "stripe_webhook": Queue.PAYMENT,
    "crypto_verification": Queue.PAYMENT,
    "subscription_renewal": Queue.PAYMENT,
    "payment_notification": Queue.PAYMENT,
    "reconcile_stripe": Queue.PAYMENT,
    "execute_order": Queue.BROKER,
    "cancel_order": Queue.BROKER,
    "sync_positions": Queue.BROKER,
    "monitor_orders": Queue.BROKER,
    "handle_callback": Queue.BROKER,
    "discord": Queue.ALERTS,
    "email": Queue.ALERTS,
    "email_event": Queue.ALERTS,
    "push": Queue.ALERTS,
    "aggregate": Queue.ALERTS,
    "notify": Queue.ALERTS,
    "prune": Queue.MAINTENANCE,
}
"""Where the platform's job types live, so that a producer may name the type alone, whatever this process can run."""


class WokenBy(StrEnum):
    """Why a worker looked at a queue; each claim is labelled with it, in the row and in the log."""

    START = "start"
    """The process began."""
    REALTIME = "realtime"
    """An INSERT was heard."""
    JOINED = "joined"
    """Realtime became ready (again): whatever was inserted before may not have been announced."""
    SWEEP = "sweep"
    """The clock: the look that depends on nobody."""
    DUE = "due"
    """A row that was waiting for its run_at is due."""
    FREE = "free"
    """More was waiting than fitted; a place became free."""


class AttemptRef(NamedTuple):
    """Which attempt of which job: the fence that every write of an attempt names."""

    queue: str
    id: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Job:
    """One claimed job as a handler sees it. Never changes; the row may (another attempt may have taken over)."""

    id: int
    queue: str
    type: str
    data: Mapping[str, object] = field(repr=False)
    """The producer's JSON object. Fractional numbers are Decimal. Kept out of repr: payloads are not for logs."""
    user_id: UUID | None
    priority: int
    """0 is normal, larger is sooner."""
    run_at: datetime
    attempt: int
    """The n-th run of this job, from 1; grows with every claim and never falls."""
    uncounted: int
    """How many of the attempts so far do not count against max_attempts (snoozed, handed back)."""
    max_attempts: int
    created_at: datetime
    traceparent: str | None = None
    """The trace that the job is a part of, if whoever inserted it said so; see `traces.py`."""

    @property
    def key(self) -> str:
        """The same text in all attempts and replays of this job, and in no other job: for idempotency keys of others.

        The time of creation is part of it because two development databases may share one provider account.
        """
        return f"{self.queue}-{self.id}-{self.created_at:%Y%m%d%H%M%S}"

    @property
    def ref(self) -> AttemptRef:
        """Names this attempt in outcomes and heartbeats."""
        return AttemptRef(self.queue, self.id, self.attempt)


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to be enqueued; the database refuses what does not fit and says what would."""

    queue: str
    type: str
    data: Mapping[str, object] = field(default_factory=dict[str, object], repr=False)
    user_id: UUID | None = None
    priority: int = 0
    run_at: datetime | None = None
    """None: now, by the database's clock."""
    max_attempts: int | None = None
    """None: the database's default (4: one attempt and three retries)."""
    idempotency_key: str | None = None
    """At most one job of a queue carries the same key; enqueueing it again answers the first one's id."""
    traceparent: str | None = field(default_factory=traceparent)
    """The trace that the job is a part of: that of the work in which it is made."""


class Enqueued(NamedTuple):
    """What `enqueue` answers for one job."""

    id: int
    created: bool
    """False when a job with the same idempotency key was already there."""
    differs: bool = False
    """Whether that one is another job: of another type, with other data, or another user's."""
