"""Many questions about calls, each asked of a real PostgREST and of ours over the same rows: the same answers."""

from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import aiohttp
import asyncpg
import pytest

from devstack.gateway import Gateway
from tests.contract.judge import asked, judging
from tests.contract.recorded import Reply
from tests.contract.rest_questions import Question, as_14
from tests.contract.rest_questions_call import CALLS, NEWER_CALLS

CALLED = Path(__file__).with_name("rest_called.sql").read_text()


@pytest.fixture
async def ours(recorded_database: str) -> AsyncIterator[str]:
    await _prepare(recorded_database)
    async with Gateway(recorded_database) as gateway:
        yield f"{gateway.url}/rest/v1"


@pytest.fixture
async def judge(second_database: str, tmp_path: Path) -> AsyncIterator[str]:
    await _prepare(second_database)
    async with judging(second_database, tmp_path, table="nopk") as url:
        yield url


async def test_calls_are_answered_alike(judge: str, ours: str) -> None:
    wrong: list[str] = []
    async with aiohttp.ClientSession() as session:
        for question in _all():
            expected = _as_14(await asked(session, judge, question))
            got = _as_14(await asked(session, ours, question))
            if expected != got:
                wrong.append(f"{question}\n  expected {expected}\n  got      {got}")
    assert not wrong, "\n".join(wrong)


async def test_newer_answers_are_those_of_version_14(judge: str, ours: str) -> None:
    """The judge, version 12, answers these otherwise; when it no longer does, they belong to the others."""
    async with aiohttp.ClientSession() as session:
        for newer in NEWER_CALLS:
            old = await asked(session, judge, newer.question)
            new = await asked(session, ours, newer.question)
            assert (new.status, new.body) == (newer.status, newer.body), newer
            assert (old.status, old.body) != (newer.status, newer.body), f"no longer newer: {newer}"


def _all() -> Iterable[Question]:
    return (question for topic in CALLS.values() for question in topic)


def _as_14(reply: Reply) -> object:
    said = {
        name: value for name, value in reply.headers.items() if name.startswith(("x-", "access-", "allow"))
    }
    if reply.code == "PGRST202" and "(" not in str(reply.said("hint")):
        return reply.status, reply.body["message"], reply.body["details"]  # fewer guesses at names since 14
    return as_14(reply), said


async def _prepare(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute(CALLED)
    await connection.close()
