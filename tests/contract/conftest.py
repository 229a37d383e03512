"""A database shaped like the one that the recordings were made with."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import httpx
import pytest

from devstack.gateway import Gateway
from devstack.postgres import SUPERUSER, Postgres, bootstrap
from tests.contract.auth_people import Plain
from tests.waiting import PATIENCE

TEMPLATE = "recorded_template"
RECORDED_SQL = Path(__file__).with_name("rest_recorded.sql")
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def recorded_template(cluster: Postgres) -> str:
    """The name of a database to copy; nobody connects to it."""
    asyncio.run(_prepare(cluster))
    return TEMPLATE


@pytest.fixture
async def recorded_database(cluster: Postgres, recorded_template: str) -> AsyncIterator[str]:
    """The address of a fresh copy; dropped after the test."""
    async with _copy(cluster, recorded_template) as dsn:
        yield dsn


@pytest.fixture
async def second_database(cluster: Postgres, recorded_template: str) -> AsyncIterator[str]:
    """Another fresh copy, to compare with."""
    async with _copy(cluster, recorded_template) as dsn:
        yield dsn


@asynccontextmanager
async def _copy(cluster: Postgres, template: str) -> AsyncIterator[str]:
    name = f"recorded_{next(_numbers)}"
    await _execute(
        cluster.dsn("postgres", SUPERUSER), f"create database {name} template {template} owner postgres"
    )
    yield cluster.dsn(name)
    await _execute(cluster.dsn("postgres", SUPERUSER), f"drop database {name} with (force)")


async def _prepare(cluster: Postgres) -> None:
    await _execute(cluster.dsn("postgres", SUPERUSER), f"create database {TEMPLATE}")
    await bootstrap(cluster.dsn(TEMPLATE, SUPERUSER))
    await _execute(cluster.dsn(TEMPLATE), RECORDED_SQL.read_text())


async def _execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture
async def auth(gateway: Gateway) -> AsyncIterator[Plain]:
    """Requests to Auth, over a fresh database."""
    async with httpx.AsyncClient(timeout=PATIENCE) as http:
        yield Plain(gateway, http)
