"""How soon an order is at its broker, and what one broker that hangs costs the others.

    .venv/bin/python -m bench.orders --orders 300 --burst 1000 --pairs 3

The database, the API and the worker are processes of their own. The broker takes no time and notes when a request
arrives. Jobs are inserted over the API, as an app does, and the time runs from before that request; of an
INSERT by SQL the local stack hears when it next looks at its log, every 20 ms, where a real Realtime streams.
"""

import argparse
import asyncio
import json
import random
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias

import aiohttp
import asyncpg

from bench.alpaca import HANGS, WORKS, Alpaca
from bench.stack import ROOT, Stack, running_stack, running_worker
from devstack.keys import LOCAL

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_PLACES = 50
_ACCOUNTS = 50
_WARM_UP = 20
_MAKE_ORDER = """
    insert into orders (id, user_id, broker_connection_id, client_order_id, symbol, side, order_type, quantity)
    select n.id, c.user_id, c.id, 'pe' || replace(n.id::text, '-', ''), 'AAPL', 'buy', 'market', 1
    from broker_connections as c, gen_random_uuid() as n (id)
    limit 1
    returning id::text, client_order_id
"""
_INSERT_JOB = (
    "insert into broker_jobs (type, data) values ('execute_order', jsonb_build_object('order_id', $1::text))"
)
_HEADERS = {"apikey": LOCAL.secret, "Authorization": f"Bearer {LOCAL.secret}", "Prefer": "return=minimal"}
_PLACE = """
    select count(place_order(jsonb_build_object(
        'user_id', c.user_id, 'broker_connection_id', c.id, 'symbol', 'AAPL', 'side', 'buy', 'order_type', 'limit',
        'limit_price', '200', 'quantity', '1'
    )))
    from generate_series(1, $1::integer) as n, broker_connections as c
"""
_TAKEN = """
    select extract(epoch from o.accepted_at - o.created_at)::float * 1000 as ms
    from orders as o inner join broker_connections as c on c.id = o.broker_connection_id
    where c.credentials_env = 'BROKER_WORKS' and o.created_at = (select max(newest.created_at) from orders as newest)
"""


@dataclass(frozen=True, slots=True)
class Way:
    """How the worker hears of an insert."""

    name: str
    listen: str
    at_once: bool = True
    by_sql: bool = False


WAYS = (
    Way("changes of tables, at once", "postgres_changes"),
    Way("changes, at the real pace", "postgres_changes", at_once=False),
    Way("broadcasts", "broadcast"),
    Way("broadcasts, INSERT by SQL", "broadcast", by_sql=True),
)
_BROADCASTS = WAYS[2]


@asynccontextmanager
async def _running(way: Way, hanging: int, working: int) -> AsyncIterator[tuple[Connection, Alpaca, str]]:
    """A worker that trades on so many accounts; the owner of its database, its broker and its API."""
    async with Alpaca.open() as broker, running_stack(at_once=way.at_once) as stack:
        owner = await asyncpg.connect(stack.dsn)
        try:
            for kind, accounts in ((HANGS, hanging), (WORKS, working)):
                await owner.execute(
                    "insert into broker_connections (user_id, broker, credentials_env)"
                    " select gen_random_uuid(), 'alpaca', $1 from generate_series(1, $2::integer)",
                    f"BROKER_{kind.upper()}",
                    accounts,
                )
            await owner.execute(
                "update broker_limits set calls = 10000, per_seconds = 1"
            )  # not what is measured
            await owner.execute("select announce_by_broadcast($1)", way.listen == "broadcast")
            async with _trading(stack, broker, way):
                yield owner, broker, stack.url
        finally:
            await owner.close()


@asynccontextmanager
async def _trading(stack: Stack, broker: Alpaca, way: Way) -> AsyncIterator[None]:
    keys = {
        f"BROKER_{kind.upper()}": json.dumps({"key_id": kind, "secret_key": "of the bench"})
        for kind in (HANGS, WORKS)
    }
    settings = {**keys, "PULSE_LISTEN": way.listen, "ALPACA_PAPER_API_BASE": broker.url}
    async with running_worker(stack, _PLACES, queue="broker", project=ROOT, **settings):
        yield


