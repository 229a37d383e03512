"""One alert to one target: begun, sent by its channel, and recorded. The one routine that all channels use.

A channel is a file `handlers/alerts/<channel>.py` whose handler hands its `send` to `deliver`. All that has to be
decided once (to whom, whether, when, how often) the database decides; `send` speaks to the provider, once, and tells
what it saw in one of the ways of `told.py`.

An error that `send` raises is an Unknown, and so is what a crash cut off. What may have arrived is sent again at most
once; as often as it takes, where the provider takes the same message twice as one (`Pace.repeatable`).
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, Self, TypeAlias
from uuid import UUID

from httpx import HTTPError
from pydantic import BaseModel, ConfigDict, Field, model_validator

from handlers.clients.alerts.told import Later, NotSent, Refused, Told, Unknown, as_recorded
from handlers.clients.database import CallFailed, Database, call
from listener import Job, Payload, Reject, Snooze, strike_out

Severity = Literal["info", "warning", "error", "critical"]

_SLACK = timedelta(seconds=15)
"""How much longer than its limit a send may seem to go on, seen from the database: calls take their time too."""
_SHORTEST_TEXT = 12
_PAUSES = (0.2, 1.0, 3.0)
"""Seconds between tries to write down what became of a send: to lose that is to send twice."""


class AlertJob(Payload):
    """The payload of `notify` and of every channel: what is to be said, or the delivery that says it.

    Words are routed: to the one channel whose job this is, or (`notify`) to all. With `alert_id` alone an alert that
    is a row already is routed.
    """

    delivery_id: UUID | None = None
    user_id: UUID | None = None
    audience: Literal["user", "operators"] = "user"
    alert_type: str | None = Field(default=None, min_length=1, max_length=100)
    title: str | None = Field(default=None, min_length=1)
    message: str = ""
    severity: Severity = "info"
    metadata: Mapping[str, object] = Field(default_factory=dict[str, object])
    alert_id: UUID | None = None
    dedupe_key: str | None = Field(default=None, min_length=1, max_length=200)
    """The producer's own: the same key is the same alert of this user."""

    @model_validator(mode="after")
    def _says_something_to_somebody(self) -> Self:
        if self.delivery_id is not None or (self.alert_id is not None and self.title is None):
            return self
        if self.title is None:
            raise ValueError("name the delivery, the alert, or what to say: title and message")
        if (self.user_id is None) == (self.audience == "user"):
            raise ValueError("name the user, or the audience operators")
        return self


class _Read(BaseModel):
    """What the database answered: frozen, and without what it holds in its repr."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class Alert(_Read):
    """What is said."""

    id: UUID
    user_id: UUID | None
    alert_type: str
    severity: Severity
    title: str = Field(repr=False)
    message: str = Field(repr=False)
    metadata: Mapping[str, object] = Field(repr=False)
    created_at: datetime


class Target(_Read):
    """Where to."""

    id: UUID | None
    """None: the user's own e-mail address, which is no row of ours."""
    address: str | None = Field(repr=False)
    """An e-mail address, a device's token, the id of a webhook."""
    kind: str | None
    label: str | None = Field(repr=False)
    secret: str | None = Field(repr=False)
    """What Vault keeps for it: the token of a webhook."""


class Reader(_Read):
    """How the one who is told likes to read."""

    locale: str = "en_US"
    timezone: str = "UTC"


class Sending(_Read):
    """One send that has begun."""

    delivery_id: UUID
    channel: str
    send: int
    """The n-th of this delivery, from 1: the fence of what is recorded."""
    resend: bool
    """The one before may have arrived."""
    alert: Alert | None
    """None: it is a digest's."""
    digest_id: UUID | None
    target: Target
    reader: Reader


Send: TypeAlias = Callable[[Sending], Awaitable[Told]]


@dataclass(frozen=True, slots=True)
class Pace:
    """How a channel may be used; all processes together keep to it."""

    limit: timedelta = timedelta(seconds=30)
    """The longest that one send takes; it is stopped then, and Unknown."""
    one_at_a_time: bool = False
    """One delivery under way per target."""
    repeatable: bool = False
    """The provider takes the same message twice as one."""
    allowed: int | None = None
    """So many sends of the whole channel … None: as many as there are."""
    per: timedelta = timedelta(seconds=1)
    """… in each such time."""
    refusals: int | None = None
    """So many answers that count against all of us …"""
    refusals_per: timedelta = timedelta(minutes=10)
    """… in each such time, and the channel rests: less than the provider takes before it shuts us out."""
    digests: bool = False
    """It tells digests, too: a delivery has no alert then (`clients/alerts/digest.py`). Else they are suppressed."""


