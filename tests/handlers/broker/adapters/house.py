"""One paper account behind every adapter of the suite: what it quotes, what befalls calls, and who opens it how."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from handlers.clients.broker.broker import BrokerAdapter, OrderRequest
from handlers.clients.broker.brokers import Brokers, Connection, Open
from handlers.clients.database import Database, call
from handlers.resources import ADAPTERS
from tests.handlers.broker.adapters.corner import open_corner
from tests.handlers.conftest import Owner

SYMBOL = "BTC/USD"
KEYS = {"key_id": "PKhouse0123456789", "secret": "house-secret-0123456789"}
ALL: dict[str, Open] = {**ADAPTERS, "corner": open_corner}
"""Those of the project, and one that was written from the interface alone."""


def an_order(**words: Any) -> OrderRequest:
    """A limit order of ours that rests, unless it is said otherwise."""
    wish: dict[str, Any] = {
        "client_order_id": f"pe{uuid4().hex}",
        "symbol": SYMBOL,
        "side": "buy",
        "order_type": "limit",
        "time_in_force": "gtc",
        "quantity": Decimal("0.5"),
        "limit_price": Decimal("15000.25"),
    }
    return OrderRequest(**(wish | words))


def at_market(**words: Any) -> OrderRequest:
    return an_order(order_type="market", limit_price=None, **words)


@dataclass
class House:
    """The broker's side. Its account is opened once, whatever speaks to it."""

    db: Database
    owner: Owner
    url: str
    """Of its HTTP face."""
    account: UUID = field(default_factory=uuid4)

    async def open(self, **rules: object) -> None:
        opened = {"id": self.account, "cash": "1000000", "settings": {"market": "always"} | rules, **KEYS}
        await call(self.db, "open_paper_account", opened=opened)
        await self.quote()

    async def quote(self, bid: str = "19999.5", ask: str = "20000.5", **words: str) -> None:
        quote = {"symbol": words.pop("symbol", SYMBOL), "bid": bid, "ask": ask} | words
        await call(self.db, "note_paper_quotes", quotes=[quote])

    async def befalls(
        self, kind: str, operation: str = "submit", *, times: int = 1, seconds: float = 3
    ) -> None:
        fault = {"kind": kind, "operation": operation, "remaining": times, "seconds": str(seconds)}
        await call(self.db, "ask_for_paper_fault", account_id=self.account, fault=fault)

    async def is_well(self) -> None:
        """Nothing befalls anybody any more."""
        await call(self.db, "ask_for_paper_fault", account_id=self.account, fault=None)

    async def orders(self, client_order_id: str) -> int:
        """How many it has of this id."""
        found = await self.owner.fetchval(
            "select count(*) from paper_orders where account_id = $1 and client_order_id = $2",
            self.account,
            client_order_id,
        )
        assert isinstance(found, int)
        return found


@dataclass(frozen=True)
class Contender:
    """An adapter, and how a connection of it comes to the house."""

    broker: str

    def connection(self, house: House, **words: Any) -> Connection:
        return Connection(
            id=house.account,
            user_id=house.account,
            broker=self.broker,
            environment="paper",
            credentials_version=words.get("version", 1),
            settings={"account_id": str(house.account)} if self.broker == "paper" else {},
            credentials_env=None if self.broker == "paper" else "BROKER_HOUSE",
        )


CONTENDERS = [Contender("paper"), Contender("alpaca"), Contender("ccxt:alpaca"), Contender("corner")]


def settings_for(url: str) -> dict[str, str]:
    """The environment of a worker that trades at the house."""
    return {
        "BROKER_HOUSE_KEY_ID": KEYS["key_id"],
        "BROKER_HOUSE_SECRET_KEY": KEYS["secret"],
        "BROKER_HOUSE_API_KEY": KEYS["key_id"],
        "BROKER_HOUSE_SECRET": KEYS["secret"],
        "ALPACA_PAPER_API_BASE": url,
        "CCXT_PAPER_API_BASE": json.dumps({"alpaca": url}),
        "CORNER_URL": url,
    }


@dataclass
class Client:
    """Our side: one account at the house, through one adapter, as a worker uses it."""

    contender: Contender
    house: House
    brokers: Brokers

    def at(self) -> AbstractAsyncContextManager[BrokerAdapter]:
        return self.brokers.at(self.contender.connection(self.house))

    async def ask(self, question: Callable[[BrokerAdapter], Any]) -> Any:
        """One call."""
        async with self.at() as adapter:
            return await question(adapter)


@asynccontextmanager
async def client_of(contender: Contender, house: House, url: str | None = None) -> AsyncIterator[Client]:
    """With the address of something that stands in between, if one is given."""
    async with Brokers.open(ALL, settings_for(url or house.url), house.db) as brokers:
        yield Client(contender, house, brokers)
