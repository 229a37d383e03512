"""Calls to brokers are counted per account, at the pace of its broker."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from uuid import UUID, uuid4

import aiohttp
import asyncpg
import pytest

from devstack.gateway import Gateway
from devstack.keys import LOCAL
from tests.sql.calls import Calls, Connection

MoveClock = Callable[[timedelta], Awaitable[None]]


async def account(owner: Connection, broker: str = "paper") -> UUID:
    made = await owner.fetchval(
        "insert into broker_connections (user_id, broker) values (gen_random_uuid(), $1) returning id", broker
    )
    assert isinstance(made, UUID)
    return made


async def wait_of(server: Calls, connection: UUID, calls: int = 1) -> float:
    told = await server.value(
        "select (take_broker_calls($1, $2) ->> 'wait_seconds')::float", connection, calls
    )
    assert isinstance(told, float)
    return told


@pytest.mark.parametrize(
    ("broker", "pace"),
    [("alpaca", (180, 60)), ("ccxt:kraken", (10, 1)), ("ccxt:binance", (50, 10)), ("mine", (60, 60))],
)
async def test_a_broker_has_its_own_pace_or_its_familys_or_the_usual_one(
    owner: Connection, broker: str, pace: tuple[int, int]
) -> None:
    await owner.execute(
        "insert into broker_limits (broker, calls, per_seconds) values ('ccxt:binance', 50, 10)"
    )
    row = await owner.fetchrow("select calls, per_seconds from broker_pace($1)", broker)
    assert row is not None
    assert tuple(row) == pace


async def test_an_account_waits_for_its_own_calls_and_for_nobody_elses(
    server: Calls, owner: Connection
) -> None:
    await owner.execute("update broker_limits set calls = 2, per_seconds = 3600 where broker = 'paper'")
    one, other = await account(owner), await account(owner)
    assert await wait_of(server, one, 2) == 0
    assert 0 < await wait_of(server, one) <= 3600
    assert await wait_of(server, other) == 0


async def test_a_held_account_takes_nothing_until_its_hold_is_over(
    server: Calls, owner: Connection, move_clock: MoveClock
) -> None:
    one = await account(owner)
    await owner.execute("update broker_connections set held_until = now() + interval '1 hour'")
    assert 3500 < await wait_of(server, one) <= 3600
    assert await owner.fetchval("select count(*) from call_limits") == 0
    await move_clock(timedelta(hours=1))
    assert await wait_of(server, one) == 0


async def test_an_account_that_is_not_there_is_told(server: Calls) -> None:
    with pytest.raises(asyncpg.NoDataFoundError, match="there is no account"):
        await wait_of(server, uuid4())


async def test_whoever_asks_at_once_from_wherever_gets_no_more_than_the_broker_allows(
    database: str, owner: Connection
) -> None:
    await owner.execute("update broker_limits set calls = 10, per_seconds = 3600 where broker = 'paper'")
    one = await account(owner)

    async def ask() -> int:
        session = await asyncpg.connect(database)
        try:
            waits = [await wait_of(Calls(session), one) for _ in range(10)]
            return waits.count(0)
        finally:
            await session.close()

    assert sum(await asyncio.gather(*(ask() for _ in range(4)))) == 10


async def test_over_the_api_each_call_counts_once_also_of_those_that_come_at_once(
    gateway: Gateway, owner: Connection
) -> None:
    await owner.execute("update broker_limits set calls = 10, per_seconds = 3600 where broker = 'paper'")
    one = await account(owner)

    async def ask(http: aiohttp.ClientSession) -> float:
        words = {"connection_id": str(one), "calls": 1}
        async with http.post(f"{gateway.url}/rest/v1/rpc/take_broker_calls", json=words) as answer:
            return float((await answer.json())["wait_seconds"])

    headers = {"apikey": LOCAL.secret, "Authorization": f"Bearer {LOCAL.secret}"}
    async with aiohttp.ClientSession(headers=headers) as http:
        waits = await asyncio.gather(*(ask(http) for _ in range(25)))
    assert waits.count(0) == 10
    assert all(3000 < wait <= 3600 for wait in waits if wait)
