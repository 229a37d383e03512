"""What happens more rarely in a subscriber's life at Stripe: trials, doubts about a payment, money that goes back.

Each function changes the books as Stripe would and returns the events that it would send, oldest first.
"""

from typing import Literal

from devstack.stripe.books import Books, Event, Json, new_id
from devstack.stripe.story import Story

DAY = 86_400
Ending = Literal["paid", "unpaid", "expired"]
"""How a visit to the till can end."""


def begin_trial(story: Story, days: int = 14) -> list[Event]:
    """Somebody begins without paying yet."""
    story.create()
    story.subscription |= {
        "status": "trialing",
        "trial_start": story.now,
        "trial_end": story.now + days * DAY,
    }
    return [story.told("customer.subscription.created", story.subscription)]


def trial_will_end(story: Story) -> list[Event]:
    """Three days before the trial ends."""
    return [story.told("customer.subscription.trial_will_end", story.subscription)]


def upcoming(story: Story) -> list[Event]:
    """Some days before a renewal: an invoice that does not exist yet, and so has no id."""
    bill: Json = {name: value for name, value in story.invoice.items() if name != "id"}
    bill |= {"status": "draft", "billing_reason": "upcoming", "amount_due": story.amount}
    return [story.told("invoice.upcoming", bill)]


def ask_to_confirm(story: Story) -> list[Event]:
    """A period passes, and the bank wants the user to confirm the payment."""
    told = story.next_period()
    story.invoice |= {"attempted": True, "attempt_count": 1}
    story.books.intent_of(story.invoice)["status"] = "requires_action"
    return [
        *told,
        story.told("invoice.payment_action_required", story.invoice),
        story.told("invoice.payment_failed", story.invoice),
        story.becomes("past_due"),
    ]


def fail_again(story: Story) -> list[Event]:
    """Stripe tries the failed invoice once more, in vain."""
    story.now += 3 * DAY
    story.invoice["attempt_count"] += 1
    return [story.told("invoice.payment_failed", story.invoice)]


def void(story: Story) -> list[Event]:
    """The open invoice is taken back."""
    story.invoice |= {"status": "void", "next_payment_attempt": None}
    return [story.told("invoice.voided", story.invoice)]


def give_up(story: Story) -> list[Event]:
    """Nobody believes any more that the open invoice will be paid."""
    story.invoice |= {"status": "uncollectible", "next_payment_attempt": None}
    return [story.told("invoice.marked_uncollectible", story.invoice)]


def fail_to_finalize(story: Story) -> list[Event]:
    """A period passes, and Stripe cannot make an invoice of the draft."""
    told = story.next_period()[:1]
    error = {"type": "invalid_request_error", "code": "customer_tax_location_invalid", "message": "…"}
    story.invoice |= {"status": "draft", "last_finalization_error": error}
    return [*told, story.told("invoice.finalization_failed", story.invoice)]


def pause(story: Story) -> list[Event]:
    """A trial ends, and there is no card to go on with."""
    story.subscription["status"] = "paused"
    return [story.told("customer.subscription.paused", story.subscription)]


def resume(story: Story) -> list[Event]:
    """A card was given after all."""
    story.subscription["status"] = "active"
    return [story.told("customer.subscription.resumed", story.subscription)]


def change_price(story: Story, price: str) -> list[Event]:
    """A change that had waited for its payment is in force."""
    story.subscription["items"]["data"][0]["price"]["id"] = price
    return [
        story.told("customer.subscription.pending_update_applied", story.subscription),
        story.told("customer.subscription.updated", story.subscription),
    ]


def refund(story: Story, amount: int) -> list[Event]:
    """A part of the latest charge goes back."""
    charge = story.charge
    charge["amount_refunded"] += amount
    charge["refunded"] = charge["amount_refunded"] == charge["amount"]
    made: Json = {
        "id": new_id("re"),
        "object": "refund",
        "amount": amount,
        "charge": charge["id"],
        "created": story.now,
        "currency": charge["currency"],
        "failure_reason": None,
        "metadata": {},
        "payment_intent": charge["payment_intent"],
        "status": "succeeded",
    }
    story.books.refunds[made["id"]] = made
    return [
        story.told("refund.created", made),
        story.told("refund.updated", made),
        story.told("charge.refunded", charge),
    ]