async def _soon(way: Way, orders: int) -> list[float]:
    """Milliseconds from the INSERT of a job to the request at the broker, one at a time."""
    took: list[float] = []
    async with _running(way, 0, 1) as (owner, broker, url), aiohttp.ClientSession(headers=_HEADERS) as http:
        for _ in range(orders + _WARM_UP):
            order = await owner.fetchrow(_MAKE_ORDER)
            assert order is not None
            began = time.monotonic()
            if way.by_sql:
                await owner.execute(_INSERT_JOB, order["id"])
            else:
                job = {"type": "execute_order", "data": {"order_id": order["id"]}}
                async with http.post(f"{url}/rest/v1/broker_jobs", json=job) as answer:
                    answer.raise_for_status()
            took.append((await broker.has(order["client_order_id"]) - began) * 1000)
            await _until_ended(owner)
            await asyncio.sleep(random.uniform(0.02, 0.06 if way.at_once else 0.56))  # in step with nothing
    return took[_WARM_UP:]


async def _until_ended(owner: Connection, kind: str = WORKS) -> None:
    still = (
        "select exists (select from orders as o inner join broker_connections as c on c.id = o.broker_connection_id"
        " where c.credentials_env = $1 and o.ended_at is null)"
    )
    async with asyncio.timeout(300):
        while await owner.fetchval(still, f"BROKER_{kind.upper()}"):  # noqa: ASYNC110 - the database is asked
            await asyncio.sleep(0.02)


async def _burst(orders: int, *, hanging: bool) -> list[float]:
    """Milliseconds from placing to accepted, of those whose broker works, when all are placed at once."""
    async with _running(_BROADCASTS, int(hanging), _ACCOUNTS - 1) as (owner, _, _):
        await owner.fetchval(
            _PLACE, 1
        )  # accounts are opened, statements are planned, and the one hangs already
        await _until_ended(owner)
        await owner.fetchval(_PLACE, orders // _ACCOUNTS)
        await _until_ended(owner)
        return [row["ms"] for row in await owner.fetch(_TAKEN)]


async def _measure(orders: int, burst: int, pairs: int) -> None:
    if orders:
        for way in WAYS:
            took = await _soon(way, orders)
            print(f"{way.name:<28} INSERT to the broker: {_told(took)}", flush=True)
    ratios: list[float] = []
    for number in range(pairs):
        p99: dict[bool, float] = {}
        for hanging in random.sample([False, True], 2):
            took = await _burst(burst, hanging=hanging)
            p99[hanging] = _p(took, 99)
            who = "one broker hangs" if hanging else "without it"
            print(f"pair {number + 1}, {len(took)} orders, {who:<17}: {_told(took)}", flush=True)
        ratios.append(p99[True] / p99[False])
        print(f"pair {number + 1}: p99 {ratios[-1]:.2f} times", flush=True)
    if ratios:
        print(f"the others' p99 with one broker hanging: {statistics.median(ratios):.2f} times (median)")


def _p(took: Sequence[float], percent: int) -> float:
    return statistics.quantiles(took, n=100)[percent - 1]


def _told(took: Sequence[float]) -> str:
    return f"p50 {_p(took, 50):.1f} ms, p99 {_p(took, 99):.1f} ms"


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m bench.orders", description=__doc__)
    parser.add_argument("--orders", type=int, default=300, help="orders, one at a time (default: 300)")
    parser.add_argument("--burst", type=int, default=1000, help="orders over 50 accounts (default: 1000)")
    parser.add_argument("--pairs", type=int, default=3, help="bursts with and without (default: 3 pairs)")
    arguments = parser.parse_args()
    asyncio.run(_measure(arguments.orders, arguments.burst, arguments.pairs))


if __name__ == "__main__":
    main()
