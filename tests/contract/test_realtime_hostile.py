"""Frames that make no sense, clients that do not read, and many at once: order is kept, and nobody else suffers."""

import asyncio
import gc
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import WSMsgType

from devstack.postgres import Postgres
from devstack.realtime import line
from tests.contract.realtime_bench import Bench, Client, serving
from tests.waiting import until

JOBS: dict[str, object] = {"event": "INSERT", "schema": "public", "table": "payment_jobs"}
NUMBERED = """insert into payment_jobs (job_type, payload)
    select 'x', jsonb_build_object('i', n) from generate_series(1, {}) as n"""


@pytest.fixture
async def bench(cluster: Postgres) -> AsyncIterator[Bench]:
    async with serving(cluster) as bench:
        yield bench


async def numbers(client: Client, count: int) -> list[int]:
    return [(await client.change())["record"]["payload"]["i"] for _ in range(count)]


def join(**params: Any) -> str:
    config = {"postgres_changes": [{**JOBS, **params}]}
    push = {"topic": "realtime:odd", "event": "phx_join", "payload": {"config": config}, "ref": "1"}
    return json.dumps(push)


HOSTILE = [
    "",
    "null",
    "[" * 100_000,
    '{"a":' * 100_000,
    "1" * 10_000,
    "[1, 2, 3, 4, 5]",
    '{"topic": 1, "event": 2, "payload": 3, "ref": 4}',
    '{"topic": "realtime:\\ud800", "event": "phx_join", "payload": {"config": {}}, "ref": "\\ud800"}',
    '{"topic": "phoenix", "event": "heartbeat", "payload": {}, "ref": {"deep": [NaN, 1e999]}}',
    '{"topic": "realtime:t", "event": "phx_join", "payload": {"config": {"postgres_changes": [1, []]}}, "ref": 1}',
    '{"topic": "realtime:t", "event": "phx_join", "payload": {"config": [], "access_token": {}}, "ref": null}',
    '{"topic": "realtime:t", "event": "access_token", "payload": [], "ref": null}',
    '{"topic": "realtime:t", "event": "phx_join", "payload": {"access_token": "a.\\ud800.c"}, "ref": "1"}',
    join(schema="\ud800"),
    join(schema="\0"),
    join(schema={"a": 1}, table=[1]),
    join(schema="x" * 100_000),
    join(event={"a": 1}),
    join(filter="status=eq.\ud800"),
    join(filter="status=eq.\0"),
    join(filter="status=in.(" + ",".join(map(str, range(10_000))) + ")"),
    join(filter="=" * 1000),
    join(select=["\ud800", "id"]),
    join(select=[{"a": 1}]),
    "x" * 1_000_000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
async def test_senseless_frame_leaves_its_own_socket_and_all_others_alive(bench: Bench, text: str) -> None:
    client, hostile = await bench.connect(), await bench.connect()
    await client.join(JOBS)
    await hostile.socket.send_str(text)
    ref = await hostile.send("phoenix", "heartbeat", {}, join_ref=None)
    await until("it is answered", lambda: answered(hostile, ref))
    await bench.sql(NUMBERED.format(1))
    assert await numbers(client, 1) == [1]


async def answered(client: Client, ref: str) -> bool:
    frame = await client.receive()
    return (frame["topic"], frame["ref"]) == ("phoenix", ref)


@pytest.mark.parametrize(
    "data", [b"", b"\x00", b"\x03", b"\x03\xff\xff\xff\xff\xff\x01x", b"\xff" * 1000], ids=len
)
async def test_senseless_bytes_are_passed_over(bench: Bench, data: bytes) -> None:
    hostile = await bench.connect(version="2.0.0")
    await hostile.socket.send_bytes(data)
    ref = await hostile.send("phoenix", "heartbeat", {}, join_ref=None)
    await until("it is answered", lambda: answered(hostile, ref))


async def test_client_that_does_not_read_is_cut_off_and_nobody_waits_for_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "LONGEST_QUEUE", 1_000_000)
    big: dict[str, object] = {"event": "INSERT", "schema": "public", "table": "big_rows"}
    lazy, eager = await bench.connect(), await bench.connect()
    await lazy.join(big)
    await eager.join(big)
    joined = bench.gateway.realtime.joined
    connection: Any = lazy.socket._response.connection
    connection.transport.pause_reading()
    for number in range(60):
        await bench.sql(f"insert into big_rows values ({number}, 'n', repeat('x', 900000))")
        assert (await eager.change())["record"]["id"] == number
        if bench.gateway.realtime.joined < joined:
            break
    assert bench.gateway.realtime.joined == joined - 1
    await eager.quiet()


async def test_thousand_rows_of_one_statement_are_heard_in_order_by_all(bench: Bench) -> None:
    clients = [await bench.connect() for _ in range(5)]
    for client in clients:
        await client.join(JOBS)
    await bench.sql(NUMBERED.format(1000))
    for heard in await asyncio.gather(*(numbers(client, 1000) for client in clients)):
        assert heard == list(range(1, 1001))


async def test_hundred_subscribers_hear_every_row(bench: Bench) -> None:
    clients = [await bench.connect() for _ in range(100)]
    await asyncio.gather(*(client.join(JOBS) for client in clients))
    await bench.sql(NUMBERED.format(10))
    for heard in await asyncio.gather(*(numbers(client, 10) for client in clients)):
        assert heard == list(range(1, 11))
    assert bench.gateway.realtime.joined == 100


async def test_memory_stays_flat(bench: Bench) -> None:
    client = await bench.connect()
    await client.join(JOBS)
    used: list[int] = []
    for _ in range(8):
        await bench.sql(NUMBERED.format(1000))
        for _ in range(1000):
            assert (await client.socket.receive()).type == WSMsgType.TEXT
        gc.collect()
        used.append(len(gc.get_objects()))
    assert used[-1] - used[2] < 1000, f"objects alive after each 1,000 events: {used}"
