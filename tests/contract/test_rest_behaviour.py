"""What the REST side refuses, what goes wrong on purpose, and whose rights a shared connection has."""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import asyncpg
import pytest

from devstack.gateway import Gateway
from devstack.keys import mint
from devstack.postgres import SUPERUSER, Postgres, bootstrap, throw_away_folder

SERVICE = {"Authorization": f"Bearer {mint('service_role')}"}
WHO = """
    create function who() returns text language sql as $$
      select current_user || ' ' || (current_setting('request.jwt.claims')::json ->> 'role') || ' '
          || current_setting('request.method') || ' ' || current_setting('statement_timeout')
    $$
"""


@pytest.fixture
async def stack(recorded_database: str) -> AsyncIterator[Gateway]:
    async with Gateway(recorded_database) as running:
        yield running


@pytest.fixture
async def session(stack: Gateway) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(stack.url, headers=SERVICE) as client:
        yield client


@pytest.fixture
async def rows(recorded_database: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(recorded_database)
    yield connection
    await connection.close()


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "/rest/v1/", {}),
        ("GET", "/rest/v1/payment_jobs", {"Accept": "application/geo+json"}),
        ("POST", "/rest/v1/rpc/single_json", {"Content-Type": "text/csv"}),
        ("POST", "/storage/v1/object/x", {}),
        ("POST", "/graphql/v1", {}),
        ("POST", "/functions/v1/x", {}),
    ],
)
async def test_what_is_not_there_is_refused_loudly(
    session: aiohttp.ClientSession, method: str, path: str, headers: dict[str, str]
) -> None:
    body = None if method in ("GET", "DELETE") else b'{"a": 1, "b": 2}'
    sent = {"Content-Type": "application/json", **headers}
    async with session.request(method, path, data=body, headers=sent) as response:
        told: dict[str, Any] = await response.json()
    assert response.status == 501
    assert told.keys() == {"code", "message", "details", "hint"}
    assert told["message"].endswith(".")


async def test_each_request_has_its_own_rights(
    stack: Gateway, rows: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    """Connections are shared and remember whom they last spoke for; nobody may notice."""
    await rows.execute(WHO)
    timeouts = {"anon": "3s", "authenticated": "8s", "service_role": "8s"}

    async def ask(role: str, method: str) -> None:
        headers = {"Authorization": f"Bearer {mint(role)}"} if role != "anon" else {}
        body: dict[str, str] | None = {} if method == "POST" else None
        async with client.request(method, "/rest/v1/rpc/who", json=body, headers=headers) as response:
            assert await response.json() == f"{role} {role} {method} {timeouts[role]}"
        async with client.post("/rest/v1/rpc/raise_p0001", json={}, headers=headers) as failed:
            assert failed.status == 400

    async with aiohttp.ClientSession(stack.url) as client, asyncio.TaskGroup() as group:
        for _ in range(60):
            group.create_task(ask(random.choice(list(timeouts)), random.choice(["GET", "POST"])))


async def test_new_tables_and_functions_are_found_at_once(
    session: aiohttp.ClientSession, rows: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    async with session.get("/rest/v1/late") as absent:
        assert (absent.status, (await absent.json())["code"]) == (404, "PGRST205")
    await rows.execute("create table late (id int); grant all on late to service_role")
    async with session.get("/rest/v1/late") as present:
        assert present.status == 200
    await rows.execute("alter table late add column name text")
    async with session.post("/rest/v1/late", json={"id": 1, "name": "x"}) as wider:
        assert wider.status == 201
    await rows.execute("create function late_too(a int) returns int language sql as 'select a'")
    async with session.post("/rest/v1/rpc/late_too", json={"a": 1}) as called:
        assert await called.json() == 1
    await rows.execute(
        "drop function late_too; create function late_too(a text) returns text language sql as 'select a'"
    )
    async with session.post("/rest/v1/rpc/late_too", json={"a": "one"}) as called:
        assert await called.json() == "one"


async def test_serialization_failure_says_what_production_would_do(session: aiohttp.ClientSession) -> None:
    async with session.post("/rest/v1/rpc/raise_40001", json={}) as response:
        told = await response.json()
    assert (response.status, told["code"]) == (500, "40001")
    assert "without end" in told["hint"]


async def test_more_requests_than_connections_wait_their_turn(session: aiohttp.ClientSession) -> None:
    async def add(n: int) -> int:
        async with session.post("/rest/v1/rpc/add", json={"a": n, "b": 1}) as response:
            answer: int = await response.json()
            return answer

    assert await asyncio.gather(*(add(n) for n in range(100))) == [n + 1 for n in range(100)]


def test_a_database_that_goes_away_and_comes_back() -> None:
    with throw_away_folder() as folder:
        asyncio.run(_away_and_back(Postgres(folder)))


async def _away_and_back(server: Postgres) -> None:
    await server.start()
    await bootstrap(server.dsn(user=SUPERUSER))
    async with (
        Gateway(server.dsn()) as gateway,
        aiohttp.ClientSession(gateway.url, headers=SERVICE) as client,
    ):
        codes = [await _code(client)]
        port = server.port
        await server.stop()
        codes += [await _code(client), await _code(client)]
        server = Postgres(server.data, port=port)
        await server.start()
        codes.append(await _code(client))
    await server.stop()
    assert codes == [(404, "PGRST205"), (503, "PGRST002"), (503, "PGRST002"), (404, "PGRST205")]


async def _code(client: aiohttp.ClientSession) -> tuple[int, str]:
    async with client.get("/rest/v1/nothing") as response:
        return response.status, (await response.json())["code"]
