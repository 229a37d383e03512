"""Generated requests, each sent to a real PostgREST and to ours over the same rows: the same answer, or 501 from us.

A few hundred, the same in every run; `PULSE_REQUESTS=5000` asks so many, and others each time.
"""

import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from devstack.config import Config
from devstack.gateway import Gateway
from devstack.postgres import SUPERUSER, Postgres, bootstrap
from tests.contract.judge import asked, judging
from tests.contract.recorded import Reply
from tests.contract.rest_generated import questions
from tests.contract.rest_questions import Question, as_14

SCHEMA = Path(__file__).with_name("rest_generated.sql").read_text()
SCHEMAS = ("public", "other")
ROWS = """
    select coalesce((select json_agg(t order by id)::text from things as t), '')
        || coalesce((select json_agg(n order by id)::text from notes as n), '')
"""
USUAL = 300
REFUSED, NOT_IMPLEMENTED = 400, 501
COUNT = int(os.environ.get("PULSE_REQUESTS", USUAL))


@dataclass
class Bench:
    """Both servers, each over its own copy, and what they said so far."""

    judge: str
    ours: str
    rows: "list[asyncpg.Connection[asyncpg.Record]]"
    http: aiohttp.ClientSession
    statuses: Counter[int] = field(default_factory=Counter[int])
    is_fresh: bool = True

    async def both(self, question: Question) -> tuple[Reply, Reply]:
        """The judge's answer and ours, over rows that no request before has changed."""
        if not self.is_fresh:
            for connection in self.rows:
                await connection.execute("select fresh()")
        self.is_fresh = question.method in ("GET", "HEAD")
        return await asked(self.http, self.judge, question), await asked(self.http, self.ours, question)

    async def left(self) -> list[str]:
        """What both databases hold now."""
        return [str(await connection.fetchval(ROWS)) for connection in self.rows]


@pytest.fixture
async def bench(cluster: Postgres, tmp_path: Path) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        admin = await asyncpg.connect(cluster.dsn("postgres", SUPERUSER))
        stack.push_async_callback(admin.close)
        rows: list[asyncpg.Connection[asyncpg.Record]] = []
        for name in ("generated_judge", "generated_ours"):
            await admin.execute(f"create database {name} owner postgres")
            stack.push_async_callback(admin.execute, f"drop database {name} with (force)")
            await bootstrap(cluster.dsn(name, SUPERUSER))
            rows.append(await asyncpg.connect(cluster.dsn(name)))
            stack.push_async_callback(rows[-1].close)
            await rows[-1].execute(SCHEMA)
        judge = await stack.enter_async_context(
            judging(cluster.dsn("generated_judge"), tmp_path, table="notes", schemas=", ".join(SCHEMAS))
        )
        config = Config(schemas=SCHEMAS)
        gateway = await stack.enter_async_context(Gateway(cluster.dsn("generated_ours"), config=config))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        bench = Bench(judge, f"{gateway.url}/rest/v1", rows, http)
        yield bench
        counts = ", ".join(f"{status}: {count}" for status, count in sorted(bench.statuses.items()))
        print(f"{bench.statuses.total()} requests, by our status {counts}")


@pytest.mark.timeout(60 + COUNT / 10)
@settings(
    max_examples=COUNT,
    derandomize=COUNT == USUAL,
    deadline=None,
    database=None,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=(HealthCheck.function_scoped_fixture, HealthCheck.too_slow),
)
@given(question=questions)
async def test_generated_requests_are_answered_alike(bench: Bench, question: Question) -> None:
    expected, got = await bench.both(question)
    bench.statuses[got.status] += 1
    if got.status != NOT_IMPLEMENTED:
        assert _same(got, question.method, got) == _same(expected, question.method, got), (
            f"{question}\n  expected {expected}\n  got      {got}"
        )
        ours, judged = await bench.left()
        assert ours == judged


def _same(reply: Reply, method: str, got: Reply) -> object:
    """What of a reply must be alike, given ours."""
    if got.code == "PGRST205" and reply.status >= REFUSED:
        return "refused"  # a table that is not there is told before anything else since 13
    if got.code == "PGRST106" and reply.status >= REFUSED:
        return "refused"  # so is a schema that is not exposed
    if "42501" in (got.code, reply.code) and "22P02" in (got.code, reply.code):
        return "refused"  # a body that is no JSON, sent by one who may not write: which is told first
    if method == "HEAD" and reply.status >= REFUSED:
        return "refused"  # without a body nobody can say whether it is one of the known cases
    if got.code == "PGRST202" and reply.code == "PGRST202":
        return reply.body["message"], reply.body["details"]  # fewer guesses at names since 14
    if got.code == "PGRST100" == reply.code and "isVal" in got.body["details"]:
        return "no value for is"  # other words since 13, which has not_null
    if (reply.code or "").startswith("22") and (got.code or "").startswith("22"):
        return "a value that does not fit"  # which of several is found first is up to PostgreSQL
    if got.code == "21000" == reply.code:
        return "changed twice"  # 500 since 13
    return as_14(reply)
