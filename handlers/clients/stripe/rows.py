"""Stripe's objects as the rows and notices that `write_stripe_look` in `sql/` takes. Computes only."""

from collections.abc import Sequence
from uuid import UUID

from handlers.clients.stripe.objects import (
    CheckoutSession,
    Customer,
    Invoice,
    PaymentIntent,
    Subscription,
    money,
)

Row = dict[str, object]
"""By the names of a table's columns."""


def customer_row(customer: Customer | None, user_id: UUID | None) -> Row:
    """Whose it is: the user whom the object itself names, and the one whom its customer names."""
    return {
        "id": customer and customer.id,
        "user_id": user_id,
        "fallback_user_id": customer and customer.metadata.user_id,
    }


def subscription_row(subscription: Subscription) -> Row:
    """The status is Stripe's own word."""
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


def invoice_row(invoice: Invoice, *, asked: bool) -> Row:
    """`asked`: the payer has to confirm the payment."""
    paid = invoice.status == "paid"
    return {
        "stripe_invoice_id": invoice.id,
        "stripe_subscription_id": invoice.subscription,
        "status": _invoice_status(invoice, asked=asked),
        "amount": money(invoice.amount_paid if paid else invoice.amount_due, invoice.currency),
        "currency": invoice.currency,
        "attempt_count": invoice.attempt_count,
        "next_attempt_at": invoice.next_payment_attempt,
        "paid_at": invoice.status_transitions.paid_at,
        "asked": asked,
        "words": {"url": invoice.hosted_invoice_url},
    }


def _invoice_status(invoice: Invoice, *, asked: bool) -> str:
    match invoice.status:
        case "paid":
            return "succeeded"
        case "void":
            return "void"
        case "uncollectible":
            return "failed"
        case _:
            return "failed" if invoice.attempted and not asked else "pending"


def checkout_row(session: CheckoutSession, intent: PaymentIntent | None) -> Row:
    """A payment at the till that has no invoice. A bank may take days to say whether it succeeded."""
    failed = intent is not None and intent.status in ("requires_payment_method", "canceled")
    charge = intent and intent.latest_charge
    currency = session.currency or ""
    status = "succeeded" if session.payment_status == "paid" else "failed" if failed else "pending"
    return {
        "stripe_checkout_id": session.id,
        "status": status,
        "amount": money(session.amount_total or 0, currency),
        "currency": currency,
        "attempt_count": 0 if status == "pending" else 1,
        "paid_at": charge.created if charge and status == "succeeded" else None,
    }


def payer_notice(kind: str, key: str, context: Row, *, only_while: Sequence[str]) -> Row:
    """Tells the user, while the subscription has one of these statuses."""
    return {"to": "payer", "kind": kind, "key": key, "context": context, "only_while": only_while}


def operators_notice(kind: str, key: str, context: Row) -> Row:
    """Tells those who run the platform."""
    return {"to": "operators", "kind": kind, "key": key, "context": context}
