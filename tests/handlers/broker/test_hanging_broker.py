"""One broker that hangs: all other accounts trade as if it were not there."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID, uuid4

import pytest

from handlers import resources
from handlers.clients.broker.account import Account
from handlers.clients.broker.broker import BrokerAdapter, BrokerOrder, BrokerPosition, Fill, OrderRequest
from handlers.clients.database import Database, call
from listener.config import read_config
from listener.registry import load
from listener.service import Plan, Service
from tests.handlers.broker.conftest import Broker, an_account
from tests.handlers.conftest import Owner
from tests.handlers.stripe_door import free_port, running
from tests.waiting import until

ACCOUNTS, EACH, PLACES = 5, 6, 4
OPEN_ORDERS = "select count(*) from orders where ended_at is null and broker_connection_id = any ($1)"


@dataclass
class Market(Broker):
    """One account at a broker that fills at once; while `gate` is closed it answers nothing."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    under_way: int = 0
    most_under_way: int = 0

    async def submit(self, order: OrderRequest) -> BrokerOrder:
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self.gate.wait()
            return await super().submit(order)
        finally:
            self.under_way -= 1

    async def open_orders(self) -> Sequence[BrokerOrder]:
        await self.gate.wait()
        return []

    async def fills(self, since: datetime) -> Sequence[Fill]:
        await self.gate.wait()
        return []

    async def positions(self) -> Sequence[BrokerPosition]:
        await self.gate.wait()
        return []


@pytest.fixture
async def markets(monkeypatch: pytest.MonkeyPatch, owner: Owner) -> dict[UUID, Market]:
    """Accounts, each at a market of its own. The first one hangs."""
    made = {await an_account(owner, uuid4()): Market(fills_at_once=True) for _ in range(ACCOUNTS)}
    for market in list(made.values())[1:]:
        market.gate.set()

    async def open_(account: Account) -> BrokerAdapter:
        return made[account.connection.id]

    monkeypatch.setattr(resources, "ADAPTERS", {"test": open_})
    return made


async def place_all(db: Database, owner: Owner) -> None:
    for connection in await owner.fetch("select id, user_id from broker_connections order by created_at"):
        wish = {
            "user_id": connection["user_id"],
            "broker_connection_id": connection["id"],
            "symbol": "AAPL",
            "side": "buy",
            "order_type": "market",
            "quantity": "1",
        }
        for _ in range(EACH):
            await call(db, "place_order", placed=wish)


async def test_a_broker_that_hangs_delays_nobody_else(
    environment: dict[str, str], db: Database, owner: Owner, markets: dict[UUID, Market]
) -> None:
    (hanging, market), *_ = markets.items()
    others = [account for account in markets if account != hanging]
    registry = load("handlers", ["broker"])
    config = read_config(environment, registry.handler_settings)
    await place_all(db, owner)
    service = Service(config, registry, Plan(["broker"], port=free_port(), schedules=False, places=PLACES))

    async def is_done(accounts: list[UUID]) -> bool:
        return bool(await owner.fetchval(OPEN_ORDERS, accounts) == 0)

    async with running(service):
        try:
            await until("all others have traded", lambda: is_done(others))
            await until("the one hangs", lambda: market.under_way > 0)
            assert not market.submitted
            assert market.most_under_way <= 2 < PLACES
            assert await owner.fetchval(OPEN_ORDERS, [hanging]) == EACH
        finally:
            market.gate.set()
    for account, one in markets.items():
        assert set(Counter(one.submitted).values()) <= {1}
        assert account == hanging or len(one.orders) == EACH
