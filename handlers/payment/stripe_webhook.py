"""What Stripe tells: receives its webhooks, and brings subscriptions and payments to where Stripe says they are.

An event is only a hint. The job notes it, looks the object up at Stripe and has one SQL function write what was found,
with the notices of it, and end the event (`sql/210_stripe.sql` explains why doubled, late and reordered events are
harmless that way). All writes are in our database and may be repeated; Stripe is only read. So a crash anywhere costs
a repetition, no more.
"""

from collections.abc import Mapping
from datetime import UTC
from typing import Annotated, cast

from pydantic import AwareDatetime, ConfigDict, Discriminator, RootModel, Tag

from handlers.clients.database import Database, call
from handlers.clients.signed_delivery import BadDelivery, secrets_in
from handlers.clients.stripe.client import STRIPE_WEBHOOK_SECRET, StripeClient
from handlers.clients.stripe.errors import StripeAway, come_back
from handlers.clients.stripe.events import StripeEvent, ThinEvent
from handlers.clients.stripe.looks import (
    GONE,
    Look,
    look_at_checkout,
    look_at_customer,
    look_at_invoice,
    look_at_invoice_to_confirm,
    look_at_subscription,
    look_at_trial_end,
    look_at_troubled_invoice,
    look_at_upcoming_invoice,
)
from handlers.clients.stripe.money_back import look_at_charge, look_at_dispute, look_at_refund
from handlers.clients.stripe.signature import read_signed
from listener import (
    Delivery,
    DeliveryRefused,
    Job,
    NewJob,
    Payload,
    Queue,
    Reject,
    Settings,
    Snooze,
    handler,
    webhook,
)

LOOKS: Mapping[str, Look] = {
    # the till: whose customer it is, and what it led to
    "checkout.session.completed": look_at_checkout,
    "checkout.session.async_payment_succeeded": look_at_checkout,
    "checkout.session.async_payment_failed": look_at_checkout,
    "checkout.session.expired": look_at_checkout,
    # subscriptions: status, period and price; the user hears of the first activation
    "customer.subscription.created": look_at_subscription,
    "customer.subscription.updated": look_at_subscription,
    "customer.subscription.deleted": look_at_subscription,
    "customer.subscription.paused": look_at_subscription,
    "customer.subscription.resumed": look_at_subscription,
    "customer.subscription.pending_update_applied": look_at_subscription,
    "customer.subscription.pending_update_expired": look_at_subscription,
    "customer.subscription.trial_will_end": look_at_trial_end,
    # invoices: one payment each; the user hears that it was paid, that it failed, that it has to be confirmed
    "invoice.paid": look_at_invoice,
    "invoice.payment_succeeded": look_at_invoice,
    "invoice.payment_failed": look_at_invoice,
    "invoice.payment_action_required": look_at_invoice_to_confirm,
    "invoice.upcoming": look_at_upcoming_invoice,
    "invoice.voided": look_at_invoice,
    "invoice.marked_uncollectible": look_at_troubled_invoice,
    "invoice.finalization_failed": look_at_troubled_invoice,
    # money that goes back: sums on the payment; the user hears of refunds, operators of disputes and failures
    "charge.refunded": look_at_charge,
    "refund.created": look_at_refund,
    "refund.updated": look_at_refund,
    "refund.failed": look_at_refund,
    "charge.dispute.created": look_at_dispute,
    "charge.dispute.closed": look_at_dispute,
    "charge.dispute.funds_withdrawn": look_at_dispute,
    "charge.dispute.funds_reinstated": look_at_dispute,
    # customers: e-mail address and user; one that is deleted keeps what was bought
    "customer.updated": look_at_customer,
    "customer.deleted": look_at_customer,
}
"""Which look each event makes us take, and so what it changes. All others are noted as ignored."""

WITHOUT_OBJECT = ("invoice.upcoming",)
"""Those about something that does not exist yet, and so has no id."""


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
    """Nothing says yet whose customer this is; when another event does, this one is enqueued once more."""


@handler(Queue.PAYMENT)
async def stripe_webhook(
    payload: StripeWebhook, *, job: Job, stripe: StripeClient, db: Database
) -> dict[str, object] | Snooze:
    """Follows one event. The result says how the event ended: processed, ignored or skipped."""
    event = _trusted(payload, stripe)
    look = LOOKS.get(event.type)
    received = await call(db, "receive_stripe_event", event=_event_row(event, job, handled=look is not None))
    if look is None or received["status"] != "received":
        return {"event": received["status"]}
    try:
        seen = await look(stripe, event) if event.object_id or event.type in WITHOUT_OBJECT else GONE
    except StripeAway as away:
        return come_back(away, job)
    ticket = received["ticket"]
    ended = await call(db, "apply_stripe_event", event_id=event.id, ticket=ticket, seen=seen)
    if ended["status"] == "unknown_user":
        raise UnknownUser(
            "Nobody we know is this customer of Stripe: set client_reference_id at checkout, or user_id in the "
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
        case ThinEvent() as thin:
            return _of_our_mode(thin.as_common(), stripe)
        case StripeEvent() as event:
            return _of_our_mode(event, stripe)


def _of_our_mode(event: StripeEvent, stripe: StripeClient) -> StripeEvent:
    if event.livemode != stripe.livemode:
        raise Reject(
            f"Stripe sent this from {_mode(event.livemode)} mode, but STRIPE_SECRET_KEY is of "
            f"{_mode(stripe.livemode)} mode and cannot see what it is about."
        )
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
