"""Stripe's objects as far as we read them, whatever API version they were rendered in.

Versions moved three things that matter: the period of a subscription (now on its items), the subscription of an invoice
(now under `parent`) and a price (once a plan). Both places are read. All else in an object is ignored, so a new field
at Stripe breaks nothing.
"""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Annotated, cast
from uuid import UUID

from pydantic import AliasChoices, AliasPath, BaseModel, BeforeValidator, ConfigDict, Field

_NO_MINOR_UNIT = frozenset("bif clp djf gnf jpy kmf krw mga pyg rwf vnd vuv xaf xof xpf".split())
_THOUSANDTHS = frozenset("bhd jod kwd omr tnd".split())


def money(minor: int, currency: str) -> Decimal:
    """Stripe's amount in the currency's own unit, exactly: 1234 is 12.34 usd, 1234 jpy and 1.234 kwd."""
    if currency in _NO_MINOR_UNIT:
        return Decimal(minor)
    return Decimal(minor).scaleb(-3 if currency in _THOUSANDTHS else -2)


def _unexpanded(value: object) -> object:
    """A reference is an id, or the object itself where the request asked for it."""
    return cast("Mapping[str, object]", value).get("id") if isinstance(value, Mapping) else value


def _expanded(value: object) -> object:
    return {"id": value} if isinstance(value, str) else value


def _if_expanded(value: object) -> object:
    return None if isinstance(value, str) else value


Reference = Annotated[str, BeforeValidator(_unexpanded)]


class StripeObject(BaseModel):
    """Read only; its values stay out of error messages."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)


def _uuid_or_none(text: object) -> UUID | None:
    """Such texts are typed in by people: what is no uuid names nobody, and the next place is asked."""
    try:
        return UUID(str(text))
    except ValueError:
        return None


_UserId = Annotated[UUID | None, BeforeValidator(_uuid_or_none)]


class Metadata(StripeObject):
    """Of the free texts that we hang on Stripe's objects, the one that says whose they are."""

    user_id: _UserId = Field(default=None, validation_alias=AliasChoices("user_id", "userId"))


_Metadata = Annotated[Metadata, BeforeValidator(lambda value: value or {})]


class Customer(StripeObject):
    """Who pays. A deleted customer keeps its id and loses the rest."""

    id: str
    metadata: _Metadata = Metadata()
    email: str | None = None
    deleted: bool = False


_Customer = Annotated[Customer, BeforeValidator(_expanded)]


class _Price(StripeObject):
    id: str
    unit_amount: int | None = None
    currency: str = ""


class _Item(StripeObject):
    price: _Price | None = Field(default=None, validation_alias=AliasChoices("price", "plan"))
    quantity: int | None = None
    current_period_start: datetime | None = None
    current_period_end: datetime | None = None


class _Items(StripeObject):
    data: tuple[_Item, ...] = ()


class Subscription(StripeObject):
    """A subscription. Times are aware UTC."""

    id: str
    customer: _Customer
    status: str
    metadata: _Metadata = Metadata()
    items: _Items = _Items()
    created: datetime
    trial_end: datetime | None = None
    cancel_at_period_end: bool = False
    canceled_at: datetime | None = None
    ended_at: datetime | None = None
    old_period_start: datetime | None = Field(default=None, validation_alias="current_period_start")
    old_period_end: datetime | None = Field(default=None, validation_alias="current_period_end")

    @property
    def period_start(self) -> datetime | None:
        """When the period that is paid for began: the latest of its items."""
        starts = [item.current_period_start for item in self.items.data if item.current_period_start]
        return self.old_period_start or max(starts, default=None)

    @property
    def period_end(self) -> datetime | None:
        """When the period that is paid for ends: the latest of its items."""
        ends = [item.current_period_end for item in self.items.data if item.current_period_end]
        return self.old_period_end or max(ends, default=None)

    @property
    def price_id(self) -> str | None:
        """The price of its first item: we sell one thing per subscription."""
        return next((item.price.id for item in self.items.data if item.price), None)

    @property
    def cost(self) -> tuple[Decimal, str] | None:
        """What a period costs, and its currency, where all items have a fixed price."""
        known = [
            (item.price.unit_amount * (item.quantity or 1), item.price.currency)
            for item in self.items.data
            if item.price is not None and item.price.unit_amount is not None
        ]
        if not known or len(known) < len(self.items.data):
            return None
        currency = known[0][1]
        return money(sum(minor for minor, _ in known), currency), currency


