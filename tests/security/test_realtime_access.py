"""Who hears what over Realtime: rows of a queue by the rights to its table, announcements only with the service key."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias

import aiohttp
import asyncpg
import pytest

from devstack.gateway import Gateway
from devstack.keys import LOCAL, PUBLISHABLE_KEY
from tests.contract.realtime_bench import Client, Frame
from tests.security.matrix import CALLERS, HEARS, JOINS, MINE

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Connect: TypeAlias = Callable[[], Awaitable[Client]]

QUEUE = {"event": "INSERT", "schema": "public", "table": "jobs_payment"}
CANARY = {"event": "INSERT", "schema": "public", "table": "realtime_canary"}
INSERT = "insert into payment_jobs (type, data, user_id) values ('a', '{\"secret\": 1}', $1) returning id"
BROADCAST = "/realtime/v1/api/broadcast"


@pytest.fixture
async def connect(gateway: Gateway) -> AsyncIterator[Connect]:
    """Opens sockets as anybody can, who has the public key."""
    async with aiohttp.ClientSession() as http:
        sockets: list[aiohttp.ClientWebSocketResponse] = []

        async def one() -> Client:
            url = f"{gateway.url}/realtime/v1/websocket?apikey={PUBLISHABLE_KEY}&vsn=1.0.0"
            sockets.append(await http.ws_connect(url, max_msg_size=0))
            return Client(sockets[-1])

        yield one
        for socket in sockets:
            await socket.close()


def token(caller: str) -> str:
    """What a caller joins with: a key of the new kind stands for a token."""
    return LOCAL.key_as_token(CALLERS[caller])


async def inserted(owner: Connection, user: str | None) -> int:
    made = await owner.fetchval(INSERT, user)
    assert isinstance(made, int)
    return made


def shown(change: Frame, hears: object) -> None:
    """Asserts that this change tells a caller as much as is written, and no more."""
    if hears == "knock":
        assert change["errors"] == ["Error 401: Unauthorized"]
        assert (change["record"], change["columns"]) == ({}, [])
    elif hears == "everything":
        assert change["record"]["data"] == {"secret": 1}
    else:
        assert set(change["record"]) == hears
        assert {column["name"] for column in change["columns"]} == hears


@pytest.mark.parametrize("caller", CALLERS)
async def test_who_hears_of_whose_rows(
    caller: str, connect: Connect, gateway: Gateway, owner: Connection
) -> None:
    hears = HEARS[caller]
    everybodys = caller not in ("user", "other")
    server, client = await connect(), await connect()
    await server.join(QUEUE, token=token("service"))
    await client.join(QUEUE, token=token(caller))
    for user in (None, MINE, None):
        job = await inserted(owner, user)
        gateway.realtime.poke()
        assert (await server.change())["record"]["id"] == job
        if everybodys or (hears is not None and user == MINE):
            change = await client.change()
            shown(change, hears)
            assert hears == "knock" or change["record"]["id"] == job
    await client.quiet()


@pytest.mark.parametrize("caller", CALLERS)
async def test_who_hears_canaries(caller: str, connect: Connect, gateway: Gateway, owner: Connection) -> None:
    """A binding to a column that the caller may not read is refused; that is all that others are told."""
    client = await connect()
    await client.ask(CANARY | {"filter": "token=eq.mine"}, token=token(caller))
    assert (await client.receive())["payload"]["status"] == "ok"
    said = (await client.receive())["payload"]["message"]
    assert (said == "Subscribed to PostgreSQL") == (caller in ("service", "worker"))
    if caller in ("service", "worker"):
        await owner.execute("insert into realtime_canary (token) values ('another'), ('mine')")
        gateway.realtime.poke()
        assert (await client.change())["record"]["token"] == "mine"
        await client.quiet()


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("topic", ["pulse", "pulse-worker-1"])
async def test_who_joins_the_private_channels_of_the_announcements(
    caller: str, topic: str, connect: Connect, owner: Connection
) -> None:
    await owner.execute("select announce_by_broadcast()")
    client = await connect()
    if caller in JOINS:
        await client.enter(f"realtime:{topic}", token=token(caller), private=True)
    else:
        reason = await client.refused(f"realtime:{topic}", token=token(caller), private=True)
        assert reason.startswith("Unauthorized: You do not have permissions to read")


async def test_the_public_channel_of_that_name_is_another_room(
    connect: Connect, gateway: Gateway, owner: Connection
) -> None:
    await owner.execute("select announce_by_broadcast()")
    listener, stranger = await connect(), await connect()
    await listener.enter("realtime:pulse", token=token("service"), private=True)
    await stranger.enter("realtime:pulse", token=token("anon"))
    forged: Frame = {"type": "broadcast", "event": "jobs_payment", "payload": {}}
    await stranger.send("realtime:pulse", "broadcast", forged)
    await stranger.quiet()
    await inserted(owner, MINE)
    assert (await listener.heard())["event"] == "jobs_payment"
    await listener.quiet()  # nothing but the announcement of the insert
    await stranger.quiet()


@pytest.mark.parametrize("caller", CALLERS)
async def test_who_rings_the_bell_over_http(
    caller: str, connect: Connect, gateway: Gateway, owner: Connection
) -> None:
    await owner.execute("select announce_by_broadcast()")
    listener = await connect()
    await listener.enter("realtime:pulse", token=token("service"), private=True)
    message: Frame = {"topic": "pulse", "event": "jobs_payment", "payload": {}, "private": True}
    headers = {"apikey": PUBLISHABLE_KEY, "Authorization": f"Bearer {token(caller)}"}
    async with (
        aiohttp.ClientSession(gateway.url, headers=headers) as http,
        http.post(BROADCAST, json={"messages": [message]}),
    ):
        if caller in JOINS:
            assert (await listener.heard())["event"] == "jobs_payment"
        await listener.quiet()
