"""Where quotes come from: a CSV file of them, or a price that stands."""

import csv
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from itertools import islice

from paper.words import Quote

NAMES = ("symbol", "time", "bid", "ask")
"""The columns that a file must have; `bid_size` and `ask_size` may follow. An empty field: none, or no end."""


class BadQuotes(Exception):
    """A file that cannot be read. Says the line."""


def read(lines: Iterable[str], starts_at: datetime | None = None) -> list[Quote]:
    """The quotes of a CSV file, in the order of time; with `starts_at`, moved so that the first is then."""
    rows = csv.DictReader(lines)
    missing = set(NAMES) - set(rows.fieldnames or ())
    if missing:
        raise BadQuotes(
            f"the first line must name the columns {', '.join(NAMES)}; missing: {', '.join(sorted(missing))}"
        )
    quotes: list[Quote] = []
    for row in rows:
        try:
            quotes.append(_quote(row))
        except (ValueError, InvalidOperation, AttributeError):
            raise BadQuotes(f"line {rows.line_num} is no quote") from None
    quotes.sort(key=lambda quote: (quote.at, quote.symbol))
    if starts_at is None or not quotes:
        return quotes
    by = starts_at - quotes[0].at
    return [Quote(q.symbol, q.at + by, q.bid, q.ask, q.bid_size, q.ask_size) for q in quotes]


def batches(quotes: Iterable[Quote], size: int = 1000) -> Iterator[list[Quote]]:
    """So many at a time."""
    rest = iter(quotes)
    while batch := list(islice(rest, size)):
        yield batch


def _quote(row: dict[str, str]) -> Quote:
    at = datetime.fromisoformat(row["time"])
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    numbers = [_number(row.get(name)) for name in ("bid", "ask", "bid_size", "ask_size")]
    if not row["symbol"]:
        raise ValueError
    return Quote(row["symbol"], at, *numbers)


def _number(text: str | None) -> Decimal | None:
    if not text:
        return None
    number = Decimal(text)
    if not number.is_finite() or number < 0:
        raise ValueError
    return number
