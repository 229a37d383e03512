"""What a digest has to say, as the database sums it, and the words for it that its channels share."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final, Literal

from babel.dates import format_datetime
from httpx import HTTPError
from pydantic import BaseModel, ConfigDict

from handlers.clients.alerts.alert_words import locale_of, zone_of
from handlers.clients.alerts.delivery import Reader, Sending, Severity
from handlers.clients.alerts.told import NotSent
from handlers.clients.database import CallFailed, Database, call
from handlers.clients.payment_texts import Reader as MoneyReader

MOST_SEVERE_FIRST: Final[Sequence[Severity]] = ("critical", "error", "warning", "info")
Counts = Mapping[Severity, int]


class _Read(BaseModel):
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)


class Group(_Read):
    """Alerts of one type and severity."""

    alert_type: str
    severity: Severity
    title: str
    count: int


class Bar(_Read):
    """The alerts of a part of the period, which begins by the reader's clock."""

    starts_at: datetime
    severities: Counts


class Trades(_Read):
    """What was bought, or sold, of one symbol."""

    symbol: str
    side: Literal["buy", "sell"]
    fills: int
    quantity: Decimal
    value: Decimal
    commission: Decimal


class Money(_Read):
    """What was paid in one currency."""

    currency: str
    count: int
    amount: Decimal


class DigestFacts(_Read):
    """As `digest_facts` answers."""

    period: Literal["daily", "weekly"]
    window_start: datetime
    window_end: datetime
    reader: Reader
    severities: Counts
    groups: Sequence[Group]
    """The most severe first."""
    chart: Sequence[Bar]
    trades: Sequence[Trades]
    orders: Mapping[str, int]
    payments: Sequence[Money]


async def facts_of_digest(db: Database, sending: Sending) -> DigestFacts | NotSent:
    """What the digest of a delivery says; or what a channel's `send` answers when it cannot be read now."""
    try:
        return DigestFacts.model_validate(await call(db, "digest_facts", digest_id=sending.digest_id))
    except (CallFailed, HTTPError) as error:
        return NotSent("no_facts", f"What the digest says could not be read ({type(error).__name__}).")


def digest_title(facts: DigestFacts) -> str:
    """The sums of it, on one line."""
    money = money_of(facts)
    counted = [
        many(total(facts.severities), "alert"),
        many(sum(one.fills for one in facts.trades), "trade"),
        *(f"{money.amount(str(one.amount), one.currency)} paid" for one in facts.payments),
    ]
    said = [one for one in counted if not one.startswith("0 ")]
    return f"Your {'day' if facts.period == 'daily' else 'week'}: {', '.join(said) or 'orders that ended'}"


def window_of(facts: DigestFacts) -> str:
    """From when until when, by the reader's clock."""
    zone, locale = zone_of(facts.reader), locale_of(facts.reader)
    start, end = facts.window_start.astimezone(zone), facts.window_end.astimezone(zone)
    return (
        f"{format_datetime(start, 'short', locale=locale)} – {format_datetime(end, 'short', locale=locale)}"
    )


def money_of(facts: DigestFacts) -> MoneyReader:
    """How the reader reads amounts."""
    return MoneyReader(facts.reader.locale, facts.reader.timezone)


def plain(number: Decimal, money: MoneyReader) -> str:
    """With the digits that somebody reads: cents, or the first four of what is less than one."""
    if abs(number) >= 1:
        return money.number(round(number, 2))
    return money.number(Decimal(f"{number:.4g}"))


def worst(counts: Counts) -> Severity:
    """The most severe that there is."""
    for one in MOST_SEVERE_FIRST:
        if counts.get(one):
            return one
    return "info"


def many(count: int, what: str) -> str:
    """1 alert, 2 alerts."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def total(counts: Counts) -> int:
    """Of all severities."""
    return sum(counts.values())
