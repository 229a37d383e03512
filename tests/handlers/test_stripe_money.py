"""Money arrives in our tables to the last unit, whatever the currency, and never through a float."""

from decimal import Decimal
from typing import Literal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devstack.stripe.chapters import ask_to_confirm, bank_answers, pay_once
from devstack.stripe.double import StripeDouble
from handlers.clients.stripe.objects import money
from tests.handlers.conftest import Attempt, Owner

AMOUNTS = [
    (2900, "usd", "29.00"),
    (1, "eur", "0.01"),
    (0, "usd", "0.00"),
    (500, "jpy", "500"),
    (9_007_199_254_740_993, "jpy", "9007199254740993"),
    (1_234, "kwd", "1.234"),
    (10, "bhd", "0.010"),
    (99_999_999_999_999_999, "usd", "999999999999999.99"),
    (1_000, "isk", "10.00"),
    (1_000, "ugx", "10.00"),
]


@pytest.mark.parametrize(("minor", "currency", "amount"), AMOUNTS)
async def test_an_amount_is_stored_exactly(
    follow: Attempt, double: StripeDouble, user_id: UUID, owner: Owner, minor: int, currency: str, amount: str
) -> None:
    story = double.story(user_id, tells_user="subscription", amount=minor, currency=currency)
    paid = story.begin()[4]
    await follow(paid)
    row = await owner.fetchrow("select amount::text, currency from payments")
    assert row is not None
    assert tuple(row) == (amount, currency)


@given(st.integers(0, 10**18), st.sampled_from(["usd", "jpy", "kwd"]))
def test_no_amount_is_rounded(minor: int, currency: str) -> None:
    digits = {"usd": 2, "jpy": 0, "kwd": 3}[currency]
    assert money(minor, currency) * 10**digits == minor
    assert isinstance(money(minor, currency), Decimal)


@pytest.mark.parametrize("status", ["paid", "unpaid"])
async def test_a_payment_at_the_till_whose_invoice_comes_later_is_recorded_once(
    follow: Attempt, double: StripeDouble, user_id: UUID, owner: Owner, status: Literal["paid", "unpaid"]
) -> None:
    """Stripe writes the invoice of a single payment, where it is asked to, after the money has come."""
    story = double.story(user_id)
    session, completed = pay_once(double.books, story.now, str(user_id), status=status)
    session["invoice_creation"] = {"enabled": True}
    assert await follow(completed) == {"event": "processed"}
    story.begin()
    (invoice,) = double.books.invoices.values()
    invoice |= {"customer": session["customer"], "parent": None, "amount_paid": 500, "amount_due": 500}
    if status == "unpaid":
        answered = bank_answers(double.books, story.now, session, paid=True)
        await follow(answered)
        session["invoice"] = invoice["id"]
    await follow(double.books.event("invoice.paid", invoice, story.now))
    rows = await owner.fetch("select user_id, status, amount, stripe_invoice_id from payments")
    assert [tuple(row) for row in rows] == [(user_id, "succeeded", 5, invoice["id"])]
    told = await owner.fetch("select data ->> 'type' from jobs where type = 'payment_notification'")
    assert [row[0] for row in told] == ["payment_received"]


async def test_a_payment_at_the_till_that_fails_is_recorded_though_no_invoice_follows(
    follow: Attempt, double: StripeDouble, user_id: UUID, owner: Owner
) -> None:
    story = double.story(user_id)
    session, completed = pay_once(double.books, story.now, str(user_id), status="unpaid")
    session["invoice_creation"] = {"enabled": True}
    await follow(completed)
    await follow(bank_answers(double.books, story.now, session, paid=False))
    assert await owner.fetchval("select status from payments") == "failed"


async def test_a_payment_that_the_payer_could_not_confirm_is_told_as_failed(
    follow: Attempt, double: StripeDouble, user_id: UUID, owner: Owner
) -> None:
    """It is the same attempt: Stripe counts its own retries alone."""
    story = double.story(user_id, tells_user="subscription")
    for event in [*story.begin(), *ask_to_confirm(story)]:
        await follow(event)
    double.books.intent_of(story.invoice)["status"] = "requires_payment_method"
    for _ in range(2):
        await follow(story.told("invoice.payment_failed", story.invoice))
    told = await owner.fetch(
        "select data ->> 'type' from jobs where type = 'payment_notification' order by id"
    )
    assert [row[0] for row in told][-2:] == ["payment_action_required", "payment_failed"]


async def test_a_request_to_confirm_that_comes_too_late_asks_nobody(
    follow: Attempt, double: StripeDouble, user_id: UUID, owner: Owner
) -> None:
    """The payer could not confirm, and heard of it; then the event that asked arrives."""
    story = double.story(user_id, tells_user="subscription")
    for event in story.begin():
        await follow(event)
    asks = ask_to_confirm(story)
    double.books.intent_of(story.invoice)["status"] = "requires_payment_method"
    late = [event for event in asks if event["type"] == "invoice.payment_action_required"]
    for event in [*(event for event in asks if event not in late), *late]:
        await follow(event)
    invoice = story.invoice["id"]
    assert (
        await owner.fetchval("select status from payments where stripe_invoice_id = $1", invoice) == "failed"
    )
    told = await owner.fetch(
        "select data ->> 'type' from jobs where type = 'payment_notification' order by id"
    )
    assert [row[0] for row in told][2:] == ["payment_failed"]
