"""Many questions about tables, each asked of a real PostgREST and of ours over the same rows: the same answers."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import asyncpg
import pytest

from devstack.config import Config
from devstack.gateway import Gateway
from devstack.postgres import SUPERUSER, Postgres, bootstrap
from tests.contract.judge import asked, judging
from tests.contract.rest_questions import NEWER, Question, as_14
from tests.contract.rest_questions_read import TOPICS
from tests.contract.rest_questions_write import CHANGES

SCHEMA = Path(__file__).with_name("rest_related.sql")
MAX_ROWS = 20
TEMPLATE = "related_template"
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def related_template(cluster: Postgres) -> str:
    """The name of a database to copy; nobody connects to it."""
    asyncio.run(_prepare(cluster))
    return TEMPLATE


@pytest.fixture
async def judge(cluster: Postgres, related_template: str, tmp_path: Path) -> AsyncIterator[str]:
    """The address of the real server."""
    async with (
        _copy(cluster, related_template) as dsn,
        judging(dsn, tmp_path, table="numbers", schemas="public, other", max_rows=MAX_ROWS) as url,
    ):
        yield url


@pytest.fixture
async def ours(cluster: Postgres, related_template: str) -> AsyncIterator[str]:
    """The address of ours, over another copy."""
    config = Config(schemas=("public", "other"), max_rows=MAX_ROWS)
    async with _copy(cluster, related_template) as dsn, Gateway(dsn, config=config) as gateway:
        yield f"{gateway.url}/rest/v1"


@pytest.mark.parametrize("topic", TOPICS)
async def test_reads_are_answered_alike(judge: str, ours: str, topic: str) -> None:
    await _compare(judge, ours, TOPICS[topic])


async def test_changes_are_answered_alike_and_leave_the_same_rows(judge: str, ours: str) -> None:
    await _compare(judge, ours, CHANGES)


async def test_newer_answers_are_those_of_version_14(judge: str, ours: str) -> None:
    """The judge, version 12, answers these otherwise; when it no longer does, they belong to the others."""
    async with aiohttp.ClientSession() as session:
        for newer in NEWER:
            old = await asked(session, judge, newer.question)
            new = await asked(session, ours, newer.question)
            assert (new.status, new.body) == (newer.status, newer.body), newer
            assert (old.status, old.body) != (newer.status, newer.body), f"no longer newer: {newer}"


def test_there_are_many_questions() -> None:
    assert sum(map(len, TOPICS.values())) + len(CHANGES) + len(NEWER) > 800


async def _compare(judge: str, ours: str, questions: Iterable[Question]) -> None:
    wrong: list[str] = []
    async with aiohttp.ClientSession() as session:
        for question in questions:
            expected = as_14(await asked(session, judge, question))
            got = as_14(await asked(session, ours, question))
            if expected != got:
                wrong.append(f"{question}\n  expected {expected}\n  got      {got}")
    assert not wrong, "\n".join(wrong)


@asynccontextmanager
async def _copy(cluster: Postgres, template: str) -> AsyncIterator[str]:
    name = f"related_{next(_numbers)}"
    admin = cluster.dsn("postgres", SUPERUSER)
    await _execute(admin, f"create database {name} template {template} owner postgres")
    try:
        yield cluster.dsn(name)
    finally:
        await _execute(admin, f"drop database {name} with (force)")


async def _prepare(cluster: Postgres) -> None:
    await _execute(cluster.dsn("postgres", SUPERUSER), f"create database {TEMPLATE}")
    await bootstrap(cluster.dsn(TEMPLATE, SUPERUSER))
    await _execute(cluster.dsn(TEMPLATE), await asyncio.to_thread(SCHEMA.read_text))


async def _execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
