"""What goes wrong on purpose on the REST side: each fault, as two HTTP clients and the official client meet it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import asyncpg
import httpx
import pytest
from postgrest.exceptions import APIError
from supabase import AsyncClientOptions, acreate_client

from devstack.faults import Faults
from devstack.gateway import Gateway
from devstack.keys import mint
from devstack.rest.faults import What

SERVICE = {"Authorization": f"Bearer {mint('service_role')}"}
CLAIM = "/rest/v1/rpc/claim_jobs"
TABLE = "/rest/v1/payment_jobs"


@pytest.fixture
async def stack(recorded_database: str) -> AsyncIterator[Gateway]:
    async with Gateway(recorded_database) as running:
        yield running


@pytest.fixture
async def session(stack: Gateway) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(stack.url, headers=SERVICE) as client:
        yield client


@pytest.fixture
async def client(stack: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=stack.url, headers=SERVICE) as client:
        yield client


@pytest.fixture
async def rows(recorded_database: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(recorded_database)
    await connection.execute("insert into payment_jobs (job_type) values ('a')")
    yield connection
    await connection.close()


@pytest.mark.parametrize(
    ("what", "status", "code", "retry"),
    [
        ("schema_cache", 503, "PGRST002", "0"),
        ("database_away", 503, "57P01", "0"),
        ("pool", 504, "PGRST003", None),
        ("statement_timeout", 500, "57014", None),
    ],
)
async def test_what_postgrest_says_in_trouble(
    stack: Gateway, client: httpx.AsyncClient, what: What, status: int, code: str, retry: str | None
) -> None:
    stack.faults.rest.plan(what, "payment_jobs")
    refused = await client.get(TABLE)
    assert (refused.status_code, refused.json()["code"]) == (status, code)
    assert refused.headers["proxy-status"] == f"PostgREST; error={code}"
    assert refused.headers.get("retry-after") == retry
    assert (await client.get(TABLE)).status_code == 200


@pytest.mark.parametrize("status", [500, 502, 503, 504, 520])
async def test_what_a_proxy_says(
    stack: Gateway,
    client: httpx.AsyncClient,
    rows: "asyncpg.Connection[asyncpg.Record]",
    status: int,
) -> None:
    stack.faults.rest.plan("status", status=status)
    refused = await client.post(CLAIM, json={"n": 1})
    assert refused.status_code == status
    kind = "text/html" if status == 520 else "application/json"
    assert refused.headers["content-type"].startswith(kind)
    assert await rows.fetchval("select status from payment_jobs") == "pending", "nothing was done"
    stack.faults.rest.plan("status", status=status, body="<h1>down</h1>")
    assert (await client.get(TABLE)).text == "<h1>down</h1>"


async def test_lost_answer_is_committed_first(
    stack: Gateway, session: aiohttp.ClientSession, rows: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    stack.faults.rest.plan("lose_answer", "claim_jobs")
    with pytest.raises(aiohttp.ServerDisconnectedError):
        async with session.post(CLAIM, json={"n": 1}):
            pass
    assert await rows.fetchval("select status from payment_jobs") == "processing"
    async with session.post(CLAIM, json={"n": 1}) as second:
        assert await second.json() == []


async def test_body_that_breaks_off_is_committed_first(
    stack: Gateway, client: httpx.AsyncClient, rows: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    stack.faults.rest.plan("cut_body", "claim_jobs")
    got, length = b"", 0
    with pytest.raises(httpx.RemoteProtocolError, match="complete message body"):
        async with client.stream("POST", CLAIM, json={"n": 1}) as answer:
            assert answer.status_code == 200
            length = int(answer.headers["content-length"])
            async for part in answer.aiter_bytes():
                got += part
    assert got.startswith(b'[{"id"')
    assert len(got) == length // 2
    assert await rows.fetchval("select status from payment_jobs") == "processing"


async def test_connection_that_is_reset_has_done_nothing(
    stack: Gateway, session: aiohttp.ClientSession, rows: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    stack.faults.rest.plan("cut", CLAIM)
    with pytest.raises(aiohttp.ClientOSError, match="reset"):
        async with session.post(CLAIM, json={"n": 1}):
            pass
    assert await rows.fetchval("select status from payment_jobs") == "pending"


async def test_silence_lasts_until_the_client_goes(
    stack: Gateway, client: httpx.AsyncClient, rows: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    stack.faults.rest.plan("silence", "claim_jobs")
    with pytest.raises(httpx.ReadTimeout):
        await client.post(CLAIM, json={"n": 1}, timeout=0.1)
    assert await rows.fetchval("select status from payment_jobs") == "pending"
    assert len((await client.post(CLAIM, json={"n": 1})).json()) == 1


async def test_delayed_request_is_served(stack: Gateway, client: httpx.AsyncClient) -> None:
    stack.faults.rest.plan("delay", "add", seconds=0.1)
    began = asyncio.get_running_loop().time()
    assert (await client.post("/rest/v1/rpc/add", json={"a": 1, "b": 2})).json() == 3
    assert asyncio.get_running_loop().time() - began >= 0.1


async def test_faults_come_in_their_order_and_as_often_as_planned(
    stack: Gateway, client: httpx.AsyncClient
) -> None:
    faults = stack.faults.rest
    faults.plan("status", "/rest/v1/rpc", status=502, times=2)
    faults.plan("pool", "add")
    faults.plan("schema_cache", "payment_jobs", times=None)

    async def add() -> int:
        return (await client.post("/rest/v1/rpc/add", json={"a": 1, "b": 2})).status_code

    assert [await add() for _ in range(4)] == [502, 502, 504, 200]
    assert [(await client.get(TABLE)).status_code for _ in range(3)] == [503, 503, 503]
    assert [each.what for each in faults.planned] == ["schema_cache"]
    faults.clear()
    assert (await client.get(TABLE)).status_code == 200


async def test_official_client_meets_them(stack: Gateway) -> None:
    stack.faults.rest.plan("status", "add", status=520)
    stack.faults.rest.plan("statement_timeout", "add")
    async with httpx.AsyncClient() as http:
        client: Any = await acreate_client(
            stack.url, stack.keys.secret, AsyncClientOptions(httpx_client=http)
        )
        codes: list[str] = []
        for _ in range(2):
            with pytest.raises(APIError) as refused:
                await client.rpc("add", {"a": 1, "b": 2}).execute()
            codes.append(str(refused.value.code))
        assert codes == ["520", "57014"]
        assert (await client.rpc("add", {"a": 1, "b": 2}).execute()).data == 3


async def test_faults_are_planned_over_http(session: aiohttp.ClientSession) -> None:
    planned = [{"what": "status", "at": "add", "status": 504}, {"what": "cut", "at": TABLE, "times": 2}]
    async with session.post("/_devstack/faults", json={"rest": {"planned": planned}}) as set_:
        shown = (await set_.json())["rest"]["planned"]
    assert [(each["what"], each["at"], each["times"]) for each in shown] == [
        ("status", "add", 1),
        ("cut", TABLE, 2),
    ]
    async with session.post("/rest/v1/rpc/add", json={"a": 1, "b": 1}) as response:
        assert response.status == 504
    async with session.post("/rest/v1/rpc/add", json={"a": 1, "b": 1}) as response:
        assert response.status == 200


@pytest.mark.parametrize(
    "wanted",
    [
        {"nope": {}},
        {"rest": {"nope": 1}},
        {"realtime": {"deaf": 1}},
        {"rest": {"planned": [{"what": "nope"}]}},
        {"realtime": {"deaf": True}, "rest": {"planned": [{"what": "cut", "times": -1}]}},
        [],
    ],
)
async def test_fault_that_does_not_exist_is_refused(
    session: aiohttp.ClientSession, stack: Gateway, wanted: object
) -> None:
    before = stack.faults.shown()
    async with session.post("/_devstack/faults", json=wanted) as response:
        assert response.status == 400
    async with session.get("/_devstack/faults") as shown:
        assert await shown.json() == before == Faults().shown()
