"""A digest as a mail: what counts first, a chart of the period, then alerts, trades and money, summed.

The chart is a table whose cells are as wide as what they stand for. Every mail client draws it, also those that show no
pictures until they are asked; it needs no attachment, so that digests leave together in one request; and it is read
out as the numbers that it shows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from html import escape
from typing import Final, Literal

from babel.dates import format_date, format_datetime
from pydantic import BaseModel, ConfigDict

from handlers.clients.alert_mail import AGAIN, MARKS, locale_of, zone_of
from handlers.clients.delivery import Reader, Severity
from handlers.clients.mail_frame import FONT, TABLE, Block, Facts, Letter, Link, shown, word
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
        return f'{TABLE}width="100%" style="{FONT}margin:0 0 16px;">{rows}</table>'

    @property
    def _most(self) -> int:
        return max(max((_all(counts) for _, counts in self.rows), default=0), 1)

    def _row(self, label: str, counts: Counts) -> str:
        parts = "".join(
            f'<td class="b" width="{max(round(84 * counts[one] / self._most), 1)}%" height="14" '
            f'bgcolor="{MARKS[one][1]}">&nbsp;</td>'
            for one in _ORDER
            if counts.get(one)
        )
        count = f'<td class="s k">{_all(counts)}</td>'
        bar = f'<table width="100%" cellspacing="0" cellpadding="0"><tr>{parts}{count}</tr></table>'
        return f'<tr class="c"><td class="s" nowrap>{escape(label)}</td><td class="w">{bar}</td></tr>'


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a head."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int = 1
    """How many columns stand to the left, as words do; the others are numbers."""
    colours: Sequence[str] = ()
    """Of the first word of each row, where it has one."""

    def text(self) -> str:
        lines = [[word(cell) for cell in row] for row in (self.head, *self.rows)]
        widths = [max(len(row[at]) for row in lines) for at in range(len(self.head))]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if at < self.texts else cell.rjust(width)
                for at, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in lines
        )

    def html(self) -> str:
        head = "".join(self._cell("th", at, escape(cell)) for at, cell in enumerate(self.head))
        body = "".join(
            f"<tr>{''.join(self._cell('td', at, shown(cell), line) for at, cell in enumerate(row))}</tr>"
            for line, row in enumerate(self.rows)
        )
        table = TABLE.replace('"t"', '"t r"').replace(' role="presentation"', "")
        return f'{table}width="100%" style="{FONT}margin:0 0 16px;"><tr>{head}</tr>{body}</table>'

    def _cell(self, tag: str, at: int, inside: str, line: int = 0) -> str:
        kind = "s" if tag == "th" else ""
        ink = ""
        if at >= self.texts:
            kind = f"{kind} n".strip()
        elif tag == "td" and at == 0 and line < len(self.colours):
            kind, ink = "mark", f' style="color:{self.colours[line]};font-weight:700;white-space:nowrap"'
        named = f' class="{kind}"' if kind else ""
        return f'<{tag}{named}{ink} dir="auto">{inside}</{tag}>'


def digest_letter(
    facts: DigestFacts, *, app_url: str | None, unsubscribe_url: str | None, is_resend: bool = False
) -> tuple[str, Letter]:
    """The subject and what the mail shows."""
    money = MoneyReader(facts.reader.locale, facts.reader.timezone)
    alerts, fills = _all(facts.severities), sum(one.fills for one in facts.trades)
    counted = [_many(alerts, "alert"), _many(fills, "trade"), *(_paid(one, money) for one in facts.payments)]
    said = [one for one in counted if not one.startswith("0 ")]
    title = f"Your {'day' if facts.period == 'daily' else 'week'}: {', '.join(said) or 'orders that ended'}"
    letter = Letter(
        title=title,
        blocks=[*_blocks(facts, money), *([AGAIN] if is_resend else [])],
        why=f"You get this because {facts.period} digests are on in your PulseEngine account.",
        mark=_window(facts),
        colour=MARKS[_worst(facts.severities)][1],
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
        blocks += [Heading("Alerts"), Table(("", "The newest of its kind", "Alerts"), rows, 2, colours)]
    if facts.trades:
        trades = [
            (f"{one.symbol} {'bought' if one.side == 'buy' else 'sold'}", str(one.fills), _plain(one.quantity, money),
             _plain(one.value, money), _plain(one.commission, money))
            for one in facts.trades
        ]  # fmt: skip
        blocks += [Heading("Trades"), Table(("", "Fills", "Quantity", "Value", "Fees"), trades)]
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
    """With the digits that somebody reads: cents, or the first four of what is less than one."""
    if abs(number) >= 1:
        return money.number(round(number, 2))
    return money.number(Decimal(f"{number:.4g}"))


def _worst(counts: Counts) -> Severity:
    for one in _ORDER:
        if counts.get(one):
            return one
    return "info"


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _all(counts: Counts) -> int:
    return sum(counts.values())
