"""A digest as a mail: what counts first, a chart of the period, then alerts, trades and money, summed.

The chart is a table whose cells are as wide as what they stand for. Every mail client draws it, also those that show no
pictures until they are asked; it needs no attachment, so that digests leave together in one request; and it is read
out as the numbers that it shows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from html import escape
from typing import Final, Literal

from babel.dates import format_date, format_datetime
from pydantic import BaseModel, ConfigDict

from handlers.clients.alert_mail import MARKS, locale_of, zone_of
from handlers.clients.delivery import Reader, Severity
from handlers.clients.mail_frame import FONT, SMALL, Block, Facts, Letter, Link, shown, word
from handlers.clients.payment_texts import Reader as MoneyReader

_ORDER: Final[Sequence[Severity]] = ("critical", "error", "warning", "info")
_MOST_BARS: Final = 31
Counts = Mapping[Severity, int]


class _Read(BaseModel):
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)


class Group(_Read):
    """Alerts of one type and severity."""

    alert_type: str
    severity: Severity
    title: str
    count: int
    last_at: datetime


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
    period_key: date
    window_start: datetime
    window_end: datetime
    reader: Reader
    severities: Counts
    groups: Sequence[Group]
    chart: Sequence[Bar]
    trades: Sequence[Trades]
    orders: Mapping[str, int]
    payments: Sequence[Money]


@dataclass(frozen=True, slots=True)
class Heading:
    """Over a part of a mail."""

    said: str

    def text(self) -> str:
        return f"{self.said.upper()}\n{'-' * len(self.said)}"

    def html(self) -> str:
        style = f"margin:24px 0 8px;{FONT}font-size:15px;line-height:22px;font-weight:700;color:#111827;"
        return f'<h2 class="ink" style="{style}">{escape(self.said)}</h2>'


@dataclass(frozen=True, slots=True)
class Chart:
    """Counts over time: a row each, with a bar in the colours of its severities."""

    rows: Sequence[tuple[str, Counts]]

    def text(self) -> str:
        widest = max((len(label) for label, _ in self.rows), default=0)
        most = self._most
        return "\n".join(
            f"{label:<{widest}}  {'█' * round(20 * _all(counts) / most)}{' ' if _all(counts) else ''}{_all(counts)}"
            for label, counts in self.rows
        )

    def html(self) -> str:
        rows = "".join(self._row(label, counts) for label, counts in self.rows)
        table = 'role="presentation" width="100%" cellspacing="0" cellpadding="0" style="margin:0 0 16px;"'
        return f"<table {table}>{rows}</table>"

    @property
    def _most(self) -> int:
        return max(max((_all(counts) for _, counts in self.rows), default=0), 1)

    def _row(self, label: str, counts: Counts) -> str:
        parts = [
            f'<td width="{max(round(84 * counts[one] / self._most), 1)}%" height="14" bgcolor="{MARKS[one][1]}" '
            f'style="background:{MARKS[one][1]};font-size:0;line-height:14px;">&nbsp;</td>'
            for one in _ORDER
            if counts.get(one)
        ]
        count = f'<td class="soft" style="{FONT}{SMALL}padding:0 0 0 8px;color:#6b7280;">{_all(counts)}</td>'
        table = 'role="presentation" width="100%" cellspacing="0" cellpadding="0"'
        bar = f"<table {table}><tr>{''.join(parts)}{count}</tr></table>"
        name = f"{FONT}{SMALL}white-space:nowrap;padding:2px 12px 2px 0;color:#6b7280;"
        return f'<tr><td class="soft" width="1" style="{name}">{escape(label)}</td><td>{bar}</td></tr>'


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a head. All but the first column stand to the right."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    colours: Sequence[str] = ()
    """Of the first word of each row, where it has one."""

    def text(self) -> str:
        lines = [[word(cell) for cell in row] for row in (self.head, *self.rows)]
        widths = [max(len(row[at]) for row in lines) for at in range(len(self.head))]
        return "\n".join(
            "  ".join(
                cell.rjust(width) if at else cell.ljust(width)
                for at, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in lines
        )

    def html(self) -> str:
        head = "".join(
            self._cell("th", at, escape(cell), "color:#6b7280;") for at, cell in enumerate(self.head)
        )
        body = "".join(
            "<tr>"
            + "".join(self._cell("td", at, shown(cell), self._ink(line, at)) for at, cell in enumerate(row))
            + "</tr>"
            for line, row in enumerate(self.rows)
        )
        table = (
            'width="100%" cellspacing="0" cellpadding="0" style="margin:0 0 16px;border-collapse:collapse;"'
        )
        return f"<table {table}><tr>{head}</tr>{body}</table>"

    def _ink(self, line: int, at: int) -> str:
        if at == 0 and line < len(self.colours):
            return f"color:{self.colours[line]};font-weight:700;white-space:nowrap;"
        return "color:#111827;"

    def _cell(self, tag: str, at: int, inside: str, ink: str) -> str:
        side = "left" if at == 0 or (self.colours and at == 1) else "right"
        style = f"{FONT}{SMALL}{ink}text-align:{side};padding:6px {0 if at == len(self.head) - 1 else 12}px 6px 0;"
        kind = "soft line" if tag == "th" else "mark line" if at == 0 and self.colours else "ink line"
        return (
            f'<{tag} class="{kind}" dir="auto" style="{style}border-bottom:1px solid #e5e7eb;vertical-align:top;'
            f'font-weight:{600 if tag == "th" else "inherit"};">{inside}</{tag}>'
        )


def digest_letter(
    facts: DigestFacts, *, app_url: str | None, unsubscribe_url: str | None
) -> tuple[str, Letter]:
    """The subject and what the mail shows."""
    money = MoneyReader(facts.reader.locale, facts.reader.timezone)
    alerts, fills = _all(facts.severities), sum(one.fills for one in facts.trades)
    counted = [_many(alerts, "alert"), _many(fills, "trade"), *(_paid(one, money) for one in facts.payments)]
    said = [one for one in counted if not one.startswith("0 ")]
    worst: Severity = next((one for one in _ORDER if facts.severities.get(one)), "info")
    title = f"Your {'day' if facts.period == 'daily' else 'week'}: {', '.join(said) or 'orders that ended'}"
    letter = Letter(
        title=title,
        blocks=_blocks(facts, money),
        why=f"You get this because {facts.period} digests are on in your PulseEngine account.",
        mark=_window(facts),
        colour=MARKS[worst][1],
        button=None if app_url is None else Link("Open PulseEngine", app_url),
        unsubscribe=None if unsubscribe_url is None else Link("Unsubscribe from digests", unsubscribe_url),
    )
    return title, letter


def _blocks(facts: DigestFacts, money: MoneyReader) -> list[Block]:
    blocks: list[Block] = []
    if facts.groups:
        counts = [(MARKS[one][0], str(facts.severities[one])) for one in _ORDER if facts.severities.get(one)]
        blocks += [
            Facts(counts),
            Chart([(_moment(one, facts), one.severities) for one in facts.chart[-_MOST_BARS:]]),
        ]
        rows = [(MARKS[one.severity][0], one.title, str(one.count)) for one in facts.groups]
        colours = [MARKS[one.severity][1] for one in facts.groups]
        blocks += [Heading("Alerts"), Table(("", "The newest of its kind", "Alerts"), rows, colours)]
    if facts.trades:
        trades = [
            (f"{one.symbol} {'bought' if one.side == 'buy' else 'sold'}", str(one.fills), _plain(one.quantity, money),
             _plain(one.value, money), _plain(one.commission, money))
            for one in facts.trades
        ]  # fmt: skip
        blocks += [Heading("Trades"), Table(("", "Fills", "Quantity", "Value", "Commission"), trades)]
    if facts.orders:
        ended = [
            (name.replace("_", " ").capitalize(), str(count)) for name, count in sorted(facts.orders.items())
        ]
        blocks += [Heading("Orders that ended"), Facts(ended)]
    if facts.payments:
        paid = [
            (
                one.currency.upper(),
                f"{money.amount(str(one.amount), one.currency)} in {_many(one.count, 'payment')}",
            )
            for one in facts.payments
        ]
        blocks += [Heading("Payments"), Facts(paid)]
    return blocks


def _window(facts: DigestFacts) -> str:
    zone, locale = zone_of(facts.reader), locale_of(facts.reader)
    start, end = facts.window_start.astimezone(zone), facts.window_end.astimezone(zone)
    return (
        f"{format_datetime(start, 'short', locale=locale)} – {format_datetime(end, 'short', locale=locale)}"
    )


def _moment(bar: Bar, facts: DigestFacts) -> str:
    """By the hour when the period is about a day, else by the day."""
    locale = locale_of(facts.reader)
    if facts.window_end - facts.window_start > timedelta(days=2):
        return format_date(bar.starts_at, "EEE d MMM", locale=locale)
    return format_datetime(bar.starts_at, "EEE HH:mm", locale=locale)


def _paid(one: Money, money: MoneyReader) -> str:
    return f"{money.amount(str(one.amount), one.currency)} paid"


def _plain(number: Decimal, money: MoneyReader) -> str:
    return money.number(number)


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _all(counts: Counts) -> int:
    return sum(counts.values())
