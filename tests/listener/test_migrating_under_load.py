"""A release migrates while its predecessor works: nothing is lost, and nobody queues up behind it for long."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg
import pytest

from listener.errors import ConfigError
from listener.migrate import Migration, migrate, migrations
from tests.sql.calls import Calls, Connection
from tests.waiting import until

NEXT = Migration(
    "900",
    "next_release",
    """
    alter table public.jobs add column note text;
    create or replace function public.retry_delay(kind text, counted integer) returns interval
    language sql immutable parallel safe return interval '7 seconds';
    """,
)
SESSIONS = 4


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(address)
    try:
        await connection.execute("set role service_role")
        yield connection
    finally:
        await connection.close()


async def waits_for_the_queue(owner: Connection) -> bool:
    """Whether the migration waits for its lock."""
    waits: bool = await owner.fetchval(
        "select exists (select from pg_locks where not granted and mode = 'AccessExclusiveLock')"
    )
    return waits


async def test_who_works_does_not_wait_for_a_migration_that_waits(database: str, owner: Connection) -> None:
    """A long report holds the table: without giving way, the migration would hold up every claim behind it."""
    told: list[str] = []
    async with connected(database) as report, connected(database) as worker, asyncio.TaskGroup() as group:
        begun = report.transaction()
        await begun.start()
        await report.fetchval("select count(*) from jobs")
        migrating = group.create_task(migrate(database, [*migrations(), NEXT], tell=told.append))
        await until("the migration waits for its lock", lambda: waits_for_the_queue(owner))
        made = await Calls(worker).insert()
        assert (await Calls(worker).take())["id"] == made
        assert not migrating.done()
        await begun.rollback()
        assert await migrating == [NEXT]
    assert told[0].startswith("900_next_release waits for other sessions, try 1 of ")
    assert await owner.fetchval("select count(note) from jobs") == 0


async def test_one_that_never_gets_its_lock_says_who_to_look_for(database: str, owner: Connection) -> None:
    async with owner.transaction():
        await owner.execute("lock table jobs in access share mode")
        with pytest.raises(
            ConfigError, match=r"900_next_release\.sql needs a lock .*\(tries: 1\). It left nothing"
        ):
            await migrate(database, [*migrations(), NEXT], tries=1)
    assert await migrate(database, [*migrations(), NEXT]) == [NEXT]


async def test_nothing_is_lost_while_four_sessions_insert_and_claim(database: str, owner: Connection) -> None:
    made: list[int] = []
    done: list[int] = []
    over = asyncio.Event()

    async def produce(connection: Connection, number: int) -> None:
        calls = Calls(connection)
        while not over.is_set():
            if number % 2:
                made.append(await calls.insert())
            else:
                made.extend(one["id"] for one in await calls.enqueue({"queue": "payment", "type": "a"}))

    async def work(connection: Connection) -> None:
        calls = Calls(connection)
        while not over.is_set() or len(done) < len(made):
            jobs = (await calls.claim(10))["jobs"]
            done.extend(job["id"] for job in jobs)
            for job in jobs:
                await calls.end(job)

    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        for number in range(SESSIONS):
            connection = await stack.enter_async_context(connected(database))
            group.create_task(produce(connection, number) if number < 2 else work(connection))
        await until("the sessions work", lambda: len(done) > 50)
        assert await migrate(database, [*migrations(), NEXT]) == [NEXT]
        before = len(done)
        await until("they go on", lambda: len(done) > before + 50)
        over.set()
    assert sorted(done) == sorted(made), "each job once"
    ended = await owner.fetchval("select count(*) from jobs where status = 'completed' and attempt = 1")
    assert ended == len(made)
