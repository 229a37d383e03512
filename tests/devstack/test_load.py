"""The stack under load and under clients that behave badly: no error, no stand-still, nothing taken down."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import pytest

from devstack.gateway import MAX_BODY, Gateway
from devstack.keys import LOCAL
from devstack.realtime.server import LARGEST_FRAME

CLIENTS = 20
INSERTS = 100  # each
KEY = {"apikey": LOCAL.secret}


@pytest.fixture
async def notes(fresh: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """A table to write into."""
    connection = await asyncpg.connect(fresh)
    await connection.execute(
        "create table notes (id bigint generated always as identity primary key, text text);"
        "grant all on notes to service_role; alter publication supabase_realtime add table notes"
    )
    yield connection
    await connection.close()


@pytest.fixture
async def stack(fresh: str, notes: "asyncpg.Connection[asyncpg.Record]") -> AsyncIterator[Gateway]:
    async with Gateway(fresh) as stack:
        yield stack


async def test_twenty_clients_insert_without_an_error(
    stack: Gateway, notes: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    told: Counter[int] = Counter()

    async def insert(number: int) -> None:
        async with aiohttp.ClientSession(stack.url, headers=KEY) as client:
            for turn in range(INSERTS):
                async with client.post("/rest/v1/notes", json={"text": f"{number}.{turn}"}) as answer:
                    told[answer.status] += 1

    async with asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(insert(number))
    assert told == {201: CLIENTS * INSERTS}
    assert await notes.fetchval("select count(distinct text) from notes") == CLIENTS * INSERTS


async def test_a_body_that_is_too_large_is_refused_and_the_next_is_served(stack: Gateway) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(MAX_BODY // 1_000_000 + 2):
            yield b" " * 1_000_000

    async with aiohttp.ClientSession(stack.url, headers=KEY) as client:
        try:
            async with client.post("/rest/v1/notes", data=endless()) as answer:
                assert answer.status == 413
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError):
            pass  # it closed the connection before we had sent it all, which is as good
        async with client.get("/rest/v1/notes") as answer:
            assert answer.status == 200


HOSTILE = [
    b"GET / HTTP/9.9\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00",  # the beginning of TLS
    b"GET /rest/v1/notes HTTP/1.1\r\nHost: x\r\n" + b"X-A: " + b"a" * 100_000 + b"\r\n\r\n",
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /rest/v1/notes HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"POST /rest/v1/notes HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\n",
    b"\r\n\r\n\r\n\x00\x00",
]


@pytest.mark.parametrize("words", HOSTILE, ids=range(len(HOSTILE)))
async def test_words_that_are_no_request_are_answered_or_cut(stack: Gateway, words: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(stack.url).port)
    writer.write(words)
    try:
        async with asyncio.timeout(10):
            said = await reader.read(200)
    except ConnectionResetError:
        said = b""
    finally:
        writer.close()
    assert said == b"" or said.startswith((b"HTTP/1.0 4", b"HTTP/1.1 4"))
    async with (
        aiohttp.ClientSession(stack.url, headers=KEY) as client,
        client.get("/rest/v1/notes") as answer,
    ):
        assert answer.status == 200


async def test_a_giant_frame_ends_its_own_socket_only(stack: Gateway) -> None:
    """Told by hand: a client library would want to tidy up what the server cuts off in the middle."""
    reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(stack.url).port)
    words = [
        f"GET /realtime/v1/websocket?apikey={LOCAL.secret}&vsn=1.0.0 HTTP/1.1",
        "Host: x",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    ]
    writer.write(("\r\n".join(words) + "\r\n\r\n").encode())
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
    too_long = LARGEST_FRAME + 1
    writer.write(b"\x81\xff" + too_long.to_bytes(8, "big") + b"\0\0\0\0" + b"x" * too_long)
    try:
        async with asyncio.timeout(10):
            said = await reader.read()  # to the end: the server closes
    except ConnectionResetError:
        said = b""
    finally:
        writer.close()
    assert said == b"" or said[2:4] == (1009).to_bytes(2, "big")
    async with (
        aiohttp.ClientSession(stack.url, headers=KEY) as client,
        client.get("/rest/v1/notes") as answer,
    ):
        assert answer.status == 200


async def test_clients_that_stop_in_mid_request_hold_up_nobody(stack: Gateway) -> None:
    """More of them than there are database connections."""
    port = urlsplit(stack.url).port
    head = (
        f"POST /rest/v1/notes HTTP/1.1\r\nHost: x\r\napikey: {LOCAL.secret}\r\nContent-Length: 100\r\n\r\n{{"
    )
    slow = [await asyncio.open_connection("127.0.0.1", port) for _ in range(50)]
    for _, writer in slow:
        writer.write(head.encode())
        await writer.drain()
    async with asyncio.timeout(5), aiohttp.ClientSession(stack.url, headers=KEY) as client:
        for _ in range(20):
            async with client.post("/rest/v1/notes", json={"text": "x"}) as answer:
                assert answer.status == 201
    for _, writer in slow:
        writer.close()
        await writer.wait_closed()
