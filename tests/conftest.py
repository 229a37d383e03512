"""What every test may stand on: a real PostgreSQL, a fresh database, a gateway in front of it, and a clock to move."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest

from devstack.gateway import Gateway
from devstack.postgres import SUPERUSER, Postgres, bootstrap, throw_away_folder
from listener.migrate import migrate, migrations

pytest_plugins = ["tests.skips", "tests.projects", "tests.faults.acting"]

_TEMPLATE = "pulse_template"
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Postgres]:
    """One throw-away PostgreSQL for the whole run, with a template database that has our migrations."""
    with throw_away_folder() as folder:
        server = Postgres(folder)
        asyncio.run(_prepare(server))
        try:
            yield server
        finally:
            asyncio.run(server.stop())


async def _prepare(server: Postgres) -> None:
    await server.start()
    await _execute(server, f"create database {_TEMPLATE}")
    await bootstrap(server.dsn(_TEMPLATE, SUPERUSER))
    await migrate(server.dsn(_TEMPLATE), migrations())


async def _execute(server: Postgres, statement: str) -> None:
    connection = await asyncpg.connect(server.dsn("postgres", SUPERUSER))
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture
async def database(cluster: Postgres) -> AsyncIterator[str]:
    """The address of a fresh database with our tables, as `postgres`, the owner; dropped after the test."""
    name = f"test_{next(_numbers)}"
    await _execute(cluster, f"create database {name} template {_TEMPLATE}")
    yield cluster.dsn(name)
    await _execute(cluster, f"drop database {name} with (force)")


@pytest.fixture
async def fresh(cluster: Postgres) -> AsyncIterator[str]:
    """The address of a database as a new Supabase project has it: its roles and schemas, nothing of ours."""
    name = f"fresh_{next(_numbers)}"
    await _execute(cluster, f"create database {name}")
    await bootstrap(cluster.dsn(name, SUPERUSER))
    yield cluster.dsn(name)
    await _execute(cluster, f"drop database {name} with (force)")


@pytest.fixture
async def gateway(database: str) -> AsyncIterator[Gateway]:
    """The development stack in front of the fresh database, delivering at once."""
    async with Gateway(database) as running:
        yield running


@pytest.fixture
async def owner(database: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """A direct connection as the owner, to look at rows and to move the clock."""
    connection = await asyncpg.connect(database)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture
def move_clock(owner: "asyncpg.Connection[asyncpg.Record]") -> Callable[[timedelta], Awaitable[None]]:
    """Moves the database's clock so far from the real one, for all sessions."""

    async def move(by: timedelta) -> None:
        await owner.execute(
            "create or replace function public.clock_now() returns timestamptz language sql stable parallel safe"
            f" as $$ select pg_catalog.now() + interval '{by.total_seconds()} seconds' $$"
        )

    return move


@pytest.fixture
def checkout() -> Path:
    """The root of this checkout."""
    return Path(__file__).resolve().parent.parent
