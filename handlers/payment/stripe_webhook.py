"""What Stripe tells: receives its webhooks, and brings subscriptions and payments to where Stripe says they are.

An event is only a hint. The job notes it, looks the object up at Stripe and has one SQL function write what was found
and end the event (`sql/210_stripe.sql` explains why doubled, late and reordered events are harmless that way). All
writes are in our database and may be repeated; Stripe is only read. So a crash anywhere costs a repetition, no more.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Literal, cast

from pydantic import AwareDatetime, BaseModel, ConfigDict, Discriminator, Field, RootModel, Tag

from handlers.clients.database import Database, call
from handlers.clients.stripe import STRIPE_WEBHOOK_SECRET, StripeClient
from handlers.clients.stripe_looks import GONE, LOOKS
from handlers.clients.stripe_signature import BadDelivery, read_signed, secrets_in
from listener import (
    Delivery,
    DeliveryRefused,
    Job,
    NewJob,
    Payload,
    Queue,
    Reject,
    Settings,
    handler,
    webhook,
)


class ChangedObject(BaseModel):
    """Which object an event is about; a few events are about none that can be looked up."""

    id: str | None = None


class EventData(BaseModel):
    """Where an event carries its object."""

    object: ChangedObject


class StripeEvent(BaseModel):
    """An event as Stripe makes it, as far as we believe it."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    id: str = Field(pattern="^evt_")
    type: str
    livemode: bool
    created: datetime
    data: EventData


class ThinEvent(BaseModel):
    """Stripe's newer kind of event, which carries no object."""

    object: Literal["v2.core.event"]


class SignedDelivery(Payload):
    """A delivery that its receiver did not verify: the body exactly as it came, to be verified here."""

    raw_body: str
    signature: str
    received_at: AwareDatetime


def _shape(data: object) -> str:
    if not isinstance(data, Mapping):
        return "event"
    keys = cast("Mapping[str, object]", data)
    if "raw_body" in keys or "rawBody" in keys:
        return "signed delivery"
    return "thin event" if keys.get("object") == "v2.core.event" else "event"


class StripeWebhook(
    RootModel[
        Annotated[
            Annotated[StripeEvent, Tag("event")]
            | Annotated[ThinEvent, Tag("thin event")]
            | Annotated[SignedDelivery, Tag("signed delivery")],
            Discriminator(_shape),
        ]
    ]
):
    """The event itself, verified by whoever enqueued it, or the delivery it came in."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)


class UnknownUser(Exception):
    """Nothing says yet whose customer this is; the event that does may be behind this one."""


@handler(Queue.PAYMENT)
async def stripe_webhook(
    payload: StripeWebhook, *, job: Job, stripe: StripeClient, db: Database
) -> dict[str, object]:
    """Follows one event. The result says how the event ended: processed, ignored or skipped."""
    event = _trusted(payload, stripe)
    look = LOOKS.get(event.type)
    received = await call(db, "receive_stripe_event", event=_event_row(event, job, handled=look is not None))
    if look is None or received["status"] != "received":
        return {"event": received["status"]}
    seen = await look(stripe, event.data.object.id) if event.data.object.id else GONE
    if isinstance(seen, str):
        ended = await call(db, "skip_stripe_event", event_id=event.id, note=seen)
    else:
        ticket = received["ticket"]
        ended = await call(db, "apply_stripe_event", event_id=event.id, ticket=ticket, seen=seen)
    if ended["status"] == "unknown_user":
        raise UnknownUser(
            "Nobody we know is this customer of Stripe's: set client_reference_id at checkout, or user_id in the "
            "metadata at Stripe, to the user's uuid. Then replay this job."
        )
    return {"event": ended["status"]}


@webhook("/webhooks/stripe", STRIPE_WEBHOOK_SECRET)
def receive(delivery: Delivery, settings: Settings) -> NewJob:
    """Turns a delivery that Stripe signed into a job; the same event twice is the same job."""
    signature = delivery.headers.get("stripe-signature", "")
    secrets = secrets_in(settings[STRIPE_WEBHOOK_SECRET.name])
    try:
        event = read_signed(delivery.body, signature, secrets, delivery.received_at)
    except BadDelivery as error:
        raise DeliveryRefused(400, str(error)) from None
    return NewJob(Queue.PAYMENT, stripe_webhook.__name__, event, idempotency_key=str(event["id"]))


def _trusted(payload: StripeWebhook, stripe: StripeClient) -> StripeEvent:
    """The event, when it is one that we can follow; else raises Reject."""
    match payload.root:
        case SignedDelivery() as delivery:
            return _trusted(_opened(delivery, stripe), stripe)
        case ThinEvent():
            raise Reject(
                "This is a thin event (v2.core.event), which this handler does not read. "
                "Let Stripe send snapshot events to this endpoint."
            )
        case StripeEvent() as event if event.livemode != stripe.livemode:
            raise Reject(
                f"Stripe sent this from {_mode(event.livemode)} mode, but STRIPE_SECRET_KEY is of "
                f"{_mode(stripe.livemode)} mode and cannot see what it is about."
            )
        case StripeEvent() as event:
            return event


def _opened(delivery: SignedDelivery, stripe: StripeClient) -> StripeWebhook:
    if not stripe.webhook_secrets:
        raise Reject(
            "STRIPE_WEBHOOK_SECRET is not set, so this delivery cannot be verified: set it, then replay."
        )
    body = delivery.raw_body.encode()
    try:
        return StripeWebhook.model_validate(
            read_signed(body, delivery.signature, stripe.webhook_secrets, delivery.received_at)
        )
    except BadDelivery as error:
        raise Reject(str(error)) from None


def _mode(live: bool) -> str:
    return "live" if live else "test"


def _event_row(event: StripeEvent, job: Job, *, handled: bool) -> dict[str, object]:
    return {
        "id": event.id,
        "type": event.type,
        "livemode": event.livemode,
        "object_id": event.data.object.id,
        "job_key": job.key,
        "sent_at": event.created.astimezone(UTC),
        "handled": handled,
    }
