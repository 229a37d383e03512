"""Loads and saves books: rows of the database, by its functions (sql/365_paper_books.sql), as words and back.

`Call` is all that is needed of the outside: run a SQL function with named arguments, give the JSON object it answers.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, TypeAlias, cast

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python

from paper.words import Book, Fill, Landing, Order, Position, Quote, Settings, Unusable

Json: TypeAlias = Mapping[str, Any]
Call: TypeAlias = Callable[[str, Json], Awaitable[Json]]

_ORDERS = TypeAdapter(list[Order])
_FILLS = TypeAdapter(list[Fill])
_POSITIONS = TypeAdapter(list[Position])
_QUOTES = TypeAdapter(list[Quote])
_MARKET = TypeAdapter(dict[str, Quote])
_LANDINGS = TypeAdapter(list[Landing])
_SETTINGS = TypeAdapter(Settings)
_TIME = TypeAdapter(datetime)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A book as it was saved, and what it takes to move it on."""

    book: Book
    version: int
    quotes: Sequence[Quote]
    now: datetime
    complete_until: datetime
    """Up to when the quotes are complete: before now, when there were too many for one load."""
    fault: Json | None


class Store:
    """The books, behind a `Call`."""

    def __init__(self, call: Call) -> None:
        self._call = call

    async def load(self, account_id: str, asked: Json) -> Loaded:
        """The book of an account. Raises Unusable when there is no such account."""
        found = await self._call("load_paper_book", {"account_id": account_id, "asked": asked})
        row = found["account"]
        if row is None:
            raise Unusable(f"there is no paper account {account_id}")
        orders, positions = (
            _ORDERS.validate_python(found["orders"]),
            _POSITIONS.validate_python(found["positions"]),
        )
        book = Book(
            id=str(row["id"]),
            settings=_settings(row["settings"]),
            opened_at=_TIME.validate_python(row["opened_at"]),
            as_of=_TIME.validate_python(row["as_of"]),
            cash=Decimal(row["cash"]),
            fees=Decimal(row["fees"]),
            numbers=int(row["numbers"]),
            orders={order.id: order for order in orders},
            positions={position.symbol: position for position in positions},
            market=_MARKET.validate_python(row["market"]),
            landings=_LANDINGS.validate_python(row["landings"]),
        )
        return Loaded(
            book,
            int(row["version"]),
            _QUOTES.validate_python(found["quotes"]),
            _TIME.validate_python(found["now"]),
            _TIME.validate_python(found["complete_until"]),
            found["fault"],
        )

    async def save(self, before: Loaded, after: Book) -> bool:
        """Saves what changed; False, and nothing is saved, when another one came first."""
        changes = {
            "cash": after.cash,
            "fees": after.fees,
            "numbers": after.numbers,
            "as_of": after.as_of,
            "market": after.market,
            "landings": after.landings,
            "orders": [
                _row(order) | {"dedupe": after.settings.dedupe}
                for order in after.orders.values()
                if before.book.orders.get(order.id) != order
            ],
            "fills": after.fills,
            "positions": [p for p in after.positions.values() if before.book.positions.get(p.symbol) != p],
        }
        words = {"account_id": after.id, "version": before.version, "changes": _plain(changes)}
        return bool((await self._call("save_paper_book", words))["saved"])

    async def orders(self, account_id: str, wanted: Json) -> list[Order]:
        """As find_paper_orders lists them; the book is not moved on."""
        words = {"account_id": account_id, "wanted": _plain(wanted)}
        return _ORDERS.validate_python((await self._call("find_paper_orders", words))["orders"])

    async def fills(self, account_id: str, wanted: Json) -> list[Fill]:
        """As find_paper_fills lists them; the book is not moved on."""
        words = {"account_id": account_id, "wanted": _plain(wanted)}
        return _FILLS.validate_python((await self._call("find_paper_fills", words))["fills"])

    async def symbols(self, account_id: str) -> list[str]:
        """What an account can trade."""
        found = await self._call("paper_symbols", {"account_id": account_id})
        return cast("list[str]", found["symbols"])

    async def account_of(self, key_id: str, secret: str) -> str | None:
        """Whose key this is."""
        found = await self._call("paper_account_of", {"key_id": key_id, "secret": secret})
        return cast("str | None", found["account_id"])

    async def ask_for_fault(self, account_id: str, fault: Json | None) -> None:
        """Asks for a fault of the account; with None, ends all of them."""
        await self._call("ask_for_paper_fault", {"account_id": account_id, "fault": fault})

    async def note_quotes(self, quotes: Iterable[Quote], feed: str = "shared") -> None:
        """Notes quotes, so that the accounts of a feed trade on them from their time on."""
        await self._call("note_paper_quotes", {"quotes": _plain(list(quotes)), "feed": feed})


def _settings(row: Json) -> Settings:
    try:
        return _SETTINGS.validate_python(row)
    except ValidationError as error:
        wrong = ", ".join(".".join(map(str, one["loc"])) for one in error.errors())
        raise Unusable(f"settings of the paper account that make no sense: {wrong}") from None


def _row(order: Order) -> dict[str, object]:
    return cast("dict[str, object]", _plain(order))


def _plain(words: object) -> object:
    """As JSON has it: Decimals and times as text."""
    return to_jsonable_python(words)
