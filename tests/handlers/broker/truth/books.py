"""The paper broker with its books in memory: its own engine and our own adapter of it, without a database between."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeVar
from uuid import uuid4

from handlers.clients.broker.broker import BrokerOrder, BrokerPosition, Dedupe, Fill, OutcomeUnknown
from handlers.clients.broker.paper import PaperAccount
from paper import PaperBroker, engine
from paper.words import Book, Position, Quote, Request, Settings
from paper.words import Fill as PaperFill
from tests.handlers.broker.truth.exchange import Step

T = TypeVar("T")
RICH = Decimal(10**9)


class Books(PaperBroker):
    """One account, at the time of this machine."""

    def __init__(self) -> None:
        now = datetime.now(UTC)
        rules = Settings(market="always", shorting=True)
        self.book = Book("paper", rules, opened_at=now, as_of=now, cash=RICH)

    async def _do(self, operation: str, asked: Any, act: Callable[[Book], T], request: Any = None) -> T:
        self.quote()
        return act(self.book)

    async def fills(self, since: datetime) -> list[PaperFill]:
        return [fill for fill in self.book.fills if fill.filled_at >= since]

    def quote(self, symbol: str | None = None, price: int = 0, size: int | None = None) -> None:
        """The market moves, or only time passes."""
        now, sized = datetime.now(UTC), None if size is None else Decimal(size)
        quotes = [Quote(symbol, now, Decimal(price), Decimal(price), sized, sized)] if symbol else []
        engine.advance(self.book, quotes, now)

    def by_hand(self, request: Request) -> None:
        """An order that somebody places without us."""
        self.quote()
        engine.submit(self.book, request, str(uuid4()))

    def cancel_now(self, order_id: str) -> None:
        """The broker, or somebody without us, cancels an order."""
        self.quote()
        engine.cancel(self.book, order_id)

    def correct(self, symbol: str, quantity: int) -> None:
        """The broker books pieces in or out, without an order."""
        held = self.book.positions.get(symbol, Position(symbol))
        self.book.positions[symbol] = replace(held, quantity=held.quantity + quantity)


class Line(PaperAccount):
    """Our adapter of the account, over a line that fails and delays."""

    __slots__ = ("failing", "meanwhile")

    def __init__(self, books: Books) -> None:
        super().__init__(books, Dedupe.ACCOUNT)
        object.__setattr__(self, "failing", [])
        object.__setattr__(self, "meanwhile", [])

    failing: list[bool]
    """For the next calls: whether they bring no answer."""
    meanwhile: list[Step]
    """What happens while the next list of open orders is under way to us."""

    async def _answered(self, answer: T) -> T:
        if self.failing and self.failing.pop(0):
            raise OutcomeUnknown("no answer")
        return answer

    async def open_orders(self) -> Sequence[BrokerOrder]:
        shown = await super().open_orders()
        while self.meanwhile:
            await self.meanwhile.pop()()
        return await self._answered(shown)

    async def get(self, broker_order_id: str, symbol: str) -> BrokerOrder | None:
        return await self._answered(await super().get(broker_order_id, symbol))

    async def fills(self, since: datetime) -> Sequence[Fill]:
        return await self._answered(await super().fills(since))

    async def positions(self) -> Sequence[BrokerPosition]:
        return await self._answered(await super().positions())
