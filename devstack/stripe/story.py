"""What happens to a subscriber at Stripe, step by step: the objects as they become, and the events that tell of it.

The objects have the shape of the current API version (`books.py` renders older ones). `chapters.py` goes on with what
happens more rarely: refunds, disputes, trials, the till without a subscription.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from devstack.stripe.books import Books, Event, Interval, Json, after, new_id

TellsUser = Literal["checkout", "subscription", "customer", "nobody"]
"""Which object says whose subscription it is."""


@dataclass(slots=True)
class Story:
    """One subscriber's life. Each step changes the books and returns the events that Stripe would send, oldest first.

    Create, activate, then any of renew, fail, recover, and cancel at the end. Time passes inside the story (a renewal
    is a period later), so `now` may lie in the future.
    """

    books: Books
    now: int
    user_id: str
    tells_user: TellsUser = "checkout"
    price: str = "price_pro_monthly"
    amount: int = 2900
    """In minor units."""
    currency: str = "usd"
    interval: Interval = "month"
    customer: Json = field(default_factory=dict[str, Any])
    subscription: Json = field(default_factory=dict[str, Any])
    invoice: Json = field(default_factory=dict[str, Any])
    """The latest."""
    charge: Json = field(default_factory=dict[str, Any])
    """The latest."""
    session: Json = field(default_factory=dict[str, Any])

    def create(self) -> list[Event]:
        """Somebody opens the till and enters a card: a customer, an incomplete subscription, an open invoice."""
        self.customer = self.books.new_customer(self.now, self._metadata("customer"))
        self.subscription = self._new_subscription()
        self.books.subscriptions[self.subscription["id"]] = self.subscription
        self.invoice = self._new_invoice("subscription_create")
        self.session = self._new_session()
        self.books.sessions[self.session["id"]] = self.session
        return [
            self.told("customer.created", self.customer),
            self.told("invoice.created", self.invoice),
            self.told("invoice.finalized", self.invoice),
            self.told("customer.subscription.created", self.subscription),
        ]

    def activate(self) -> list[Event]:
        """The first payment succeeds."""
        self.now += 3
        paid = self._pay()
        self.session |= {"status": "complete", "payment_status": "paid"}
        return [*paid, self.told("checkout.session.completed", self.session)]

    def renew(self) -> list[Event]:
        """A period passes, and the next one is paid."""
        return [*self.next_period(), *self._pay()]

    def fail(self) -> list[Event]:
        """A period passes, and the card is declined."""
        told = self.next_period()
        self.invoice |= {
            "attempted": True,
            "attempt_count": self.invoice["attempt_count"] + 1,
            "next_payment_attempt": self.now + 3 * 86_400,
        }
        return [
            *told,
            self.told("invoice.payment_failed", self.invoice),
            self.becomes("past_due"),
        ]

    def recover(self) -> list[Event]:
        """The invoice that failed is paid after all."""
        self.now += 86_400
        return self._pay()

    def cancel(self) -> list[Event]:
        """The subscription ends now."""
        self.now += 60
        self.subscription |= {"status": "canceled", "canceled_at": self.now, "ended_at": self.now}
        return [self.told("customer.subscription.deleted", self.subscription)]

    def begin(self) -> list[Event]:
        """Create and activate."""
        return [*self.create(), *self.activate()]

    def whole(self) -> list[Event]:
        """Create, activate, renew, fail and cancel: every event of it, oldest first."""
        return [*self.begin(), *self.renew(), *self.fail(), *self.cancel()]

    def _metadata(self, where: TellsUser) -> Json:
        return {"user_id": self.user_id} if self.tells_user == where else {}

    def told(self, kind: str, about: Json, previous: Json | None = None) -> Event:
        """An event about the object as it is now."""
        return self.books.event(kind, about, self.now, previous)

    def becomes(self, status: str) -> Event:
        """The subscription changes its status."""
        previous = {"status": self.subscription["status"]}
        self.subscription["status"] = status
        return self.told("customer.subscription.updated", self.subscription, previous)

    def _pay(self) -> list[Event]:
        self.invoice |= {
            "status": "paid",
            "attempted": True,
            "attempt_count": self.invoice["attempt_count"] + 1,
            "next_payment_attempt": None,
            "amount_paid": self.amount,
            "amount_remaining": 0,
        }
        self.invoice["status_transitions"]["paid_at"] = self.now
        self.charge = self.books.new_charge(self.now, self.books.intent_of(self.invoice))
        return [
            self.told("invoice.paid", self.invoice),
            self.told("invoice.payment_succeeded", self.invoice),
            self.becomes("active"),
        ]

    def next_period(self) -> list[Event]:
        """A period passes, and an invoice for the next one is open."""
        item = self.subscription["items"]["data"][0]
        previous = {"current_period_end": item["current_period_end"]}
        self.now = item["current_period_end"]
        item |= {"current_period_start": self.now, "current_period_end": after(self.interval, self.now)}
        self.invoice = self._new_invoice("subscription_cycle")
        return [
            self.told("customer.subscription.updated", self.subscription, {"items": {"data": [previous]}}),
            self.told("invoice.created", self.invoice),
            self.told("invoice.finalized", self.invoice),
        ]

    def _new_subscription(self) -> Json:
        subscription_id = new_id("sub")
        price = {
            "id": self.price,
            "object": "price",
            "active": True,
            "billing_scheme": "per_unit",
            "currency": self.currency,
            "livemode": self.books.livemode,
            "product": "prod_pro",
            "recurring": {"interval": self.interval, "interval_count": 1, "usage_type": "licensed"},
            "type": "recurring",
            "unit_amount": self.amount,
            "unit_amount_decimal": str(self.amount),
        }
        item = {
            "id": new_id("si"),
            "object": "subscription_item",
            "created": self.now,
            "current_period_start": self.now,
            "current_period_end": after(self.interval, self.now),
            "metadata": {},
            "price": price,
            "quantity": 1,
            "subscription": subscription_id,
        }
        return {
            "id": subscription_id,
            "object": "subscription",
            "billing_cycle_anchor": self.now,
            "cancel_at": None,
            "cancel_at_period_end": False,
            "canceled_at": None,
            "collection_method": "charge_automatically",
            "created": self.now,
            "currency": self.currency,
            "customer": self.customer["id"],
            "ended_at": None,
            "items": {"object": "list", "data": [item], "has_more": False, "url": "/v1/subscription_items"},
            "latest_invoice": None,
            "livemode": self.books.livemode,
            "metadata": self._metadata("subscription"),
            "start_date": self.now,
            "status": "incomplete",
            "trial_end": None,
            "trial_start": None,
        }

    def _new_invoice(self, reason: str) -> Json:
        invoice: Json = {
            "id": new_id("in"),
            "object": "invoice",
            "amount_due": self.amount,
            "amount_paid": 0,
            "amount_remaining": self.amount,
            "attempt_count": 0,
            "attempted": False,
            "billing_reason": reason,
            "created": self.now,
            "currency": self.currency,
            "customer": self.customer["id"],
            "livemode": self.books.livemode,
            "metadata": {},
            "hosted_invoice_url": f"https://invoice.example.com/{new_id('i')}",
            "last_finalization_error": None,
            "next_payment_attempt": None,
            "parent": {
                "type": "subscription_details",
                "quote_details": None,
                "subscription_details": {
                    "metadata": self.subscription["metadata"],
                    "subscription": self.subscription["id"],
                },
            },
            "period_end": self.now,
            "period_start": self.now,
            "status": "open",
            "status_transitions": {
                "finalized_at": self.now,
                "marked_uncollectible_at": None,
                "paid_at": None,
                "voided_at": None,
            },
        }
        self.books.invoices[invoice["id"]] = invoice
        self.subscription["latest_invoice"] = invoice["id"]
        intent = self.books.new_intent(self.now, self.amount, self.currency, self.customer["id"])
        self.books.pays_for(invoice, intent, self.now)
        return invoice

    def _new_session(self) -> Json:
        return {
            "id": new_id("cs_live" if self.books.livemode else "cs_test"),
            "object": "checkout.session",
            "amount_total": self.amount,
            "client_reference_id": self.user_id if self.tells_user == "checkout" else None,
            "created": self.now,
            "currency": self.currency,
            "customer": self.customer["id"],
            "invoice": self.invoice["id"],
            "livemode": self.books.livemode,
            "metadata": {},
            "mode": "subscription",
            "payment_intent": None,
            "payment_status": "unpaid",
            "status": "open",
            "subscription": self.subscription["id"],
        }
