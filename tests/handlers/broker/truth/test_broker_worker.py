"""From an order that is placed to its fill and its position, on the paper broker: a whole worker at work."""

from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest

from handlers.clients.database import Database, call
from listener.config import read_config
from listener.registry import load
from listener.service import Plan, Service
from tests.handlers.conftest import Owner
from tests.handlers.stripe_door import free_port, running
from tests.waiting import until


@pytest.fixture
async def worker(environment: dict[str, str]) -> AsyncIterator[None]:
    """A process that runs the jobs of brokers."""
    registry = load("handlers", ["broker"])
    config = read_config(environment, [*registry.handler_settings, *registry.webhook_settings])
    async with running(Service(config, registry, Plan(["broker"], port=free_port(), schedules=False))):
        yield


async def quote(owner: Owner, bid: int, ask: int) -> None:
    await owner.execute(
        "insert into paper_quotes (symbol, at, bid, ask) values ('AAPL', clock_now(), $1, $2)", bid, ask
    )


async def place(db: Database, owner: Owner, **words: object) -> tuple[UUID, UUID]:
    """A user's order on the paper broker; the ids of the account and the order."""
    user = uuid4()
    account = await owner.fetchval(
        "insert into broker_connections (user_id, broker, settings)"
        """ values ($1, 'paper', '{"rules": {"market": "always"}}') returning id""",
        user,
    )
    wish = {"user_id": user, "broker_connection_id": account, "symbol": "AAPL", "side": "buy"}
    placed = await call(db, "place_order", placed=wish | {"quantity": "3"} | words)
    return account, UUID(str(placed["order_id"]))


async def status(owner: Owner, order: UUID) -> object:
    return await owner.fetchval("select status from orders where id = $1", order)


async def is_filled(owner: Owner, order: UUID) -> bool:
    return await status(owner, order) == "filled"


async def is_held(owner: Owner, account: UUID) -> bool:
    held = "select quantity from positions where broker_connection_id = $1 and symbol = 'AAPL'"
    return bool(await owner.fetchval(held, account))


async def test_an_order_is_filled_when_the_market_comes_to_it_and_nobody_has_to_ask(
    worker: None, db: Database, owner: Owner
) -> None:
    await quote(owner, 10, 11)
    account, order = await place(db, owner, order_type="limit", limit_price="9.5", time_in_force="gtc")

    async def is_accepted() -> bool:
        return await status(owner, order) == "accepted"

    await until("it is accepted", is_accepted)
    await quote(owner, 9, 9)
    await until("it is filled", lambda: is_filled(owner, order))
    row = await owner.fetchrow("select * from order_fills where order_id = $1", order)
    assert row is not None
    assert (row["quantity"], row["price"]) == (3, 9)
    assert await owner.fetchval("select count(*) from failed_jobs") == 0
    await owner.execute("update orders set updated_at = updated_at - interval '1 minute'")  # all is quiet
    await owner.execute(
        "insert into broker_jobs (type, data) values ('sync_positions', jsonb_build_object('userId', "
        "(select user_id from orders where id = $1)))",
        order,
    )
    await until("it is held", lambda: is_held(owner, account))


async def test_a_user_id_that_is_none_becomes_a_dead_letter_that_says_so(
    worker: None, db: Database, owner: Owner
) -> None:
    """The row as the brief has it."""
    await db.from_("broker_jobs").insert({"type": "sync_positions", "data": {"userId": "123"}}).execute()

    async def is_dead() -> bool:
        return bool(await owner.fetchval("select count(*) from failed_jobs"))

    await until("it is given up", is_dead)
    dead = await owner.fetchrow("select job_type, error_class, error_message, attempts from failed_jobs")
    assert dead is not None
    assert (dead["job_type"], dead["error_class"], dead["attempts"]) == ("broker", "InvalidPayload", 1)
    assert dead["error_message"] == "The payload does not fit SyncPositions: userId: not a uuid."
