"""Money that goes back: what a refund or a dispute makes us look at.

How much went back is summed up from the charges, never added up from events: so a refund that is told twice, or that
fails in the end, is counted as it is.
"""

from handlers.clients.stripe.client import StripeClient
from handlers.clients.stripe.events import StripeEvent
from handlers.clients.stripe.looks import GONE, Seen, see_checkout, see_invoice
from handlers.clients.stripe.objects import Charge, Dispute, Refund, money
from handlers.clients.stripe.rows import Row, operators_notice

FOR_NOTHING_OF_OURS: Seen = {"note": "This charge paid no invoice and no checkout that we record."}


async def look_at_charge(stripe: StripeClient, event: StripeEvent) -> Seen:
    """What was paid by it, and what of that went back."""
    return await _see_charge(stripe, event.object_id)


async def look_at_refund(stripe: StripeClient, event: StripeEvent) -> Seen:
    """The same; and those who run the platform hear of money that could not be sent back."""
    refund = await stripe.refund(event.object_id)
    if refund is None or refund.charge is None:
        return GONE
    seen = await _see_charge(stripe, refund.charge)
    return seen | {"notices": [_failed(refund)]} if refund.status == "failed" else seen


async def look_at_dispute(stripe: StripeClient, event: StripeEvent) -> Seen:
    """The same; and those who run the platform hear of each step of it once."""
    dispute = await stripe.dispute(event.object_id)
    if dispute is None:
        return GONE
    seen = await _see_charge(stripe, dispute.charge)
    return seen | {"notices": [_step(dispute, event.type.rpartition(".")[2])]}


async def _see_charge(stripe: StripeClient, charge_id: str) -> Seen:
    charge = await stripe.charge(charge_id)
    if charge is None:
        return GONE
    intent_id, invoice_id = charge.payment_intent, charge.old_invoice
    if invoice_id is None and intent_id is not None:
        invoice_id = await stripe.invoice_paid_by(intent_id)
    if invoice_id is not None:
        seen, charges = await see_invoice(stripe, invoice_id), await _charges(stripe, charge, invoice_id)
    elif intent_id is not None and (session_id := await stripe.checkout_paid_by(intent_id)) is not None:
        seen, charges = await see_checkout(stripe, session_id), [charge]
    else:
        return FOR_NOTHING_OF_OURS
    return seen | {"money_back": await _sums(stripe, charges)} if "payment" in seen else seen


async def _charges(stripe: StripeClient, charge: Charge, invoice_id: str) -> list[Charge]:
    """All charges of an invoice, which may be paid in parts. Older versions know of one."""
    if charge.old_invoice is not None:
        return [charge]
    intents = [one.payment.payment_intent for one in await stripe.payments_of(invoice_id)]
    others = [one.id for one in intents if one is not None and one.id != charge.payment_intent]
    charges = [charge]
    for intent_id in others:
        charges += await stripe.charges_of(intent_id)
    return charges


async def _sums(stripe: StripeClient, charges: list[Charge]) -> Row:
    disputes: list[Dispute] = []
    for charge in charges:
        disputes += await stripe.disputes_of(charge.id) if charge.disputed else []
    return {
        "amount_refunded": sum(money(one.amount_refunded, one.currency) for one in charges),
        "disputed": any(one.holds for one in disputes),
    }


def _failed(refund: Refund) -> Row:
    amount = str(money(refund.amount, refund.currency))
    context: Row = {"amount": amount, "currency": refund.currency, "reason": refund.failure_reason}
    return operators_notice("refund_failed", refund.id, context)


def _step(dispute: Dispute, step: str) -> Row:
    context: Row = {
        "amount": str(money(dispute.amount, dispute.currency)),
        "currency": dispute.currency,
        "reason": dispute.reason,
        "status": dispute.status,
        "answer_by": dispute.evidence_details.due_by,
    }
    return operators_notice(f"dispute_{step}", dispute.id, context)
