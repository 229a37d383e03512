"""Stripe as handlers see it: looks objects up, in our types, with time-outs and errors that say what to do.

There is nothing but reading here: no call of ours can take money twice, or give it back twice. The library is imported
when the client is opened: a process that serves no payments does not pay for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar, cast

from handlers.clients.signed_delivery import secrets_in
from handlers.clients.stripe.errors import Missing, explained
from handlers.clients.stripe.objects import (
    Charge,
    CheckoutSession,
    Customer,
    Dispute,
    Invoice,
    InvoicePayment,
    PaymentIntent,
    Refund,
    StripeObject,
    Subscription,
)
from listener import Setting, Settings

if TYPE_CHECKING:
    import stripe

STRIPE_SECRET_KEY = Setting(
    "STRIPE_SECRET_KEY", "Stripe dashboard, Developers, API keys (sk_test_… or sk_live_…)"
)
STRIPE_WEBHOOK_SECRET = Setting(
    "STRIPE_WEBHOOK_SECRET", "Stripe dashboard, Developers, Webhooks, your endpoint, Signing secret (whsec_…)"
)
STRIPE_WEBHOOK_SECRET_IN_JOBS = Setting(
    STRIPE_WEBHOOK_SECRET.name, STRIPE_WEBHOOK_SECRET.where, required=False
)
STRIPE_API_BASE = Setting(
    "STRIPE_API_BASE", "set it only to use a double of Stripe: its URL", required=False, secret=False
)

TIMEOUT_SECONDS: Final = 10.0
NETWORK_RETRIES: Final = 2
"""Tries after the first within one call, for a broken connection, a time-out, a 5xx or a 409."""
PAGE: Final = 100
"""The most that Stripe lists at once."""

Found = TypeVar("Found", bound=StripeObject)
Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list. `after` is where the next part begins, or None at the end."""

    items: list[Json]
    after: str | None


