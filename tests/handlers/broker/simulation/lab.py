"""Many runs at once on one database, and the table of what they came to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import copy_context
from typing import Final, TypeAlias

import asyncpg

from handlers.clients.broker.broker import Dedupe
from tests.handlers.broker.simulation.exchange import EPOCH
from tests.handlers.broker.simulation.run import Table, run
from tests.handlers.broker.simulation.wire import SESSION_CLOCK, Functions

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
CONNECTIONS: Final = 6
AT_ONCE: Final = 48


@asynccontextmanager
async def _functions(database: str) -> AsyncIterator[tuple[Functions, Connection]]:
    async with AsyncExitStack() as stack:
        connections: list[Connection] = []
        for _ in range(CONNECTIONS + 1):
            one = await asyncpg.connect(database)
            stack.push_async_callback(one.close)
            connections.append(one)
        owner, *others = connections
        await owner.execute(SESSION_CLOCK)
        functions = Functions(others, EPOCH)
        await functions.learn()
        yield functions, owner


async def simulate(
    database: str, dedupe: Dedupe, seeds: range, table: Table, script: str | None = None
) -> None:
    """Runs the seeds, each with an account of its own, and adds what they came to."""
    async with _functions(database) as (functions, owner):
        rows = await owner.fetch(
            "insert into broker_connections (user_id, broker) select gen_random_uuid(), 'sim'"
            " from generate_series(1, $1) returning user_id, id",
            len(seeds),
        )
        todo = iter(list(zip(seeds, rows, strict=True)))

        async def some() -> None:
            for seed, row in todo:
                await run(seed, dedupe, functions, table, (row["user_id"], row["id"]), script)

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(some(), context=copy_context())
        table.calls += functions.calls


async def take_out(database: str, function: str, step: str, instead: str) -> None:
    """Replaces a step of a SQL function by something else, as if it had never been there."""
    owner: Connection = await asyncpg.connect(database)
    try:
        whole = await owner.fetchval(
            "select pg_get_functiondef(oid) from pg_proc where proname = $1", function
        )
        assert whole.count(step) == 1, f"{function} has no such step any more"
        await owner.execute(whole.replace(step, instead))
    finally:
        await owner.close()
