"""The paper broker as a client sees it: one account, its orders and positions, at the time of its database.

Every call loads the account's book, replays what has happened since it was saved, does its own part, and saves it all
in one transaction, if nobody else did meanwhile; else it begins anew. So two processes may serve one account.
"""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import localcontext
from typing import TypeVar
from uuid import UUID, uuid4

from paper import engine, ledger
from paper.faults import Drawn
from paper.hours import calendar_of
from paper.store import Call, Json, Loaded, Store
from paper.words import (
    EXACT,
    Account,
    Book,
    DuplicateClientId,
    Fill,
    Hours,
    Order,
    Position,
    Refused,
    Request,
    Unusable,
)

T = TypeVar("T")
_TURNS = 100
_MANY = 100
"""Quotes that are not replayed again at the next look, even when nothing came of them."""


class PaperBroker:
    """An account. Calls raise Fault where one was asked for, and Unusable when there is no such account."""

    def __init__(self, call: Call, account_id: str) -> None:
        self.account_id = account_id
        self._store = Store(call)
        self._turn = asyncio.Lock()

    async def submit(self, request: Request) -> Order:
        """Places an order, and fills what can be filled at once. Raises Refused or DuplicateClientId."""
        order_id = str(uuid4())
        asked = {"symbols": [request.symbol], "client_order_id": request.client_order_id}
        return await self._do("submit", asked, lambda book: engine.submit(book, request, order_id), request)

    async def find(self, client_order_id: str) -> Order | None:
        """The order with a client's id, open or closed; the newest, where the account takes an id twice."""

        def newest(book: Book) -> Order | None:
            known = [order for order in book.orders.values() if order.client_order_id == client_order_id]
            return max(known, key=lambda order: order.number, default=None)

        return await self._do("find", {"client_order_id": client_order_id}, newest)

    async def get(self, order_id: str) -> Order | None:
        """The order with the broker's id, open or closed."""
        if (known := _uuid(order_id)) is None:
            return None
        return await self._do("find", {"order_id": known}, lambda book: book.orders.get(known))

    async def cancel(self, order_id: str) -> tuple[bool, Order | None]:
        """Cancels what is left of an order: whether that was still possible, and the order, if there is one."""

        def canceled(book: Book) -> tuple[bool, Order | None]:
            order = book.orders.get(known or "")
            return order is not None and order.is_open, engine.cancel(book, known or "")

        known = _uuid(order_id)
        return await self._do("cancel", {"order_id": known}, canceled)

    async def cancel_all(self) -> list[Order]:
        """Cancels all that is open; what was canceled."""

        def canceled(book: Book) -> list[Order]:
            ended = [engine.cancel(book, order.id) for order in _open(book)]
            return [order for order in ended if order is not None]

        return await self._do("cancel", {}, canceled)

    async def open_orders(self) -> list[Order]:
        """All of them, the oldest first."""
        return await self._do("list", {}, _open)

    async def orders(self, wanted: Json) -> list[Order]:
        """A page of orders, open or not, as find_paper_orders lists them."""
        await self._do("list", {}, _nothing)
        return await self._store.orders(self.account_id, wanted)

    async def fills(self, since: datetime) -> list[Fill]:
        """All since then, the oldest first."""
        found = await self.fills_page({"since": since})
        while page := await self._store.fills(self.account_id, {"since": since, "beyond": _place(found)}):
            found += page
        return found

    async def fills_page(self, wanted: Json) -> list[Fill]:
        """A page of fills, as find_paper_fills lists them."""
        await self._do("list", {}, _nothing)
        return await self._store.fills(self.account_id, wanted)

    async def positions(self) -> list[Position]:
        """All that is held, with the prices of now."""
        return await self._do("list", {}, ledger.positions)

    async def account(self) -> Account:
        """The account in figures."""
        return await self._do("list", {}, ledger.account)

    async def knows(self, symbol: str) -> bool:
        """Whether there is a quote for it."""
        return await self._do("list", {"symbols": [symbol]}, lambda book: symbol in book.market)

    async def symbols(self) -> list[str]:
        """All that can be traded."""
        return await self._store.symbols(self.account_id)

    async def hours(self) -> Hours:
        """Whether the account's market is open now, and when that changes."""
        return await self._do("list", {}, lambda book: calendar_of(book.settings).at(book.as_of))

    async def ask_for_fault(self, fault: Json | None) -> None:
        """Lets a fault befall coming calls, as paper_faults has it; None ends all of them."""
        await self._store.ask_for_fault(self.account_id, fault)

    async def _do(
        self, operation: str, asked: Json, act: Callable[[Book], T], request: Request | None = None
    ) -> T:
        """One call, with the fault that befalls it."""
        async with self._turn:
            loaded = await self._store.load(self.account_id, {**asked, "operation": operation})
            fault = Drawn.of(loaded.fault, submits=request is not None)
            if fault is None:
                return await self._settled(loaded, asked, act)
            if not fault.before:
                with suppress(Refused, DuplicateClientId):  # which nobody hears of
                    await self._settled(
                        loaded, asked, _later(request, fault) if fault.late and request else act
                    )
        raise await fault.befallen()

    async def _settled(self, loaded: Loaded, asked: Json, act: Callable[[Book], T]) -> T:
        """Replays, acts and saves, as often as others come first."""
        for turn in range(1, _TURNS + 1):
            before = loaded.book
            book = replace(
                before,
                orders=dict(before.orders),
                positions=dict(before.positions),
                market=dict(before.market),
                landings=list(before.landings),
            )
            engine.advance(book, loaded.quotes, loaded.complete_until)
            with localcontext(EXACT):
                told = [act(book)] if loaded.complete_until >= loaded.now else []
            unsaved = _differ(before, book) or len(loaded.quotes) > _MANY
            saved = not unsaved or await self._store.save(loaded, book)
            if saved and told:
                return told[0]
            if not saved:
                await asyncio.sleep(random.random() * 0.005 * min(turn, 10))
            loaded = await self._store.load(self.account_id, asked)
        raise Unusable(f"paper account {self.account_id} is changed by too many at once")


def _later(request: Request, fault: Drawn) -> Callable[[Book], None]:
    order_id = str(uuid4())
    return lambda book: engine.send_late(
        book, request, order_id, book.as_of + timedelta(seconds=fault.seconds)
    )


def _differ(before: Book, after: Book) -> bool:
    """Whether anything came of it. A newer quote alone is found again at the next look."""
    return (
        (before.cash, before.numbers, before.landings) != (after.cash, after.numbers, after.landings)
        or before.orders != after.orders
        or before.positions != after.positions
    )


def _open(book: Book) -> list[Order]:
    return sorted((o for o in book.orders.values() if o.is_open), key=lambda order: order.number)


def _nothing(book: Book) -> None:
    """Only to be moved on."""


def _place(fills: list[Fill]) -> Json | None:
    return {"order_id": fills[-1].order_id, "number": fills[-1].number} if fills else None


def _uuid(text: str) -> str | None:
    try:
        return str(UUID(text))
    except ValueError:
        return None
