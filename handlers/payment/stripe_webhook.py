"""What Stripe tells: receives its webhooks, and brings subscriptions and payments to where Stripe says they are.

An event is only a hint. The job notes it, looks the object up at Stripe and has one SQL function write what was found
and end the event (`sql/200_payment.sql` explains why doubled, late and reordered events are harmless that way). All
writes are in our database and may be repeated; Stripe is only read. So a crash anywhere costs a repetition, no more.
"""

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Literal, cast
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Discriminator, Field, RootModel, Tag

from handlers.clients.database import Database, call
from handlers.clients.stripe import STRIPE_WEBHOOK_SECRET, StripeClient
from handlers.clients.stripe_objects import Customer, Invoice, Subscription, money
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


GONE = "Stripe has no such object (any more)."
NOT_OURS = "This checkout was for no subscription, and names no user."


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


# --- looking: from the id in an event to what Stripe says now -------------------------------------------------------

Seen = dict[str, object]
"""What `apply_stripe_event` takes: customer, subscription, payment, by the names of the tables' columns."""

WhyNothing = str
"""Why a look leads to nothing: the note of an event that is skipped."""


async def _look_at_subscription(
    stripe: StripeClient, object_id: str, told: UUID | None = None
) -> Seen | WhyNothing:
    """`told` is the user that another object names; what the subscription itself says goes first."""
    subscription = await stripe.subscription(object_id)
    if subscription is None:
        return GONE
    return {
        "customer": _customer(subscription.customer, subscription.metadata.user_id or told),
        "subscription": _subscription_row(subscription),
    }


async def _look_at_invoice(stripe: StripeClient, object_id: str) -> Seen | WhyNothing:
    invoice = await stripe.invoice(object_id)
    if invoice is None:
        return GONE
    told, payment = invoice.metadata.user_id, _payment_row(invoice)
    if invoice.subscription is not None:
        seen = await _look_at_subscription(stripe, invoice.subscription, told)
        if not isinstance(seen, str):
            return seen | {"payment": payment}
    return {"customer": _customer(invoice.customer, told), "payment": payment}


async def _look_at_checkout(stripe: StripeClient, object_id: str) -> Seen | WhyNothing:
    session = await stripe.checkout_session(object_id)
    if session is None:
        return GONE
    if session.subscription is not None:
        return await _look_at_subscription(stripe, session.subscription, session.user_id)
    if session.customer is None or session.user_id is None:
        return NOT_OURS
    return {"customer": _customer(session.customer, session.user_id)}


Look = Callable[[StripeClient, str], Awaitable[Seen | WhyNothing]]
LOOKS: dict[str, Look] = {
    "checkout.session.completed": _look_at_checkout,
    "checkout.session.async_payment_succeeded": _look_at_checkout,
    "checkout.session.async_payment_failed": _look_at_checkout,
    "customer.subscription.created": _look_at_subscription,
    "customer.subscription.updated": _look_at_subscription,
    "customer.subscription.deleted": _look_at_subscription,
    "customer.subscription.paused": _look_at_subscription,
    "customer.subscription.resumed": _look_at_subscription,
    "customer.subscription.pending_update_applied": _look_at_subscription,
    "customer.subscription.pending_update_expired": _look_at_subscription,
    "invoice.paid": _look_at_invoice,
    "invoice.payment_succeeded": _look_at_invoice,
    "invoice.payment_failed": _look_at_invoice,
}
"""The events that create, activate, renew, fail and cancel a subscription. All others are noted as ignored."""


# --- writing: from Stripe's objects to our columns ---------------------------------------------------------------


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


def _customer(customer: Customer | None, user_id: UUID | None) -> dict[str, object]:
    return {
        "id": customer and customer.id,
        "user_id": user_id,
        "fallback_user_id": customer and customer.metadata.user_id,
    }


def _subscription_row(subscription: Subscription) -> dict[str, object]:
    return {
        "stripe_subscription_id": subscription.id,
        "stripe_customer_id": subscription.customer.id,
        "stripe_price_id": subscription.price_id,
        "status": subscription.status,
        "started_at": subscription.created,
        "current_period_start": subscription.period_start,
        "current_period_end": subscription.period_end,
        "trial_ends_at": subscription.trial_end,
        "cancel_at_period_end": subscription.cancel_at_period_end,
        "canceled_at": subscription.canceled_at,
        "ended_at": subscription.ended_at,
    }


def _payment_row(invoice: Invoice) -> dict[str, object]:
    paid = invoice.status == "paid"
    failed = not paid and (invoice.attempted or invoice.status in ("uncollectible", "void"))
    return {
        "stripe_invoice_id": invoice.id,
        "stripe_subscription_id": invoice.subscription,
        "status": "succeeded" if paid else "failed" if failed else "pending",
        "amount": money(invoice.amount_paid if paid else invoice.amount_due, invoice.currency),
        "currency": invoice.currency,
        "attempt_count": invoice.attempt_count,
        "next_attempt_at": invoice.next_payment_attempt,
        "paid_at": invoice.status_transitions.paid_at,
    }
