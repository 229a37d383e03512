"""Every event of Stripe's that is followed, as a table: what was before, what arrives, what it changes and tells."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from devstack.stripe import chapters as then
from devstack.stripe.books import Event
from devstack.stripe.story import Story
from tests.handlers.conftest import Json

Steps: TypeAlias = Callable[[Story], list[Event]]


@dataclass(frozen=True)
class Case:
    """`before` is followed step by step; of what `then` causes, the event of this type alone is delivered."""

    event: str
    before: tuple[Steps, ...]
    then: Steps
    shows: Json
    """Of the subscription, and of the latest payment (`paid`: its status)."""
    tells: set[str] = field(default_factory=set[str])
    alerts: set[str] = field(default_factory=set[str])


def _refund_nine(story: Story) -> list[Event]:
    return then.refund(story, 900)


NOTHING: tuple[Steps, ...] = ()
CREATED: tuple[Steps, ...] = (Story.create,)
BEGUN: tuple[Steps, ...] = (Story.begin,)
FAILED: tuple[Steps, ...] = (Story.begin, Story.fail)
REFUNDED: tuple[Steps, ...] = (Story.begin, _refund_nine)
DISPUTED: tuple[Steps, ...] = (Story.begin, then.dispute)
TRYING: tuple[Steps, ...] = (then.begin_trial,)
PAUSED: tuple[Steps, ...] = (then.begin_trial, then.pause)


def _once(status: then.Ending) -> Steps:
    return lambda story: [then.pay_once(story.books, story.now, story.user_id, status=status)[1]]


def _answered(paid: bool) -> Steps:
    def answer(story: Story) -> list[Event]:
        session = next(one for one in story.books.sessions.values() if one["mode"] == "payment")
        return [then.bank_answers(story.books, story.now, session, paid=paid)]

    return answer


ACTIVE: Json = {"status": "active", "paid": "succeeded"}
CASES = [
    # the till
    Case(
        "checkout.session.completed", CREATED, Story.activate,
        {"status": "active", "paid": None}, {"subscription_activated"},
    ),
    Case(
        "checkout.session.completed", NOTHING, _once("paid"),
        {"status": None, "paid": "succeeded", "amount": "5.00"}, {"payment_received"},
    ),
    Case("checkout.session.completed", NOTHING, _once("unpaid"), {"status": None, "paid": "pending"}),
    Case(
        "checkout.session.async_payment_succeeded", (_once("unpaid"),), _answered(True),
        {"status": None, "paid": "succeeded"}, {"payment_received"},
    ),
    Case(
        "checkout.session.async_payment_failed", (_once("unpaid"),), _answered(False),
        {"status": None, "paid": "failed"}, {"payment_failed"},
    ),
    Case("checkout.session.expired", NOTHING, _once("expired"), {"status": None, "paid": None}),
    # subscriptions
    Case("customer.subscription.created", NOTHING, Story.create, {"status": "incomplete", "paid": None}),
    Case(
        "customer.subscription.created", NOTHING, then.begin_trial,
        {"status": "trialing", "paid": None}, {"subscription_activated"},
    ),
    Case(
        "customer.subscription.updated", CREATED, Story.activate,
        {"status": "active", "paid": None}, {"subscription_activated"},
    ),
    Case("customer.subscription.updated", BEGUN, Story.fail, {"status": "past_due", "paid": "succeeded"}),
    Case("customer.subscription.deleted", BEGUN, Story.cancel, {"status": "canceled", "paid": "succeeded"}),
    Case("customer.subscription.paused", TRYING, then.pause, {"status": "paused", "paid": None}),
    Case("customer.subscription.resumed", PAUSED, then.resume, {"status": "active", "paid": None}),
    Case(
        "customer.subscription.pending_update_applied", BEGUN, lambda story: then.change_price(story, "price_new"),
        ACTIVE | {"price": "price_new"},
    ),
    Case(
        "customer.subscription.pending_update_expired", BEGUN,
        lambda story: [story.told("customer.subscription.pending_update_expired", story.subscription)], ACTIVE,
    ),
    Case(
        "customer.subscription.trial_will_end", TRYING, then.trial_will_end,
        {"status": "trialing", "paid": None}, {"trial_ending"},
    ),
    # invoices
    Case(
        "invoice.paid", CREATED, Story.activate,
        ACTIVE | {"amount": "29.00"}, {"subscription_activated", "payment_received"},
    ),
    Case(
        "invoice.payment_succeeded", BEGUN, Story.renew,
        ACTIVE | {"amount": "29.00", "payments": 2}, {"payment_received"},
    ),
    Case(
        "invoice.payment_failed", BEGUN, Story.fail,
        {"status": "past_due", "paid": "failed", "attempts": 1}, {"payment_failed"},
    ),
    Case(
        "invoice.payment_failed", FAILED, then.fail_again,
        {"status": "past_due", "paid": "failed", "attempts": 2}, {"payment_failed"},
    ),
    Case("invoice.paid", FAILED, Story.recover, ACTIVE | {"payments": 2, "attempts": 2}, {"payment_received"}),
    Case(
        "invoice.payment_action_required", BEGUN, then.ask_to_confirm,
        {"status": "past_due", "paid": "pending"}, {"payment_action_required"},
    ),
    Case(
        "invoice.payment_failed", BEGUN, then.ask_to_confirm,
        {"status": "past_due", "paid": "pending"}, {"payment_action_required"},
    ),
    Case("invoice.upcoming", BEGUN, then.upcoming, ACTIVE, {"renewal_upcoming"}),
    Case("invoice.voided", FAILED, then.void, {"status": "past_due", "paid": "void"}),
    Case(
        "invoice.marked_uncollectible", FAILED, then.give_up,
        {"status": "past_due", "paid": "failed"}, alerts={"invoice_marked_uncollectible"},
    ),
    Case(
        "invoice.finalization_failed", BEGUN, then.fail_to_finalize,
        {"status": "active", "paid": "pending", "payments": 2}, alerts={"invoice_finalization_failed"},
    ),
    # money that goes back
    Case(
        "charge.refunded", BEGUN, _refund_nine,
        ACTIVE | {"refunded": "9.00"}, {"refund_issued"},
    ),
    Case(
        "refund.created", REFUNDED, lambda story: then.refund(story, 2000),
        ACTIVE | {"refunded": "29.00"}, {"refund_issued"},
    ),
    Case(
        "refund.updated", BEGUN, lambda story: then.refund(story, 100),
        ACTIVE | {"refunded": "1.00"}, {"refund_issued"},
    ),
    Case("refund.failed", REFUNDED, then.fail_refund, ACTIVE | {"refunded": "0.00"}, alerts={"refund_failed"}),
    Case(
        "charge.dispute.created", BEGUN, then.dispute, ACTIVE | {"disputed": True}, alerts={"dispute_created"}
    ),
    Case(
        "charge.dispute.funds_withdrawn", BEGUN, then.dispute,
        ACTIVE | {"disputed": True}, alerts={"dispute_funds_withdrawn"},
    ),
    Case(
        "charge.dispute.funds_reinstated", DISPUTED, lambda story: then.close_dispute(story, "won"),
        ACTIVE | {"disputed": False}, alerts={"dispute_funds_reinstated"},
    ),
    Case(
        "charge.dispute.closed", DISPUTED, lambda story: then.close_dispute(story, "won"),
        ACTIVE | {"disputed": False}, alerts={"dispute_closed"},
    ),
    Case(
        "charge.dispute.closed", DISPUTED, lambda story: then.close_dispute(story, "lost"),
        ACTIVE | {"disputed": True}, alerts={"dispute_closed"},
    ),
    # customers
    Case(
        "customer.updated", BEGUN, lambda story: then.change_email(story, "new@example.com"),
        ACTIVE | {"email": "new@example.com", "deleted": False},
    ),
    Case("customer.deleted", BEGUN, then.delete_customer, ACTIVE | {"email": None, "deleted": True}),
    # what nobody follows
    Case("invoice.created", BEGUN, Story.renew, ACTIVE | {"payments": 1}),
]  # fmt: skip

SHOWN = """
select
    s.status, s.stripe_price_id as price, c.email, c.deleted_at is not null as deleted, p.status as paid,
    p.amount::text as amount, p.amount_refunded::text as refunded, p.disputed, p.attempt_count as attempts,
    (select count(*) from payments where user_id = $1) as payments
from (select $1::uuid as user_id) as u
left join subscriptions as s using (user_id)
left join billing_customers as c using (user_id)
left join lateral (select * from payments where user_id = $1 order by ticket desc limit 1) as p on true
"""
"""What a user's rows show; $1 is the user."""
TOLD = """
select type, data ->> 'type' as kind, idempotency_key as key
from payment_jobs where type = 'payment_notification' and user_id = $1
"""
ALERTS = "select data ->> 'alert_type' as kind from alerts_jobs where idempotency_key like 'operators:%'"
