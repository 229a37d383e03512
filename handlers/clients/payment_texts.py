"""What users read about their payments: every text in one place, with amounts and dates as they are used to them.

A text is a title and sentences. A sentence is left out when one of the facts in its braces is not known, so that nobody
reads of a date or an amount that we do not have.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from string import Formatter
from typing import Final

from babel import Locale, UnknownLocaleError
from babel.dates import format_date, get_timezone
from babel.numbers import format_currency, format_decimal, is_currency


class Notice(StrEnum):
    """The kinds of fact that a user is told."""

    SUBSCRIPTION_ACTIVATED = "subscription_activated"
    RENEWAL_UPCOMING = "renewal_upcoming"
    RENEWAL_REQUIRED = "renewal_required"
    RENEWAL_OVERDUE = "renewal_overdue"
    SUBSCRIPTION_EXPIRED = "subscription_expired"
    PAYMENT_RECEIVED = "payment_received"
    PAYMENT_FAILED = "payment_failed"
    PAYMENT_ACTION_REQUIRED = "payment_action_required"
    PAYMENT_UNDERPAID = "payment_underpaid"
    PAYMENT_REVERSED = "payment_reversed"
    REFUND_ISSUED = "refund_issued"
    TRIAL_ENDING = "trial_ending"


@dataclass(frozen=True, slots=True)
class Text:
    """A title and the sentences below it."""

    title: str
    sentences: tuple[str, ...]


TEXTS: Final[Mapping[Notice, Text]] = {
    Notice.SUBSCRIPTION_ACTIVATED: Text(
        "Your subscription is active",
        ("Thank you. {tier} is yours.", "It runs until {period_end}."),
    ),
    Notice.RENEWAL_UPCOMING: Text(
        "Your subscription renews soon",
        (
            "Your subscription to {tier} goes on by itself on {period_end}.",
            "{amount} will be collected then.",
        ),
    ),
    Notice.RENEWAL_REQUIRED: Text(
        "Your subscription ends soon",
        (
            "Your subscription to {tier} ends on {period_end}.",
            "Renew it for {amount}, and it goes on without a break.",
        ),
    ),
    Notice.RENEWAL_OVERDUE: Text(
        "Your subscription has ended",
        (
            "Your subscription to {tier} ended on {period_end}.",
            "Everything stays open until {grace_until}, so that you can renew it for {amount}.",
        ),
    ),
    Notice.SUBSCRIPTION_EXPIRED: Text(
        "Your subscription has expired",
        (
            "Your subscription to {tier} is over.",
            "Nothing of yours was deleted: come back whenever you like.",
        ),
    ),
    Notice.PAYMENT_RECEIVED: Text(
        "We received your payment",
        ("Thank you. We received {amount}.", "It pays for the time until {period_end}."),
    ),
    Notice.PAYMENT_FAILED: Text(
        "Your payment did not go through",
        (
            "We could not collect {amount}.",
            "We try again on {next_attempt_at}; you need not do anything if the card is good by then.",
            "To pay now or to use another card, open {url}",
        ),
    ),
    Notice.PAYMENT_ACTION_REQUIRED: Text(
        "Your bank asks you to confirm a payment",
        ("Your bank wants you to confirm the payment of {amount}.", "You can do that here: {url}"),
    ),
    Notice.PAYMENT_UNDERPAID: Text(
        "A part of your payment is missing",
        (
            "We received {amount}, and {missing} is missing.",
            "Send the rest to the same address; what has come is kept for you.",
        ),
    ),
    Notice.PAYMENT_REVERSED: Text(
        "A payment was taken back by its network",
        (
            "The network took back the transaction that paid {amount}, which happens when its recent history changes.",
            "The time that it paid for was taken back with it. Most wallets send it again by themselves.",
        ),
    ),
    Notice.REFUND_ISSUED: Text(
        "We sent you a refund",
        ("{amount} is on the way back to you.", "Banks take up to ten days to show it."),
    ),
    Notice.TRIAL_ENDING: Text(
        "Your trial ends soon",
        (
            "Your trial of {tier} ends on {trial_ends_at}.",
            "If you stay, {amount} is due then. If not, cancel before.",
        ),
    ),
}

AMOUNTS: Final = frozenset({"amount", "missing"})
"""Facts that are money: decimal numbers as text, in the currency that the context names."""
DATES: Final = frozenset({"period_end", "grace_until", "next_attempt_at", "trial_ends_at"})
"""Facts that are moments, in ISO format."""


@dataclass(frozen=True, slots=True)
class Reader:
    """How somebody likes to read amounts and dates; what Babel does not know is read in American English and UTC."""

    locale: str = "en_US"
    timezone: str = "UTC"

    def amount(self, value: str, currency: str) -> str:
        """Money with its currency; a token, which no country uses, with all its digits. Empty when it is no number."""
        try:
            number = Decimal(value)
        except InvalidOperation:
            return ""
        code = currency.upper()
        if is_currency(code):
            return format_currency(number, code, locale=self._known_locale)
        return f"{format_decimal(number, locale=self._known_locale, decimal_quantization=False)} {code}"

    def number(self, value: Decimal) -> str:
        """A quantity, with all its digits."""
        return format_decimal(value, locale=self._known_locale, decimal_quantization=False)

    def date(self, value: str) -> str:
        """The day of a moment where the reader lives. Empty when it is no moment."""
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return ""
        if moment.tzinfo is None:
            return ""
        try:
            zone = get_timezone(self.timezone)
        except (
            LookupError,
            ValueError,
            OSError,
        ):  # no name at all, or a folder or no zone among the zones' files
            zone = get_timezone("UTC")
        return format_date(moment.astimezone(zone), format="long", locale=self._known_locale)

    @property
    def _known_locale(self) -> Locale:
        try:
            return Locale.parse(self.locale.replace("-", "_"))
        except (UnknownLocaleError, ValueError):
            return Locale.parse("en_US")


def told(notice: Notice, context: Mapping[str, object], reader: Reader) -> tuple[str, str]:
    """The title and the message for one reader. Raises nothing: what is not known is not said."""
    text = TEXTS[notice]
    facts = {name: _fact(name, value, context, reader) for name, value in context.items()}
    said = [
        sentence.format_map(facts)
        for sentence in text.sentences
        if all(facts.get(name) for _, name, _, _ in Formatter().parse(sentence) if name)
    ]
    return text.title, " ".join(said)


def _fact(name: str, value: object, context: Mapping[str, object], reader: Reader) -> str:
    if value is None or isinstance(value, Mapping | list):
        return ""
    if name in AMOUNTS:
        return reader.amount(str(value), str(context.get("currency") or ""))
    return reader.date(str(value)) if name in DATES else str(value)
