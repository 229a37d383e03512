"""What Stripe remembers, by id: the objects as they are now, and every event that told of a change.

The objects have the shape of the current API version. `as_before_2025` renders one as older versions did, which is
what a webhook endpoint that was made years ago still receives.
"""

from __future__ import annotations

import copy
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

Json = dict[str, Any]
"""A JSON object as Stripe would send it."""

Event = Json
Interval = Literal["month", "year"]

API_VERSION: Final = "2026-10-28.endive"


def new_id(prefix: str) -> str:
    """An id as Stripe makes them: a prefix that tells the kind, then letters and digits."""
    return f"{prefix}_1{secrets.token_hex(11)}"


def after(interval: Interval, start: int) -> int:
    """The end of a period that begins at `start` (both in epoch seconds); the 31st is cut to the month's last day."""
    begins = datetime.fromtimestamp(start, UTC)
    months = begins.month - 1 + (12 if interval == "year" else 1)
    for day in (begins.day, 30, 29, 28):
        try:
            ends = begins.replace(year=begins.year + months // 12, month=months % 12 + 1, day=day)
        except ValueError:
            continue
        return int(ends.timestamp())
    raise AssertionError("every month has a 28th")


def as_before_2025(shown: Json) -> Json:
    """The same object as older API versions render it: the period on the subscription, and no `parent` on invoices."""
    old = copy.deepcopy(shown)
    if old["object"] == "subscription":
        for item in old["items"]["data"]:
            for name in ("current_period_start", "current_period_end"):
                old[name] = max(old.get(name, 0), item.pop(name))
    if old["object"] == "invoice":
        old["subscription"] = old.pop("parent")["subscription_details"]["subscription"]
    return old


@dataclass(slots=True)
class Books:
    """Everything that Stripe remembers, by id. The stories write here, the API reads and writes here."""

    customers: dict[str, Json] = field(default_factory=dict[str, Json])
    subscriptions: dict[str, Json] = field(default_factory=dict[str, Json])
    invoices: dict[str, Json] = field(default_factory=dict[str, Json])
    sessions: dict[str, Json] = field(default_factory=dict[str, Json])
    intents: dict[str, Json] = field(default_factory=dict[str, Json])
    charges: dict[str, Json] = field(default_factory=dict[str, Json])
    invoice_payments: dict[str, Json] = field(default_factory=dict[str, Json])
    refunds: dict[str, Json] = field(default_factory=dict[str, Json])
    disputes: dict[str, Json] = field(default_factory=dict[str, Json])
    events: dict[str, Event] = field(default_factory=dict[str, Event])
    thin_events: dict[str, Event] = field(default_factory=dict[str, Event])
    livemode: bool = False
    old_shapes: bool = False
    """Whether objects are rendered as they were before 2025."""

    def rendered(self, one: Json) -> Json:
        """A copy for the outside, in the shape that was chosen."""
        if not self.old_shapes:
            return copy.deepcopy(one)
        old = as_before_2025(one)
        for payment in self.invoice_payments.values():
            intent = self.intents[payment["payment"]["payment_intent"]]
            if one["object"] == "invoice" and payment["invoice"] == one["id"]:
                old |= {"payment_intent": intent["id"], "charge": intent["latest_charge"]}
            if one["object"] == "charge" and one["payment_intent"] == intent["id"]:
                old["invoice"] = payment["invoice"]
        return old

    def event(self, kind: str, about: Json, now: int, previous: Json | None = None) -> Event:
        """An event with a snapshot of its object, taken now."""
        data: Json = {"object": self.rendered(about)}
        if previous is not None:
            data["previous_attributes"] = previous
        event: Event = {
            "id": new_id("evt"),
            "object": "event",
            "api_version": "2024-06-20" if self.old_shapes else API_VERSION,
            "created": now,
            "livemode": self.livemode,
            "pending_webhooks": 1,
            "request": {"id": new_id("req"), "idempotency_key": None},
            "type": kind,
            "data": data,
        }
        self.events[event["id"]] = event
        return event

    def thin(self, event: Event) -> Event:
        """The event of the newer kind that tells the same: it names the object, and carries none."""
        about = event["data"]["object"]
        related = {"id": about["id"], "type": about["object"]} if "id" in about else None
        thin: Event = {
            "id": new_id("evt"),
            "object": "v2.core.event",
            "type": f"v1.{event['type']}",
            "livemode": event["livemode"],
            "created": datetime.fromtimestamp(event["created"], UTC).isoformat().replace("+00:00", "Z"),
            "related_object": related and related | {"url": f"/v1/{related['type']}s/{related['id']}"},
            "context": None,
        }
        parent: Json = about.get("parent") or {}
        details: Json = parent.get("subscription_details") or {}
        data: Json = {"customer": about.get("customer"), "subscription": details.get("subscription")}
        self.thin_events[thin["id"]] = thin | {"data": data}
        return thin

    def new_customer(self, now: int, metadata: Json, email: str | None = None) -> Json:
        """A customer, who has nothing yet."""
        customer: Json = {
            "id": new_id("cus"),
            "object": "customer",
            "created": now,
            "currency": None,
            "delinquent": False,
            "email": email,
            "invoice_prefix": secrets.token_hex(4).upper(),
            "livemode": self.livemode,
            "metadata": metadata,
        }
        self.customers[customer["id"]] = customer
        return customer

    def new_intent(self, now: int, amount: int, currency: str, customer: str | None) -> Json:
        """A payment that is asked for, and for which nobody has paid yet."""
        intent: Json = {
            "id": new_id("pi"),
            "object": "payment_intent",
            "amount": amount,
            "created": now,
            "currency": currency,
            "customer": customer,
            "latest_charge": None,
            "livemode": self.livemode,
            "metadata": {},
            "status": "requires_payment_method",
        }
        self.intents[intent["id"]] = intent
        return intent

    def new_charge(self, now: int, intent: Json) -> Json:
        """The money is taken."""
        charge: Json = {
            "id": new_id("ch"),
            "object": "charge",
            "amount": intent["amount"],
            "amount_refunded": 0,
            "created": now,
            "currency": intent["currency"],
            "customer": intent["customer"],
            "disputed": False,
            "livemode": self.livemode,
            "metadata": {},
            "paid": True,
            "payment_intent": intent["id"],
            "refunded": False,
            "status": "succeeded",
        }
        intent |= {"status": "succeeded", "latest_charge": charge["id"]}
        self.charges[charge["id"]] = charge
        return charge

    def pays_for(self, invoice: Json, intent: Json, now: int) -> Json:
        """Says that this payment is for that invoice."""
        link: Json = {
            "id": new_id("inpay"),
            "object": "invoice_payment",
            "amount_paid": None,
            "amount_requested": intent["amount"],
            "created": now,
            "currency": intent["currency"],
            "invoice": invoice["id"],
            "is_default": True,
            "livemode": self.livemode,
            "payment": {"type": "payment_intent", "payment_intent": intent["id"]},
            "status": "open",
        }
        self.invoice_payments[link["id"]] = link
        return link

    def intent_of(self, invoice: Json) -> Json:
        """The (latest) payment that is for this invoice."""
        links = [one for one in self.invoice_payments.values() if one["invoice"] == invoice["id"]]
        return self.intents[links[-1]["payment"]["payment_intent"]]


Clock = Callable[[], float]
"""Epoch seconds."""
