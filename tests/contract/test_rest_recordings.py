"""Every recorded request is asked again; what is answered otherwise than it was then stands in differences.py."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import asyncpg
import pytest
from yarl import URL

from devstack.gateway import Gateway
from devstack.postgres import SUPERUSER, Postgres, bootstrap, throw_away_folder
from tests.contract.conftest import RECORDED_SQL
from tests.contract.differences import PAGE, REST, listed, page
from tests.contract.recorded import RECORDINGS, Exchange, Reply, exchanges, steady, unlike

SEED = """
    insert into payment_jobs (job_type, payload, priority) values ('a', '{"x": 1}', 0), ('b', '{}', 1), ('b', '{}', 1)
"""
# What had been done to the database just before a recorded request.
BEFORE = {
    "pgrst14_04_timeouts": {
        "blocked by lock, service_role": "begin; lock table broker_jobs in access exclusive mode",
    },
    "pgrst14_06_schema_cache": {
        "table just created": "create table late_t (id int primary key, a text); grant all on late_t to service_role",
        "after notify": "notify pgrst, 'reload schema'",
        "insert new column before reload": "alter table late_t add column z int",
        "table dropped, cache stale": "drop table late_t",
    },
}
# Twenty times quicker than Supabase's, as the recorded functions that wait are here.
QUICK = {"anon": "150ms", "authenticated": "400ms", "authenticator": "400ms"}
USUAL = {"anon": "3s", "authenticated": "8s", "authenticator": "8s"}
# The rows that the others ask for were inserted by this one.
UNSEEDED = "pgrst14_01_insert"
DATABASE_GOES = ("pgrst14_08_db_down", "pgrst14_09_db_restart_one_request")
PLAYED = sorted(path.stem for path in RECORDINGS.glob("pgrst*.jsonl"))
Before = Callable[[str], Awaitable[None]]


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as client:
        yield client


@pytest.fixture
async def hurried_roles(cluster: Postgres) -> AsyncIterator[None]:
    await _limit(cluster, QUICK)
    yield
    await _limit(cluster, USUAL)


@pytest.mark.usefixtures("hurried_roles")
@pytest.mark.parametrize("recording", [name for name in PLAYED if name not in DATABASE_GOES])
async def test_recorded_requests_get_the_recorded_replies(
    recording: str,
    recorded_database: str,
    session: aiohttp.ClientSession,
) -> None:
    owner = await asyncpg.connect(recorded_database.replace("//postgres", f"//{SUPERUSER}"))
    await owner.execute(
        "drop event trigger pgrst_watch; drop event trigger pgrst_watch_drop"
    )  # had none then
    if recording != UNSEEDED:
        await owner.execute(SEED)

    async def before(case: str) -> None:
        if statement := BEFORE.get(recording, {}).get(case):
            await owner.execute(statement)

    try:
        async with Gateway(recorded_database) as gateway:
            assert await _played(recording, gateway.url, session, before) == listed(REST, recording)
    finally:
        await owner.close()


@pytest.mark.parametrize("recording", DATABASE_GOES)
def test_a_database_that_went_and_came_back(recording: str) -> None:
    with throw_away_folder() as folder:
        asyncio.run(_while_the_database_goes(recording, Postgres(folder)))


def test_the_page_shows_the_list_and_how_much_is_the_same() -> None:
    assert PAGE.read_text() == page(PAGE.read_text()), "run .venv/bin/python -m tests.contract.differences"


async def _played(recording: str, url: str, session: aiohttp.ClientSession, before: Before) -> dict[str, str]:
    """What differs, by case."""
    differing: dict[str, str] = {}
    for exchange in exchanges(f"{recording}.jsonl"):
        await before(exchange.case)
        reply = await _send(session, url, exchange)
        what = unlike(exchange.reply, reply) if exchange.reply is not None else "answered at all"
        if what:
            differing[exchange.case] = what
            print(f"{exchange.case}: {exchange.method} {exchange.path}: {what}")
            print(f"  then {exchange.reply}\n  now  {reply}")
    return differing


async def _while_the_database_goes(recording: str, server: Postgres) -> None:
    await server.start()
    await bootstrap(server.dsn(user=SUPERUSER))
    owner = await asyncpg.connect(server.dsn())
    await owner.execute(RECORDED_SQL.read_text() + SEED)
    await owner.close()
    again = server

    async def before(case: str) -> None:
        nonlocal again
        if case in ("down 0", "warm 0"):
            await server.stop()
        if case in ("after start 0", "insert 4 after restart"):
            again = Postgres(server.data, port=server.port)
            await again.start()

    try:
        async with Gateway(server.dsn()) as gateway, aiohttp.ClientSession() as session:
            assert await _played(recording, gateway.url, session, before) == listed(REST, recording)
    finally:
        await again.stop()


async def _send(session: aiohttp.ClientSession, url: str, exchange: Exchange) -> Reply:
    async with session.request(
        exchange.method,
        URL(url + exchange.path, encoded=True),
        headers=exchange.headers,
        data=exchange.body,
        skip_auto_headers=["Content-Type"],
    ) as response:
        return steady(response.status, dict(response.headers), await response.text())


async def _limit(cluster: Postgres, limits: dict[str, str]) -> None:
    connection = await asyncpg.connect(cluster.dsn(user=SUPERUSER))
    try:
        for role, limit in limits.items():
            await connection.execute(f"alter role {role} set statement_timeout = '{limit}'")
    finally:
        await connection.close()