class StripeClient:
    """Looks up Stripe's objects; None means that Stripe has no such object. Opened once per process by `open`.

    Raises Reject when our key or our question is wrong, and StripeAway for what passes by itself.
    """

    def __init__(self, client: stripe.StripeClient, *, livemode: bool, webhook_secrets: list[str]) -> None:
        self._client = client
        self.livemode = livemode
        """Whether the key moves real money; an event of the other mode is about objects that this key cannot see."""
        self.webhook_secrets = webhook_secrets
        """For deliveries that are verified in the job; empty when none is set."""

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[StripeClient]:
        """A client made from the environment, closed at the end of the block."""
        import stripe

        key = settings[STRIPE_SECRET_KEY.name]
        base = settings.get(STRIPE_API_BASE.name)
        http = stripe.HTTPXClient(timeout=TIMEOUT_SECONDS)
        client = stripe.StripeClient(
            key,
            http_client=http,
            max_network_retries=NETWORK_RETRIES,
            base_addresses={"api": base.rstrip("/")} if base else {},
        )
        secrets = secrets_in(settings.get(STRIPE_WEBHOOK_SECRET.name, ""))
        try:
            yield cls(client, livemode=key.startswith(("sk_live_", "rk_live_")), webhook_secrets=secrets)
        finally:
            await http.close_async()  # type: ignore[no-untyped-call]  # the library leaves it without types

    # -- one object --

    async def subscription(self, object_id: str) -> Subscription | None:
        """A subscription, with its customer's metadata."""
        return await _look(
            Subscription, self._client.v1.subscriptions.retrieve_async(object_id, {"expand": ["customer"]})
        )

    async def invoice(self, object_id: str) -> Invoice | None:
        """An invoice, with its customer's metadata."""
        return await _look(
            Invoice, self._client.v1.invoices.retrieve_async(object_id, {"expand": ["customer"]})
        )

    async def checkout_session(self, object_id: str) -> CheckoutSession | None:
        """A checkout session, with its customer's metadata."""
        return await _look(
            CheckoutSession,
            self._client.v1.checkout.sessions.retrieve_async(object_id, {"expand": ["customer"]}),
        )

    async def customer(self, object_id: str) -> Customer | None:
        """A customer; one that was deleted says so."""
        return await _look(Customer, self._client.v1.customers.retrieve_async(object_id))

    async def payment_intent(self, object_id: str) -> PaymentIntent | None:
        """The way of a payment, with the charge that it came to."""
        return await _look(
            PaymentIntent,
            self._client.v1.payment_intents.retrieve_async(object_id, {"expand": ["latest_charge"]}),
        )

    async def charge(self, object_id: str) -> Charge | None:
        """A charge."""
        return await _look(Charge, self._client.v1.charges.retrieve_async(object_id))

    async def refund(self, object_id: str) -> Refund | None:
        """A refund."""
        return await _look(Refund, self._client.v1.refunds.retrieve_async(object_id))

    async def dispute(self, object_id: str) -> Dispute | None:
        """A dispute."""
        return await _look(Dispute, self._client.v1.disputes.retrieve_async(object_id))

    async def upcoming_of(self, event_id: str) -> str | None:
        """The subscription of the invoice to come that a thin event tells of."""
        with explained("an event"):
            event = cast("Json", (await self._client.v2.core.events.retrieve_async(event_id)).to_dict())
        return cast("dict[str, str | None]", event.get("data") or {}).get("subscription")

    # -- what belongs to what --

    async def payments_of(self, invoice_id: str) -> list[InvoicePayment]:
        """By which payments an invoice was paid, or is to be, with how far each has come."""
        return await _all(
            InvoicePayment,
            self._client.v1.invoice_payments.list_async(
                {"invoice": invoice_id, "limit": PAGE, "expand": ["data.payment.payment_intent"]}
            ),
        )

    async def invoice_paid_by(self, intent_id: str) -> str | None:
        """The invoice that a payment was for."""
        found = await _all(
            InvoicePayment,
            self._client.v1.invoice_payments.list_async(
                {"payment": {"type": "payment_intent", "payment_intent": intent_id}}
            ),
        )
        return next((one.invoice for one in found), None)

    async def checkout_paid_by(self, intent_id: str) -> str | None:
        """The checkout session that a payment was for."""
        found = await _all(
            CheckoutSession, self._client.v1.checkout.sessions.list_async({"payment_intent": intent_id})
        )
        return next((one.id for one in found), None)

    async def charges_of(self, intent_id: str) -> list[Charge]:
        """The charges that one payment made."""
        return await _all(
            Charge, self._client.v1.charges.list_async({"payment_intent": intent_id, "limit": PAGE})
        )

    async def disputes_of(self, charge_id: str) -> list[Dispute]:
        """The disputes about one charge."""
        return await _all(Dispute, self._client.v1.disputes.list_async({"charge": charge_id, "limit": PAGE}))

    # -- everything, page by page --

    async def events(self, since: int, after: str | None) -> Page:
        """Events of the last thirty days at most, the newest first. `since` is in epoch seconds."""
        wanted: stripe.params.EventListParams = {"limit": PAGE, "created": {"gte": since}}
        if after is not None:
            wanted["starting_after"] = after
        return await _page(self._client.v1.events.list_async(wanted))

    async def subscriptions(self, after: str | None) -> Page:
        """Subscriptions of every status, the newest first, with their customers' metadata."""
        wanted: stripe.params.SubscriptionListParams = {
            "limit": PAGE,
            "status": "all",
            "expand": ["data.customer"],
        }
        if after is not None:
            wanted["starting_after"] = after
        return await _page(self._client.v1.subscriptions.list_async(wanted))


async def _look(kind: type[Found], request: Awaitable[stripe.StripeObject]) -> Found | None:
    try:
        with explained(f"a {kind.__name__}"):
            found = await request
    except Missing:
        return None
    return kind.model_validate(found.to_dict())


async def _all(kind: type[Found], request: Awaitable[stripe.StripeObject]) -> list[Found]:
    try:
        page = await _page(request)
    except Missing:
        return []
    return [kind.model_validate(one) for one in page.items]


async def _page(request: Awaitable[stripe.StripeObject]) -> Page:
    with explained("a list"):
        found = (await request).to_dict()
    items = cast("list[Json]", found["data"])
    return Page(items, str(items[-1]["id"]) if items and found["has_more"] else None)
