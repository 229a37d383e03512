"""Broadcasts over HTTP, in batches and one by one: who hears them, and what is answered."""

import json
from collections.abc import AsyncIterator
from io import BytesIO

import pytest

from devstack.keys import PUBLISHABLE_KEY, SECRET_KEY, mint
from devstack.postgres import Postgres
from devstack.realtime.sizes import LARGEST_PAYLOAD
from tests.contract.realtime_bench import Bench, serving
from tests.waiting import until

BATCH = "/realtime/v1/api/broadcast"
SINGLE = BATCH + "/room%2F1/events/hello"


@pytest.fixture
async def bench(cluster: Postgres) -> AsyncIterator[Bench]:
    async with serving(cluster) as bench:
        yield bench


async def post(
    bench: Bench, path: str, body: object, *, key: str | None = PUBLISHABLE_KEY, **headers: str
) -> tuple[int, object]:
    """Status and body of an answer; `body` is sent as JSON unless it is bytes."""
    given = ({} if key is None else {"apikey": key}) | {n.replace("_", "-"): v for n, v in headers.items()}
    if not isinstance(body, bytes):
        given.setdefault("Content-Type", "application/json")
    data = BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
    async with bench.http.post(bench.gateway.url + path, headers=given, data=data) as answer:
        return answer.status, await answer.json() if answer.content_length else None


def message(**fields: object) -> dict[str, object]:
    return {"topic": "t", "event": "hello", "payload": {"n": 1}} | fields


async def test_batch_reaches_public_and_private_rooms_as_far_as_it_may(bench: Bench) -> None:
    public, private = await bench.connect(version="2.0.0"), await bench.connect()
    await public.enter()
    await private.enter(private=True)
    both = {"messages": [message(id="x"), message(private=True, event="secret")]}
    assert await post(bench, BATCH, both) == (202, None)
    sent = {"type": "broadcast", "event": "hello", "payload": {"n": 1}, "meta": {"id": "x"}}
    assert await public.heard() == sent
    await private.quiet()
    assert await post(bench, BATCH, both, key=SECRET_KEY) == (202, None)
    assert (await private.heard())["event"] == "secret"


async def test_malformed_batch_is_refused_as_a_whole(bench: Bench) -> None:
    client = await bench.connect()
    await client.enter()
    large = "x" * LARGEST_PAYLOAD
    for messages, errors in (
        (None, ["can't be blank"]),
        ([], ["can't be blank"]),
        ("text", ["is invalid"]),
        ([message(), 5], ["is invalid"]),
        (
            [{"topic": "t"}, message(topic=" ", payload="no object", private=[]), message()],
            [
                {"event": ["can't be blank"], "payload": ["can't be blank"]},
                {"topic": ["can't be blank"], "payload": ["is invalid"], "private": ["is invalid"]},
                {},
            ],
        ),
        ([message(payload={"large": large})], [{"payload": ["Payload size exceeds tenant limit"]}]),
    ):
        assert await post(bench, BATCH, {"messages": messages}) == (422, {"errors": {"messages": errors}})
    await client.quiet()


@pytest.mark.parametrize("path", [BATCH, SINGLE])
async def test_who_may_send(bench: Bench, path: str) -> None:
    unauthorized = (401, {"message": "Unauthorized"})
    body = {"messages": [message()]}
    assert await post(bench, path, body, key=None) == unauthorized
    assert await post(bench, path, body, Authorization="Bearer abc") == unauthorized
    assert await post(bench, path, body, Authorization=f"Bearer {mint('anon')}x") == unauthorized
    assert await post(bench, path, body, Authorization=f"Bearer {mint('anon', exp=1)}") == unauthorized
    assert await post(bench, path, body, Authorization=f"Bearer {mint('anon')}") == (202, None)
    assert await post(bench, path, b"{", Content_Type="application/json") == (400, "Bad Request")
    large = b" " * 8_000_001
    assert await post(bench, path, large, key=None, Content_Type="application/json") == (
        413,
        "Request Entity Too Large",
    )