def fail_refund(story: Story) -> list[Event]:
    """The bank sends the latest refund back."""
    *_, made = story.books.refunds.values()
    made |= {"status": "failed", "failure_reason": "lost_or_stolen_card"}
    story.charge["amount_refunded"] -= made["amount"]
    story.charge["refunded"] = False
    return [story.told("refund.failed", made), story.told("refund.updated", made)]


def dispute(story: Story) -> list[Event]:
    """The payer asks their bank for the money of the latest charge, and the bank takes it for now."""
    story.charge["disputed"] = True
    made: Json = {
        "id": new_id("du"),
        "object": "dispute",
        "amount": story.charge["amount"],
        "charge": story.charge["id"],
        "created": story.now,
        "currency": story.charge["currency"],
        "evidence_details": {"due_by": story.now + 7 * DAY, "has_evidence": False},
        "livemode": story.books.livemode,
        "payment_intent": story.charge["payment_intent"],
        "reason": "fraudulent",
        "status": "needs_response",
    }
    story.books.disputes[made["id"]] = made
    return [
        story.told("charge.dispute.created", made),
        story.told("charge.dispute.funds_withdrawn", made),
    ]


def close_dispute(story: Story, end: Literal["won", "lost"]) -> list[Event]:
    """The bank decides; a charge stays `disputed` at Stripe for ever."""
    *_, made = story.books.disputes.values()
    made["status"] = end
    reinstated = [story.told("charge.dispute.funds_reinstated", made)] if end == "won" else []
    return [*reinstated, story.told("charge.dispute.closed", made)]


def change_email(story: Story, email: str) -> list[Event]:
    """The customer has another address."""
    previous = {"email": story.customer["email"]}
    story.customer["email"] = email
    return [story.told("customer.updated", story.customer, previous)]


def delete_customer(story: Story) -> list[Event]:
    """The customer is deleted, which ends the subscription; what is left is the id."""
    before = dict(story.customer)
    story.books.customers[before["id"]] = {"id": before["id"], "object": "customer", "deleted": True}
    return [story.told("customer.deleted", before), *story.cancel()]


def pay_once(
    books: Books,
    now: int,
    user_id: str | None,
    *,
    status: Ending,
    amount: int = 500,
) -> tuple[Json, Event]:
    """One visit to the till without a subscription, and its event; `unpaid` waits for a bank."""
    customer = books.new_customer(now, {})
    intent = books.new_intent(now, amount, "usd", customer["id"])
    session: Json = {
        "id": new_id("cs_test"),
        "object": "checkout.session",
        "amount_total": amount,
        "client_reference_id": user_id,
        "created": now,
        "currency": "usd",
        "customer": customer["id"],
        "invoice": None,
        "livemode": books.livemode,
        "metadata": {},
        "mode": "payment",
        "payment_intent": intent["id"],
        "payment_status": "paid" if status == "paid" else "unpaid",
        "status": "expired" if status == "expired" else "complete",
        "subscription": None,
    }
    books.sessions[session["id"]] = session
    if status == "paid":
        books.new_charge(now, intent)
    if status == "unpaid":
        intent["status"] = "processing"
    kind = "expired" if status == "expired" else "completed"
    return session, books.event(f"checkout.session.{kind}", session, now)


def bank_answers(books: Books, now: int, session: Json, *, paid: bool) -> Event:
    """Days after the till, the bank says whether there is money."""
    intent = books.intents[session["payment_intent"]]
    if not paid:
        intent["status"] = "requires_payment_method"
        return books.event("checkout.session.async_payment_failed", session, now)
    books.new_charge(now, intent)
    session["payment_status"] = "paid"
    return books.event("checkout.session.async_payment_succeeded", session, now)
