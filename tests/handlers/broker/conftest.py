"""What broker tests stand on: an account at a broker that does as it is told, and one attempt at a job."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest

from devstack.gateway import Gateway
from devstack.keys import LOCAL
from handlers.broker.cancel_order import CancelOrder, cancel_order
from handlers.broker.execute_order import ExecuteOrder, execute_order
from handlers.clients.broker.broker import (
    BrokerError,
    BrokerOrder,
    BrokerPosition,
    BrokerStatus,
    Dedupe,
    DuplicateClientId,
    Fill,
    Hours,
    OrderRequest,
    Refused,
    Traits,
)
from handlers.clients.broker.brokers import Account, Brokers
from handlers.clients.database import Database, call
from listener import Snooze
from tests.handlers.conftest import Json, Owner, a_job

TRAITS = Traits(Dedupe.ACCOUNT, timedelta(seconds=10), misses=2, shows_closed=True, longest_client_id=48)
OPEN = Hours(is_open=True, changes_at=None)
Step = Callable[[], Awaitable[None]]
SetClock = Callable[[float], Awaitable[None]]


@dataclass
class Broker:
    """One account at a broker that dedupes by account, and the adapter of it."""

    traits: Traits = TRAITS
    orders: dict[str, BrokerOrder] = field(default_factory=dict[str, BrokerOrder])
    """What it has, by our id."""
    submitted: list[str] = field(default_factory=list[str])
    """The ids of all requests that arrived."""
    looks: int = 0
    hidden: bool = False
    """Its looks do not show what it has."""
    before: Step | None = None
    """Runs when a request is about to leave; may raise."""
    after: Step | None = None
    """Runs when the broker has done what it was asked for; may raise."""
    canceling: Step | None = None
    """Runs when it is asked to cancel; may raise."""
    cancels: list[str] = field(default_factory=list[str])
    look: Step | None = None
    """Runs when it is looked; may raise."""
    market: Hours = OPEN
    refuses: Refused | None = None
    fills_at_once: bool = False
    closed: bool = False

    def objection(self, order: OrderRequest) -> Refused | None:
        if order.quantity % 1:
            return Refused("bad_quantity", "Only whole pieces are traded.")
        return None

    async def submit(self, order: OrderRequest) -> BrokerOrder:
        if self.before:
            await self.before()
        self.submitted.append(order.client_order_id)
        if self.refuses:
            raise self.refuses
        if order.client_order_id in self.orders:
            raise DuplicateClientId("client_order_id must be unique")
        made = self.accept(order)
        if self.after:
            await self.after()
        return made

    def accept(self, order: OrderRequest) -> BrokerOrder:
        """It has the order now."""
        made = BrokerOrder(
            broker_order_id=f"b-{order.client_order_id}",
            client_order_id=order.client_order_id,
            symbol=order.symbol,
            side=order.side,
            order_type=order.order_type,
            time_in_force=order.time_in_force,
            quantity=order.quantity,
            status=BrokerStatus.FILLED if self.fills_at_once else BrokerStatus.ACCEPTED,
            filled_quantity=order.quantity if self.fills_at_once else Decimal(),
            filled_avg_price=Decimal("10.5") if self.fills_at_once else None,
            updated_at=datetime.now(UTC),
        )
        self.orders[order.client_order_id] = made
        return made

    async def find(self, client_order_id: str, symbol: str) -> BrokerOrder | None:
        self.looks += 1
        if self.look:
            await self.look()
        return None if self.hidden else self.orders.get(client_order_id)

    async def get(self, broker_order_id: str, symbol: str) -> BrokerOrder | None:
        return next((one for one in self.orders.values() if one.broker_order_id == broker_order_id), None)

    async def cancel(self, broker_order_id: str, symbol: str) -> None:
        self.cancels.append(broker_order_id)
        if self.canceling:
            await self.canceling()
        for ours, one in self.orders.items():
            if one.broker_order_id == broker_order_id and one.status == BrokerStatus.ACCEPTED:
                self.orders[ours] = replace(one, status=BrokerStatus.CANCELED)

    async def open_orders(self) -> Sequence[BrokerOrder]:
        raise NotImplementedError

    async def fills(self, since: datetime) -> Sequence[Fill]:
        raise NotImplementedError

    async def positions(self) -> Sequence[BrokerPosition]:
        raise NotImplementedError

    async def hours(self, symbol: str) -> Hours:
        return self.market

    async def close(self) -> None:
        self.closed = True


@pytest.fixture
def environment(gateway: Gateway) -> dict[str, str]:
    """The settings of a worker that has no business with Stripe."""
    return {"SUPABASE_URL": gateway.url, "SUPABASE_SERVICE_ROLE_KEY": LOCAL.service_role}


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
async def brokers(broker: Broker, db: Database) -> AsyncIterator[Brokers]:
    async def open_(account: Account) -> Any:
        return broker

    async with Brokers.open({"test": open_}, {}, db) as opened:
        yield opened


@dataclass
class Desk:
    """A user with an account, who places orders; and what a worker does about them."""

    db: Database
    owner: Owner
    brokers: Brokers
    user: UUID
    connection: UUID

    async def place(self, **words: object) -> UUID:
        """One more order; its id."""
        wish = {
            "user_id": self.user,
            "broker_connection_id": self.connection,
            "symbol": "AAPL",
            "side": "buy",
            "order_type": "limit",
            "quantity": "5",
            "limit_price": "10.50",
        } | words
        placed = await call(self.db, "place_order", placed={k: v for k, v in wish.items() if v is not None})
        return UUID(str(placed["order_id"]))

    async def attempt(self, order: UUID) -> Json:
        """One attempt at its job; what the handler answers, `again` saying that it comes back."""
        ended = await execute_order(ExecuteOrder(order_id=order), brokers=self.brokers, db=self.db)
        if isinstance(ended, Snooze):
            return {"again": ended.delay.total_seconds(), "reason": ended.reason}
        return dict(ended)

    async def cancel(self, order: UUID, asked_by: UUID | None = None) -> Json:
        """One attempt at the job that cancels it."""
        job = replace(a_job({}, "broker", "cancel_order"), user_id=asked_by)
        ended = await cancel_order(CancelOrder(order_id=order), job=job, brokers=self.brokers, db=self.db)
        if isinstance(ended, Snooze):
            return {"again": ended.delay.total_seconds(), "reason": ended.reason}
        return dict(ended)

    async def row(self, order: UUID) -> Json:
        found = await self.owner.fetchrow("select * from orders where id = $1", order)
        assert found is not None
        return dict(found)

    async def status(self, order: UUID) -> str:
        return str((await self.row(order))["status"])

    async def account(self) -> Json:
        found = await self.owner.fetchrow("select * from broker_connections where id = $1", self.connection)
        assert found is not None
        return dict(found)

    async def told(self, audience: str = "user") -> list[str]:
        """The alerts so far."""
        rows = await self.owner.fetch(
            "select data ->> 'alert_type' from jobs where type = 'notify' and"
            " coalesce(data ->> 'audience', 'user') = $1 order by id",
            audience,
        )
        return [row[0] for row in rows]


async def an_account(owner: Owner, user: UUID, **columns: object) -> UUID:
    values: dict[str, object] = {"user_id": user, "broker": "test", **columns}
    places = ", ".join(f"${n}" for n in range(1, len(values) + 1))
    words = f"insert into broker_connections ({', '.join(values)}) values ({places}) returning id"
    found = await owner.fetchval(words, *values.values())
    assert isinstance(found, UUID)
    return found


@pytest.fixture
async def clock(owner: Owner) -> SetClock:
    """Sets the database's clock so many seconds after the beginning of the test, where it stands."""
    start = datetime.now(UTC)

    async def set_to(seconds: float) -> None:
        moment = (start + timedelta(seconds=seconds)).isoformat()
        await owner.execute(
            "create or replace function public.clock_now() returns timestamptz language sql stable parallel safe"
            f" as $$ select '{moment}'::timestamptz $$"
        )

    await set_to(0)
    return set_to


@pytest.fixture
async def desk(db: Database, owner: Owner, brokers: Brokers) -> Desk:
    user = uuid4()
    return Desk(db, owner, brokers, user, await an_account(owner, user))


def raises(error: BrokerError) -> Step:
    async def step() -> None:
        raise error

    return step