async def test_single_message(bench: Bench) -> None:
    old, new = await bench.connect(), await bench.connect(version="2.0.0")
    for client in (old, new):
        await client.enter("realtime:room/1")
    sent = {"type": "broadcast", "event": "hello", "payload": {"n": 1}}
    assert await post(bench, SINGLE, {"n": 1}) == (202, None)
    assert [await old.heard(), await new.heard()] == [sent, sent]
    assert await post(bench, SINGLE, [1], key=SECRET_KEY) == (202, None)
    assert [(await each.heard())["payload"] for each in (old, new)] == [{"_json": [1]}] * 2
    assert await post(bench, SINGLE, b"\x00\xff", Content_Type="application/octet-stream") == (202, None)
    assert (await new.heard())["payload"] == b"\x00\xff"
    await old.quiet()


async def test_single_message_that_may_not_be_sent(bench: Bench) -> None:
    private = SINGLE + "?private=true"
    client = await bench.connect()
    await client.enter("realtime:room/1", private=True)
    assert await post(bench, private, {}) == (403, {"message": "Unauthorized"})
    await bench.sql(
        "create policy broken on realtime.messages for insert to anon with check (1 / (select 0) = 1)"
    )
    assert await post(bench, private, {}) == (422, {"message": "RLS policy error"})
    nobody = f"Bearer {mint('nobody')}"
    assert await post(bench, private, {}, Authorization=nobody) == (422, {"message": "RLS policy error"})
    too_large = {"errors": {"payload": ["Payload size exceeds tenant limit"]}}
    assert await post(bench, SINGLE, {"large": "x" * LARGEST_PAYLOAD}) == (422, too_large)
    unsupported = {"error": "Unsupported Media Type. Use application/json or application/octet-stream"}
    assert await post(bench, SINGLE, b"<a/>", Content_Type="text/xml") == (415, unsupported)
    await client.quiet()


async def test_page_of_another_origin_may_ask_and_read(bench: Bench) -> None:
    url = bench.gateway.url + BATCH
    async with bench.http.options(
        url, headers={"Origin": "http://a", "Access-Control-Request-Headers": "apikey"}
    ) as answer:
        assert answer.headers["Access-Control-Allow-Headers"] == "apikey"
    async with bench.http.post(url, headers={"Origin": "http://a"}) as refused:
        assert (refused.status, refused.headers["Access-Control-Allow-Origin"]) == (401, "*")


async def test_realtime_off_refuses_broadcasts(bench: Bench) -> None:
    bench.gateway.faults.realtime.off = True
    status, _ = await post(bench, BATCH, {"messages": [message()]})
    assert status == 503


async def test_too_much_is_refused_and_ends_the_channels_that_it_reaches(bench: Bench) -> None:
    client, other = await bench.connect(), await bench.connect()
    await client.enter(broadcast={"replication_ready": True})
    assert (await client.receive())["event"] == "system"
    await other.enter("realtime:u", broadcast={"self": True})
    realtime = bench.gateway.realtime
    realtime.acts.limit(events_per_second=100, bucket_seconds=0.2)
    assert await post(bench, BATCH, {"messages": [message()] * 300}) == (202, None)
    for _ in range(300):
        assert (await client.heard())["event"] == "hello"
    await until("the meter is full", realtime.meter.full)
    assert await post(bench, BATCH, {"messages": [message()]}) == (429, {"message": "Too many requests"})
    await bench.sql("select realtime.send('{}', 'passed over', 't', false)")
    await other.send("realtime:u", "broadcast", {"event": "one too many"})
    assert (await other.heard())["event"] == "one too many"
    told, closed = await other.receive(), await other.receive()
    assert (told["payload"]["message"], closed["event"]) == ("Too many messages per second", "phx_close")
    await client.quiet()
