"""A user with an account at a broker that the test moves by hand, and attempts at the jobs that follow it."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from devstack.gateway import Gateway
from devstack.keys import LOCAL
from handlers.broker.handle_callback import HandleCallback, handle_callback
from handlers.broker.monitor_orders import MonitorOrders, monitor_orders
from handlers.broker.sync_positions import SyncPositions, sync_positions
from handlers.clients.broker.brokers import Account, Brokers
from handlers.clients.broker.callback_signature import CallbackMasters
from handlers.clients.broker.order_words import seen
from handlers.clients.database import Database
from listener import Job, Snooze
from tests.handlers.broker.truth.exchange import Exchange
from tests.handlers.conftest import Json, Owner
from tests.sql.calls import Calls

MASTER = "m" * 32
RUNS: dict[str, Any] = {
    "monitor_orders": (MonitorOrders, monitor_orders),
    "sync_positions": (SyncPositions, sync_positions),
    "handle_callback": (HandleCallback, handle_callback),
}


@dataclass
class Desk:
    """What the platform knows of the account, and what a worker does about it."""

    db: Database
    owner: Owner
    brokers: Brokers
    exchange: Exchange
    user: UUID
    connection: UUID

    # Orders of ours

    async def order(
        self, symbol: str = "AAPL", side: str = "buy", quantity: str = "10", **words: Any
    ) -> UUID:
        """An order of ours that is at the broker, and known to be."""
        order = await self.unheard(symbol, side, quantity)
        await self.heard(order, **words)
        return order

    async def unheard(
        self, symbol: str = "AAPL", side: str = "buy", quantity: str = "10", status: str = "submitting"
    ) -> UUID:
        """An order of ours, at the broker or not: nobody has heard."""
        order = uuid4()
        await self.owner.execute(
            "insert into orders (id, user_id, broker_connection_id, client_order_id, symbol, side, order_type,"
            " quantity, status, submission, submitting_at)"
            " values ($1, $2, $3, $4, $5, $6, 'market', $7::text::numeric, $8, 1, clock_now())",
            order,
            self.user,
            self.connection,
            f"pe{order.hex}",
            symbol,
            side,
            quantity,
            status,
        )
        return order

    async def heard(self, order: UUID, **words: Any) -> None:
        """The broker accepts it, and we hear of it as execute_order does."""
        row = await self.row(order)
        picture = seen(
            self.exchange.place(
                row["symbol"],
                row["side"],
                str(row["quantity"]),
                client_order_id=row["client_order_id"],
                **words,
            )
        )
        await self.apply(order, picture)

    async def apply(self, order: UUID, picture: Json) -> None:
        """A picture of the order arrives."""
        await self.owner.execute(
            "select apply_broker_order(o, $2) from orders as o where id = $1", order, json.dumps(picture)
        )

    def at_broker(self, row: Json) -> str:
        return str(row["broker_order_id"])

    async def broker_id(self, order: UUID) -> str:
        return self.at_broker(await self.row(order))

    # What is known

    async def row(self, order: UUID) -> Json:
        found = await self.owner.fetchrow("select * from orders where id = $1", order)
        assert found is not None
        return dict(found)

    async def orders(self, source: str = "broker") -> list[Json]:
        rows = await self.owner.fetch("select * from orders where source = $1 order by created_at", source)
        return [dict(row) for row in rows]

    async def fills(self) -> list[Json]:
        return [dict(row) for row in await self.owner.fetch("select * from order_fills order by filled_at")]

    async def positions(self) -> dict[str, Json]:
        return {row["symbol"]: dict(row) for row in await self.owner.fetch("select * from positions")}

    async def account(self) -> Json:
        found = await self.owner.fetchrow("select * from broker_connections where id = $1", self.connection)
        assert found is not None
        return dict(found)

    async def told(self, kind: str | None = None) -> list[Json]:
        """The alerts so far; each has alert_type, and audience 'operators' or a user_id."""
        rows = await self.owner.fetch("select data from jobs where type = 'notify' order by id")
        alerts = [json.loads(row["data"]) for row in rows]
        return [alert for alert in alerts if kind in (None, alert["alert_type"])]

    async def jobs(self, type_: str = "monitor_orders", status: str = "pending") -> list[Json]:
        rows = await self.owner.fetch(
            "select *, extract(epoch from run_at - clock_now())::float8 as run_in from jobs"
            " where type = $1 and status = $2 order by id",
            type_,
            status,
        )
        return [dict(row) for row in rows]

    # What a worker does

    async def attempt(self, job: Job) -> Any:
        model, run = RUNS[job.type]
        payload = model.model_validate(job.data)
        if run is handle_callback:
            return await run(payload, job=job, masters=CallbackMasters(MASTER), db=self.db)
        return await run(payload, job=job, brokers=self.brokers, db=self.db)

    async def ask(self, type_: str, data: Json, uncounted: int = 0, id_: int = 1 << 40) -> Any:
        """One attempt at a job that somebody else has inserted."""
        now = datetime.now(UTC)
        return await self.attempt(Job(id_, "broker", type_, data, None, 0, now, 1, uncounted, 4, now))

    async def look(self) -> Any:
        """A look that somebody asks for, whatever is due."""
        return await self.ask("monitor_orders", {"brokerConnectionId": str(self.connection)})

    async def sync(self, uncounted: int = 0) -> Any:
        """A run at the account."""
        data = {"userId": str(self.user), "brokerConnectionId": str(self.connection)}
        return await self.ask("sync_positions", data, uncounted)

    async def work(self) -> list[Any]:
        """Runs all jobs of the family that are due, and those that they bring about; what each came to."""
        calls = Calls(self.owner)
        ended: list[Any] = []
        while jobs := (await calls.claim(queue="broker", types=list(RUNS), sweep=True))["jobs"]:
            for one in jobs:
                now = datetime.now(UTC)
                job = Job(
                    one["id"], "broker", one["type"], one["data"], None, 0, now, one["attempt"],
                    one["uncounted"], 4, now,
                )  # fmt: skip
                result = await self.attempt(job)
                ended.append(result)
                if isinstance(result, Snooze):
                    await calls.end(
                        one, "snooze", delay_seconds=result.delay.total_seconds(), reason=result.reason
                    )
                else:
                    await calls.end(one, result=result)
        return ended

    async def later(self, **by: float) -> None:
        """Time passes: all that waits for a moment is so much nearer to it."""
        await self.owner.execute(
            """
            with d as (select $1::interval as by),
            o as (
                update orders set
                    next_check_at = next_check_at - by, accepted_at = accepted_at - by, ended_at = ended_at - by,
                    updated_at = updated_at - by, hinted_at = hinted_at - by, settles_at = settles_at - by
                from d
            ),
            j as (
                update jobs set run_at = run_at - by, created_at = created_at - by from d
                where status = 'pending'
            ),
            r as (update broker_sync_runs set began_at = began_at - by, ended_at = ended_at - by from d),
            c as (update broker_connections set held_until = held_until - by from d)
            update broker_looks set looking_until = looking_until - by, began_at = began_at - by,
                wanted_at = wanted_at - by
            from d
            """,
            timedelta(**by),
        )


@pytest.fixture
def environment(gateway: Gateway) -> dict[str, str]:
    """The settings of a worker that has no business with Stripe."""
    return {"SUPABASE_URL": gateway.url, "SUPABASE_SERVICE_ROLE_KEY": LOCAL.service_role}


@pytest.fixture
def exchange() -> Exchange:
    return Exchange()


@pytest.fixture
async def brokers(exchange: Exchange, db: Database) -> AsyncIterator[Brokers]:
    async def open_(account: Account) -> Any:
        return exchange

    async with Brokers.open({"test": open_}, {}, db) as opened:
        yield opened


@pytest.fixture
async def desk(db: Database, owner: Owner, brokers: Brokers, exchange: Exchange) -> Desk:
    user = uuid4()
    connection = await owner.fetchval(
        "insert into broker_connections (user_id, broker) values ($1, 'test') returning id", user
    )
    return Desk(db, owner, brokers, exchange, user, connection)
