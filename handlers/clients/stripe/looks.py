"""Which of Stripe's objects an event makes us look at, and what of it we keep.

The event's own copy of the object is not read: it may be old, and an older event may come later.
"""

from collections.abc import Awaitable, Callable
from uuid import UUID

from handlers.clients.stripe.client import StripeClient
from handlers.clients.stripe.events import StripeEvent
from handlers.clients.stripe.objects import Subscription, UpcomingInvoice, money
from handlers.clients.stripe.rows import (
    Row,
    checkout_row,
    customer_row,
    invoice_row,
    operators_notice,
    payer_notice,
    subscription_row,
)

Seen = Row
"""What `write_stripe_look` in `sql/` takes: {customer, subscription?, payment?, money_back?, notices?, note?}."""

GONE: Seen = {"note": "Stripe has no such object (any more)."}
NOT_OURS: Seen = {"note": "This checkout was for no subscription, and names no user."}
NOT_PAID: Seen = {"note": "Nobody paid at this checkout."}
FOR_NOTHING: Seen = {"note": "This invoice is for no subscription."}
LIVE = ("active", "trialing")

Look = Callable[[StripeClient, StripeEvent], Awaitable[Seen]]


async def look_at_subscription(stripe: StripeClient, event: StripeEvent) -> Seen:
    """Its status, period, price and owner."""
    return await see_subscription(stripe, event.object_id)


async def look_at_trial_end(stripe: StripeClient, event: StripeEvent) -> Seen:
    """The same, and a notice once for each end of a trial that was announced."""
    subscription = await stripe.subscription(event.object_id)
    if subscription is None:
        return GONE
    key = f"{subscription.id}:{subscription.trial_end}"
    amount, currency = subscription.cost or (None, None)
    due: Row = {"amount": amount, "currency": currency}
    notice = payer_notice("trial_ending", key, due, only_while=["trialing"])
    return subscription_seen(subscription) | {"notices": [notice]}


async def look_at_invoice(stripe: StripeClient, event: StripeEvent) -> Seen:
    """The payment, and the subscription that it is for."""
    return await see_invoice(stripe, event.object_id)


async def look_at_invoice_to_confirm(stripe: StripeClient, event: StripeEvent) -> Seen:
    """The same, where the event knows that the payer was asked to confirm."""
    return await see_invoice(stripe, event.object_id, asked=True)


async def look_at_troubled_invoice(stripe: StripeClient, event: StripeEvent) -> Seen:
    """The same, and a person has to look: it could not be finalized, or was given up."""
    seen = await see_invoice(stripe, event.object_id)
    kind = event.type.replace("invoice.", "invoice_")
    return seen | {"notices": [operators_notice(kind, event.object_id, {"invoice": event.object_id})]}


async def look_at_upcoming_invoice(stripe: StripeClient, event: StripeEvent) -> Seen:
    """It has no id. What will be charged when is told as the event says, if the subscription still goes on."""
    bill = UpcomingInvoice.model_validate(event.data.object.model_extra or {})
    subscription_id = bill.subscription or await stripe.upcoming_of(event.id)
    if subscription_id is None:
        return FOR_NOTHING
    subscription = await stripe.subscription(subscription_id)
    if subscription is None:
        return GONE
    amount = None if bill.amount_due is None else str(money(bill.amount_due, bill.currency))
    notice = payer_notice(
        "renewal_upcoming",
        f"{subscription.id}:{subscription.period_end}",
        {"amount": amount, "currency": bill.currency or None},
        only_while=[] if subscription.cancel_at_period_end else LIVE,
    )
    return subscription_seen(subscription) | {"notices": [notice]}


async def look_at_checkout(stripe: StripeClient, event: StripeEvent) -> Seen:
    """Whose customer it is; then the subscription, the invoice or the payment that it led to."""
    return await see_checkout(stripe, event.object_id)


async def look_at_customer(stripe: StripeClient, event: StripeEvent) -> Seen:
    """Whose it is, the e-mail address, and whether it was deleted."""
    customer = await stripe.customer(event.object_id)
    if customer is None:
        return GONE
    return {"customer": customer_row(customer, None) | {"email": customer.email, "deleted": customer.deleted}}


async def see_subscription(stripe: StripeClient, subscription_id: str, told: UUID | None = None) -> Seen:
    """`told` is the user that another object names; what the subscription itself says goes first."""
    subscription = await stripe.subscription(subscription_id)
    return GONE if subscription is None else subscription_seen(subscription, told)


def subscription_seen(subscription: Subscription, told: UUID | None = None) -> Seen:
    """What is kept of a subscription that was looked up."""
    return {
        "customer": customer_row(subscription.customer, subscription.metadata.user_id or told),
        "subscription": subscription_row(subscription),
    }


async def see_invoice(
    stripe: StripeClient, invoice_id: str, told: UUID | None = None, *, asked: bool = False
) -> Seen:
    """`asked`: an event said that the payer has to confirm; whether it still holds, the payment itself says."""
    invoice = await stripe.invoice(invoice_id)
    if invoice is None:
        return GONE
    told = invoice.metadata.user_id or told
    if invoice.status != "open":
        asked = False
    elif invoice.attempted or asked:
        asked = await _must_confirm(stripe, invoice.id, invoice.old_payment_intent, asked=asked)
    payment: Seen = {"payment": invoice_row(invoice, asked=asked)}
    if invoice.subscription is not None:
        seen = await see_subscription(stripe, invoice.subscription, told)
        if seen is not GONE:
            return seen | payment
    return {"customer": customer_row(invoice.customer, told)} | payment


async def _must_confirm(stripe: StripeClient, invoice_id: str, intent_id: str | None, *, asked: bool) -> bool:
    """`intent_id` is what older versions have on the invoice itself; where no payment is shown, `asked` holds."""
    if intent_id is not None:
        intents = [await stripe.payment_intent(intent_id)]
    else:
        intents = [one.payment.payment_intent for one in await stripe.payments_of(invoice_id)]
    known = [intent.status for intent in intents if intent is not None and intent.status is not None]
    return "requires_action" in known if known else asked


async def see_checkout(stripe: StripeClient, session_id: str) -> Seen:
    """A session that opened an invoice, or will when it is paid, is recorded as that invoice, and never twice."""
    session = await stripe.checkout_session(session_id)
    if session is None:
        return GONE
    if session.subscription is not None:
        return await see_subscription(stripe, session.subscription, session.user_id)
    if session.invoice is not None:
        return await see_invoice(stripe, session.invoice, session.user_id)
    if session.status == "expired":
        return NOT_PAID
    if session.customer is None and session.user_id is None:
        return NOT_OURS
    seen: Seen = {"customer": customer_row(session.customer, session.user_id)}
    if session.mode == "payment" and session.status == "complete" and session.amount_total:
        intent = await stripe.payment_intent(session.payment_intent.id) if session.payment_intent else None
        payment = checkout_row(session, intent)
        has_invoice = session.invoice_creation is not None and session.invoice_creation.enabled
        if payment["status"] == "failed" or not has_invoice:
            return seen | {"payment": payment}
    return seen if session.user_id else NOT_OURS