class _Transitions(StripeObject):
    paid_at: datetime | None = None


_SUBSCRIPTION = AliasChoices(AliasPath("parent", "subscription_details", "subscription"), "subscription")


class Invoice(StripeObject):
    """A bill, usually for one period of a subscription. Amounts are in minor units: see `money`."""

    id: str
    customer: _Customer | None = None
    subscription: Reference | None = Field(default=None, validation_alias=_SUBSCRIPTION)
    metadata: _Metadata = Metadata()
    status: str | None = None
    currency: str
    amount_due: int
    amount_paid: int
    attempted: bool = False
    attempt_count: int = 0
    next_payment_attempt: datetime | None = None
    status_transitions: _Transitions = _Transitions()
    hosted_invoice_url: str | None = None
    old_payment_intent: Reference | None = Field(default=None, validation_alias="payment_intent")


class UpcomingInvoice(StripeObject):
    """A bill to come, which has no id and cannot be looked up."""

    subscription: Reference | None = Field(default=None, validation_alias=_SUBSCRIPTION)
    amount_due: int | None = None
    currency: str = ""


class Charge(StripeObject):
    """Money that was taken, and how much of it went back."""

    id: str
    created: datetime
    amount_refunded: int
    disputed: bool = False
    payment_intent: Reference | None = None
    currency: str
    old_invoice: Reference | None = Field(default=None, validation_alias="invoice")


class PaymentIntent(StripeObject):
    """The way of a payment to its success, over as many charges as it takes."""

    id: str
    status: str | None = None
    latest_charge: Annotated[Charge | None, BeforeValidator(_if_expanded)] = None


_Intent = Annotated[PaymentIntent, BeforeValidator(_expanded)]


class _PaidBy(StripeObject):
    payment_intent: _Intent | None = None
    charge: Reference | None = None


class InvoicePayment(StripeObject):
    """Which payment was for which invoice."""

    invoice: Reference
    payment: _PaidBy = _PaidBy()


class Refund(StripeObject):
    """Money on its way back."""

    id: str
    status: str | None = None
    amount: int
    currency: str
    charge: Reference | None = None
    failure_reason: str | None = None


class _Evidence(StripeObject):
    due_by: datetime | None = None


class Dispute(StripeObject):
    """A payer who asks their bank for the money back."""

    id: str
    status: str
    reason: str | None = None
    amount: int
    currency: str
    charge: Reference
    evidence_details: _Evidence = _Evidence()

    @property
    def holds(self) -> bool:
        """Whether the money is, or may yet be, the payer's."""
        return self.status not in ("won", "warning_closed", "prevented")


class _InvoiceCreation(StripeObject):
    enabled: bool = False


class CheckoutSession(StripeObject):
    """One visit of a user to Stripe's till; the only object that always knows our user."""

    id: str
    customer: _Customer | None = None
    subscription: Reference | None = None
    invoice: Reference | None = None
    invoice_creation: _InvoiceCreation | None = None
    """Of a single payment; where it is enabled, the invoice is written after the money has come."""
    client_reference_id: _UserId = None
    metadata: _Metadata = Metadata()
    mode: str | None = None
    status: str | None = None
    payment_status: str | None = None
    payment_intent: _Intent | None = None
    amount_total: int | None = None
    currency: str | None = None

    @property
    def user_id(self) -> UUID | None:
        """Our user, if the till was told."""
        return self.client_reference_id or self.metadata.user_id
