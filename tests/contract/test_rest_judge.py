"""A real PostgREST as the second judge: the same requests over two copies of one database get the same answers."""

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import asyncpg
import pytest

from devstack.gateway import Gateway
from devstack.keys import mint
from tests.contract.judge import judging
from tests.contract.recorded import Reply, steady
from tests.contract.rest_cases import CALLS, READS, WRITES, Case

# The judge that npm carries is version 12; these are worded differently since, and the recordings hold our words.
REWORDED = {"PGRST100", "PGRST116", "PGRST202", "PGRST204"}
COMPARED = {"content-range", "preference-applied", "location", "content-type"}
SEED = """
    insert into payment_jobs (job_type, payload, status, priority, attempts, dedup_key)
    values ('a', '{"x": 1, "deep": {"list": [1, 2]}}', 'pending', 0, 0, 'k1'),
           ('b', '{"x": "two"}', 'done', 5, 2, 'k2'),
           ('c, "d"', '{}', 'failed', 5, 1, null),
           ('per%cent', '[]', 'pending', 9, 0, null);
    create function said() returns json language sql as $$
      select set_config('response.status', '418', true), set_config('response.headers', '[{"X-Said":"yes"}]', true);
      select json_build_object('path', current_setting('request.path'), 'method', current_setting('request.method'),
                               'role', current_setting('request.jwt.claims')::json ->> 'role')
    $$;
    create function limits() returns text language sql as $$ select current_setting('statement_timeout') $$;
    grant select on many_rows to anon;
"""


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as client:
        yield client


@pytest.fixture
async def judge(recorded_database: str, tmp_path: Path) -> AsyncIterator[str]:
    """The address of a real PostgREST over the database."""
    async with judging(recorded_database, tmp_path, table="nopk") as url:
        yield url


async def test_real_server_and_ours_give_the_same_answers(
    recorded_database: str, second_database: str, judge: str, session: aiohttp.ClientSession
) -> None:
    for dsn in (recorded_database, second_database):
        connection = await asyncpg.connect(dsn)
        await connection.execute(SEED)
        await connection.close()
    wrong: list[str] = []
    async with Gateway(second_database) as gateway:
        for case in [*READS, *WRITES, *CALLS]:
            expected = await _send(session, judge, case)
            got = await _send(session, f"{gateway.url}/rest/v1", case)
            if _words(expected) != _words(got):
                wrong.append(f"{case}\n  expected {expected}\n  got      {got}")
    assert not wrong, "\n".join(wrong)


def _words(reply: Reply) -> object:
    if reply.code in ("42P01", "PGRST205"):
        return reply.status
    return (reply.status, reply.code) if reply.code in REWORDED else reply


async def _send(session: aiohttp.ClientSession, url: str, case: Case) -> Reply:
    headers = {"Authorization": f"Bearer {mint(case.role)}", "Accept": case.accept, "Prefer": case.prefer}
    async with session.request(case.method, url + case.path, json=case.body, headers=headers) as response:
        reply = steady(response.status, dict(response.headers), await response.text())
    return Reply(reply.status, {k: v for k, v in reply.headers.items() if k in COMPARED}, reply.body)
