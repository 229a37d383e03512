"""What the REST side remembers of the database, when it hears of a change, and what a call costs the database."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeAlias
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import asyncpg
import pytest

from devstack.gateway import Gateway
from devstack.keys import mint
from devstack.postgres import SUPERUSER, Postgres, bootstrap, throw_away_folder
from tests.waiting import until

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
SERVICE = {"Authorization": f"Bearer {mint('service_role')}"}
LIMIT = "select current_setting('statement_timeout')"


@pytest.fixture
async def rows(recorded_database: str) -> AsyncIterator[Connection]:
    """As the superuser, who may drop the event triggers that tell of every change."""
    connection = await asyncpg.connect(recorded_database.replace("//postgres", f"//{SUPERUSER}"))
    yield connection
    await connection.close()


@pytest.fixture
async def session(recorded_database: str) -> AsyncIterator[aiohttp.ClientSession]:
    async with (
        Gateway(recorded_database) as stack,
        aiohttp.ClientSession(stack.url, headers=SERVICE) as client,
    ):
        yield client


async def test_without_a_notice_nothing_is_read_again(
    rows: Connection, session: aiohttp.ClientSession
) -> None:
    await rows.execute("drop event trigger pgrst_watch; drop event trigger pgrst_watch_drop")
    await rows.execute("create table late (id int); grant all on late to service_role")
    await rows.execute("create function later() returns int language sql as 'select 1'")
    for words in (None, "something else", "reload config"):
        if words is not None:
            await rows.execute(f"notify pgrst, '{words}'")
        assert await _code(session, "GET", "late") == "PGRST205"
        assert await _code(session, "POST", "rpc/later") == "PGRST202"
    await rows.execute("notify pgrst")
    assert await _code(session, "GET", "late") is None
    assert await _code(session, "POST", "rpc/later") is None

    await rows.execute("alter table late add column name text")
    assert await _code(session, "POST", "late", {"name": "x"}) == "PGRST204"
    await rows.execute("drop table late")
    assert await _code(session, "GET", "late") == "42P01"
    await rows.execute("notify pgrst, 'reload schema'")
    assert await _code(session, "GET", "late") == "PGRST205"


async def test_many_at_once_find_what_was_just_made(rows: Connection, session: aiohttp.ClientSession) -> None:
    """Each begins after the commit; while one of them reads the catalog again, the others have the old reading."""
    for turn in range(5):
        await rows.execute(f"create function made_{turn}() returns int language sql as 'select {turn}'")
        codes = await asyncio.gather(*(_code(session, "POST", f"rpc/made_{turn}") for _ in range(20)))
        assert set(codes) == {None}


async def test_settings_of_roles_are_read_again_when_told(
    cluster: Postgres, rows: Connection, session: aiohttp.ClientSession
) -> None:
    await rows.execute(f"create function limits() returns text language sql as $$ {LIMIT} $$")

    async def limit() -> str:
        async with session.post("/rest/v1/rpc/limits", json={}, headers=_as("anon")) as answer:
            told: str = await answer.json()
            return told

    assert await limit() == "3s"
    try:
        await rows.execute("alter role anon set statement_timeout = '5s'")
        assert await limit() == "3s"
        await rows.execute("notify pgrst, 'reload config'")

        async def is_new() -> bool:
            return await limit() == "5s"

        await until("the new setting is in force", is_new)
    finally:
        await rows.execute("alter role anon set statement_timeout = '3s'")


async def test_a_call_is_one_round_trip(recorded_database: str) -> None:
    """PostgREST needs several statements for each; here it is one, as long as the caller stays the same."""
    counts: list[int] = []
    async with (
        _counted(recorded_database) as (dsn, sent),
        Gateway(dsn) as stack,
        aiohttp.ClientSession(stack.url, headers=SERVICE) as client,
    ):
        for n in range(6):
            before = sent.total()
            async with client.post("/rest/v1/rpc/add", json={"a": n, "b": 1}) as answer:
                assert await answer.json() == n + 1
            counts.append(sent.total() - before)
    assert counts[-4:] == [1, 1, 1, 1], counts


@asynccontextmanager
async def _counted(dsn: str) -> AsyncIterator[tuple[str, "Counter[str]"]]:
    """A way to the database that counts how often something is sent to it."""
    sent: Counter[str] = Counter()
    parts = urlsplit(dsn)

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str | None) -> None:
        while data := await reader.read(65536):
            if name is not None:
                sent[name] += 1
            writer.write(data)
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", parts.port)
        async with asyncio.TaskGroup() as group:
            group.create_task(pass_on(reader, up_writer, "sent"))
            group.create_task(pass_on(up_reader, writer, None))

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield urlunsplit(parts._replace(netloc=parts.netloc.replace(str(parts.port), str(port)))), sent
        server.close()
        await server.wait_closed()


def test_a_request_whose_database_goes_away_is_told_so() -> None:
    with throw_away_folder() as folder:
        asyncio.run(_goes_away(Postgres(folder)))


async def _goes_away(server: Postgres) -> None:
    await server.start()
    await bootstrap(server.dsn(user=SUPERUSER))
    owner = await asyncpg.connect(server.dsn())
    await owner.execute("create function waits() returns void language sql as 'select pg_sleep(60)'")
    async with (
        Gateway(server.dsn()) as gateway,
        aiohttp.ClientSession(gateway.url, headers=SERVICE) as client,
    ):
        waiting = asyncio.create_task(_said(client))
        running = "select exists (select from pg_stat_activity where query like '%waits%' and wait_event = 'PgSleep')"
        await until("the call is under way", lambda: owner.fetchval(running))
        await owner.close()
        await server.stop()
        assert await waiting == (503, "57P01", "0")


async def _said(client: aiohttp.ClientSession) -> tuple[int, str, str | None]:
    async with client.post("/rest/v1/rpc/waits", json={}) as answer:
        return answer.status, (await answer.json())["code"], answer.headers.get("Retry-After")


async def _code(
    session: aiohttp.ClientSession, method: str, path: str, body: dict[str, str] | None = None
) -> str | None:
    sent = {} if method == "POST" and body is None else body
    async with session.request(method, f"/rest/v1/{path}", json=sent) as answer:
        if answer.status < 400:
            return None
        code: str = (await answer.json())["code"]
        return code


def _as(role: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {mint(role)}"}
