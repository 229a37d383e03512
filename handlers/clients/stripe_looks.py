"""Which of Stripe's objects an event makes us look at, and what of it we keep.

The event's own copy of the object is not read: it may be old, and an older event may come later.
"""

from collections.abc import Awaitable, Callable
from uuid import UUID

from handlers.clients.stripe import StripeClient
from handlers.clients.stripe_objects import Customer, Invoice, Subscription, money

GONE = "Stripe has no such object (any more)."
NOT_OURS = "This checkout was for no subscription, and names no user."

Seen = dict[str, object]
"""What `apply_stripe_event` in `sql/` takes: customer, subscription, payment, by the names of the tables' columns."""

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
