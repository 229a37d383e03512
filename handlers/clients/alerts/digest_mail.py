"""A digest as a mail: what counts first, a chart of the period, then alerts, trades and money, summed.

The chart is a table whose cells are as wide as what they stand for. Every mail client draws it, also those that show no
pictures until they are asked; it needs no attachment, so that digests leave together in one request; and it is read
out as the numbers that it shows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from html import escape
from typing import Final

from babel.dates import format_date, format_datetime

from handlers.clients.alerts.alert_mail import AGAIN
from handlers.clients.alerts.alert_words import MARKS, locale_of
from handlers.clients.alerts.digest import (
    MOST_SEVERE_FIRST,
    Bar,
    Counts,
    DigestFacts,
    digest_title,
    many,
    money_of,
    plain,
    total,
    window_of,
    worst,
)
from handlers.clients.alerts.mail_frame import FONT, TABLE, Block, Facts, Letter, Link, shown, word

_MOST_BARS: Final = 31


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
            f"{label:<{widest}}  {'█' * round(20 * total(counts) / most)}{' ' if total(counts) else ''}{total(counts)}"
            for label, counts in self.rows
        )

    def html(self) -> str:
        rows = "".join(self._row(label, counts) for label, counts in self.rows)
        return f'{TABLE}width="100%" style="{FONT}margin:0 0 16px;">{rows}</table>'

    @property
    def _most(self) -> int:
        return max(max((total(counts) for _, counts in self.rows), default=0), 1)

    def _row(self, label: str, counts: Counts) -> str:
        parts = "".join(
            f'<td class="b" width="{max(round(84 * counts[one] / self._most), 1)}%" height="14" '
            f'bgcolor="{MARKS[one][1]}">&nbsp;</td>'
            for one in MOST_SEVERE_FIRST
            if counts.get(one)
        )
        count = f'<td class="s k">{total(counts)}</td>'
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
    title = digest_title(facts)
    letter = Letter(
        title=title,
        blocks=[*_blocks(facts), *([AGAIN] if is_resend else [])],
        why=f"You get this because {facts.period} digests are on in your PulseEngine account.",
        mark=window_of(facts),
        colour=MARKS[worst(facts.severities)][1],
        button=None if app_url is None else Link("Open PulseEngine", app_url),
        unsubscribe=None if unsubscribe_url is None else Link("Unsubscribe from digests", unsubscribe_url),
    )
    return title, letter


def _blocks(facts: DigestFacts) -> list[Block]:
    money = money_of(facts)
    blocks: list[Block] = []
    if facts.groups:
        counts = [
            (MARKS[one][0], str(facts.severities[one]))
            for one in MOST_SEVERE_FIRST
            if facts.severities.get(one)
        ]
        blocks += [
            Facts(counts),
            Chart([(_moment(one, facts), one.severities) for one in facts.chart[-_MOST_BARS:]]),
        ]
        rows = [(MARKS[one.severity][0], one.title, str(one.count)) for one in facts.groups]
        colours = [MARKS[one.severity][1] for one in facts.groups]
        blocks += [Heading("Alerts"), Table(("", "The newest of its kind", "Alerts"), rows, 2, colours)]
    if facts.trades:
        trades = [
            (f"{one.symbol} {'bought' if one.side == 'buy' else 'sold'}", str(one.fills), plain(one.quantity, money),
             plain(one.value, money), plain(one.commission, money))
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
                f"{money.amount(str(one.amount), one.currency)} in {many(one.count, 'payment')}",
            )
            for one in facts.payments
        ]
        blocks += [Heading("Payments"), Facts(paid)]
    return blocks


def _moment(bar: Bar, facts: DigestFacts) -> str:
    """By the hour when the period is about a day, else by the day."""
    locale = locale_of(facts.reader)
    if facts.window_end - facts.window_start > timedelta(days=2):
        return format_date(bar.starts_at, "EEE d MMM", locale=locale)
    return format_datetime(bar.starts_at, "EEE HH:mm", locale=locale)
