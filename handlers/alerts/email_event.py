"""What is told of mails after they were sent: by SendGrid's event webhook, and by readers who want no more of them."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from hashlib import sha256
from typing import Final, Literal
from uuid import UUID

from handlers.clients.alerts.sendgrid_events import SENDGRID_WEBHOOK_KEY, BadEvents, read_events
from handlers.clients.alerts.unsubscribe import (
    EMAIL_UNSUBSCRIBE_SECRET,
    PATH,
    Scope,
    Unsubscribed,
    read_token,
    secrets_of,
    unsubscribe_page,
)
from handlers.clients.database import Database, call
from listener import Delivery, DeliveryRefused, Job, NewJob, Payload, Queue, Settings, handler, webhook

TOLERANCE: Final = timedelta(hours=25)
"""SendGrid tries for a day to deliver its events. An older delivery is a copy that somebody kept."""


class Event(Payload):
    """One fact about an address, or about a mail that went there."""

    kind: Literal["delivered", "blocked", "bounce", "invalid", "spam", "unsubscribe"]
    address: str
    scope: Scope | None = None
    delivery_id: UUID | None = None


class EmailEvent(Payload):
    """Facts that came together."""

    events: Sequence[Event]


@handler(Queue.ALERTS)
async def email_event(payload: EmailEvent, *, job: Job, db: Database) -> Mapping[str, object]:  # noqa: ARG001
    """Writes them down: {"suppressed", "deliveries"}, how many addresses and rows changed by them."""
    return await call(
        db, "record_mail_events", events=[one.model_dump(exclude_none=True) for one in payload.events]
    )


@webhook("/webhooks/sendgrid", SENDGRID_WEBHOOK_KEY)
def receive_events(delivery: Delivery, settings: Settings) -> NewJob:
    """Turns events that SendGrid signed into a job; the same delivery twice is the same job."""
    key = settings.get(SENDGRID_WEBHOOK_KEY.name)
    if not key:
        raise DeliveryRefused(
            503, f"{SENDGRID_WEBHOOK_KEY.name} is not set: nothing can be verified here yet."
        )
    try:
        events = read_events(delivery, key, TOLERANCE)
    except BadEvents as error:
        raise DeliveryRefused(400, str(error)) from None
    return NewJob(
        Queue.ALERTS,
        email_event.__name__,
        {"events": events},
        idempotency_key=f"sendgrid:{sha256(delivery.body).hexdigest()}",
    )


def _page(delivery: Delivery, settings: Settings, delivered: bool) -> str:
    return unsubscribe_page(_asked(delivery, settings), is_done=delivered)


@webhook(PATH + "{token}", EMAIL_UNSUBSCRIBE_SECRET, page=_page)
def unsubscribe(delivery: Delivery, settings: Settings) -> NewJob:
    """Ends mails at once, for the mail program that asks (RFC 8058) and for the person who pressed the button."""
    asked = _asked(delivery, settings)
    event = {"kind": "unsubscribe", "address": asked.address, "scope": asked.scope}
    token = sha256(delivery.parameters["token"].encode()).hexdigest()
    # Once a minute, so that a second click is the same, and one after mails were allowed again is not.
    return NewJob(
        Queue.ALERTS,
        email_event.__name__,
        {"events": [event]},
        priority=10,
        idempotency_key=f"unsubscribe:{token}:{delivery.received_at:%Y%m%d%H%M}",
    )


def _asked(delivery: Delivery, settings: Settings) -> Unsubscribed:
    secrets = secrets_of(settings)
    if not secrets:
        raise DeliveryRefused(
            503, f"{EMAIL_UNSUBSCRIBE_SECRET.name} is not set: no link can be read here yet."
        )
    asked = read_token(delivery.parameters["token"], secrets)
    if asked is None:
        raise DeliveryRefused(404, "This link is not one of ours, or not all of it is there.")
    return asked
