"""The REST side answers recorded requests as PostgREST 14 did, word for word."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import asyncpg
import pytest
from yarl import URL

from devstack.gateway import Gateway
from tests.contract.recorded import Exchange, Reply, exchanges, steady

# What we refuse on purpose, instead of doing it differently.
NOT_IMPLEMENTED = {"count=planned", "count=estimated", "embed no relation", "csv", "PUT"}
# PostgREST repeats such a transaction without end and never answers; we answer, and say why.
NEVER_ANSWERED = {"SQLSTATE 40P01"}
SLOW = {"rpc 57014"}  # nine seconds for one SQLSTATE that `raise_57014` shows as well
FEWER_COLUMNS = "all_types read back"  # our table has those of the recorded one that hold a value

SEED = """
    insert into payment_jobs (job_type, payload, priority) values ('a', '{"x": 1}', 0), ('b', '{}', 1), ('b', '{}', 1)
"""


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as client:
        yield client


@pytest.mark.parametrize(
    ("recording", "has_rows"),
    [("01_insert", False), ("02_rpc", True), ("03_jwt", True), ("05_read", True), ("07_supabase_py", True)],
)
async def test_recorded_requests_get_the_recorded_replies(
    recording: str, has_rows: bool, recorded_database: str, session: aiohttp.ClientSession
) -> None:
    if has_rows:
        connection = await asyncpg.connect(recorded_database)
        await connection.execute(SEED)
        await connection.close()
    async with Gateway(recorded_database) as gateway:
        wrong: list[str] = []
        for exchange in exchanges(f"pgrst14_{recording}.jsonl"):
            if exchange.case in SLOW:
                continue
            reply = await _send(session, gateway.url, exchange)
            expected, got = _comparable(exchange, reply)
            if expected != got:
                wrong.append(f"{exchange.case}: {exchange.method} {exchange.path}\n  {expected}\n  {got}")
    assert not wrong, "\n".join(wrong)


async def _send(session: aiohttp.ClientSession, url: str, exchange: Exchange) -> Reply:
    async with session.request(
        exchange.method,
        URL(url + exchange.path, encoded=True),
        headers=exchange.headers,
        data=exchange.body,
        skip_auto_headers=["Content-Type"],
    ) as response:
        return steady(response.status, dict(response.headers), await response.text())


def _comparable(exchange: Exchange, reply: Reply) -> tuple[object, object]:
    if exchange.case in NOT_IMPLEMENTED:
        return 501, reply.status
    if exchange.reply is None:
        assert exchange.case in NEVER_ANSWERED, exchange.case
        return (500, exchange.case[-5:]), (reply.status, reply.body["code"])
    expected, got = exchange.reply, reply
    if exchange.case == FEWER_COLUMNS:
        return _values(expected), _values(got)
    if str(expected.body).startswith("{'clipped'"):
        return (expected.status, expected.headers), (got.status, got.headers)
    return expected, got


def _values(reply: Reply) -> dict[str, Any]:
    row: dict[str, Any] = reply.body[0]
    return {name: value for name, value in row.items() if value is not None}