class NotDelivered(Exception):
    """Nothing was sent; the job's retries will see to it."""


def patience(failed: int) -> timedelta:
    """The `backoff` of a channel's handler: long enough for a provider to come back."""
    return timedelta(seconds=(15, 60, 300, 900, 1800)[min(failed, 5) - 1])


async def deliver(
    db: Database, job: Job, payload: AlertJob, send: Send, pace: Pace | None = None
) -> Mapping[str, object] | Snooze:
    """What a channel's handler returns. Words are routed to this channel; a delivery is begun, sent and recorded."""
    if payload.delivery_id is None:
        return await route(db, job, payload, [job.type])
    pace = pace or Pace()
    begun_at = asyncio.get_running_loop().time()
    begun = await _surely(
        db,
        "begin_delivery",
        delivery_id=payload.delivery_id,
        begun_by=f"{job.key}:{job.attempt}",
        pace={
            "limit_seconds": (pace.limit + _SLACK).total_seconds(),
            "one_at_a_time": pace.one_at_a_time,
            "repeatable": pace.repeatable,
            "allowed": pace.allowed,
            "per_seconds": pace.per.total_seconds(),
            "digests": pace.digests,
        },
    )
    if begun["step"] == "later":
        return _snooze(begun)
    if begun["step"] == "done":
        return begun
    sending = Sending.model_validate(begun)
    strike_out(*_private(sending))
    told, error = await _told(send, sending, pace.limit, begun_at)
    ended = await _surely(
        db,
        "record_delivery",
        delivery_id=sending.delivery_id,
        send=sending.send,
        told=as_recorded(told) | _refusals(told, pace),
        is_last=(error is not None or isinstance(told, NotSent))
        and job.attempt - job.uncounted >= job.max_attempts,
    )
    if error is not None:
        raise error
    if isinstance(told, NotSent):
        raise NotDelivered(told.words)
    return _snooze(ended) if "delay_seconds" in ended else ended


async def route(
    db: Database, job: Job, payload: AlertJob, channels: list[str] | None = None
) -> Mapping[str, object]:
    """Makes the alert and its deliveries, once per job: {"alert_id", "deliveries", "suppressed", "reason"}."""
    told = payload.model_dump(exclude={"delivery_id"}, exclude_none=True)
    answer = await call(db, "route_alert", job_key=job.key, told=told, channels=channels)
    if answer["alert_id"] is None:
        raise Reject("There is no such alert of this user.")
    return answer


async def _told(
    send: Send, sending: Sending, limit: timedelta, begun_at: float
) -> tuple[Told, Exception | None]:
    """What the channel saw; and the error by which it failed to see."""
    if asyncio.get_running_loop().time() - begun_at > _SLACK.total_seconds():
        # We stood still, or the answer did: by the time that this is sent, another may have begun.
        return Later(timedelta(seconds=1), "begun_too_long_ago"), None
    try:
        async with asyncio.timeout(limit.total_seconds()):
            return await send(sending), None
    except TimeoutError:
        return Unknown("timed_out", "The provider did not answer in time."), None
    except Exception as error:  # noqa: BLE001 - whatever it is, the message may be on its way
        return Unknown("channel_failed", "The channel failed while it was sending."), error


async def _surely(db: Database, function: str, **arguments: object) -> Mapping[str, object]:
    """A call that is tried a few times: its answer is worth a wait, and both functions are safe to repeat."""
    for pause in _PAUSES:
        try:
            return await call(db, function, **arguments)
        except (HTTPError, CallFailed):
            await asyncio.sleep(pause)
    return await call(db, function, **arguments)


def _private(sending: Sending) -> Iterator[str]:
    """What must not be read in a log or a dead letter; a short text is a word as any other, and stays readable."""
    target, alert = sending.target, sending.alert
    yield from (one for one in (target.secret, target.address) if one)
    if alert is not None:
        texts = (
            alert.title,
            alert.message,
            *(one for one in alert.metadata.values() if isinstance(one, str)),
        )
        yield from (one for one in texts if len(one) >= _SHORTEST_TEXT)


def _refusals(told: Told, pace: Pace) -> dict[str, object]:
    """What `hold_lanes` counts."""
    if pace.refusals is None or not (isinstance(told, Refused | Later | NotSent) and told.counts):
        return {}
    return {"refusals": pace.refusals, "refusals_per_seconds": pace.refusals_per.total_seconds()}


def _snooze(answer: Mapping[str, object]) -> Snooze:
    return Snooze(timedelta(seconds=float(str(answer["delay_seconds"]))), str(answer["reason"]))
