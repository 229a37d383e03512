"""Presence: who is there, who comes and goes, and what is too much."""

import socket
import time
from collections.abc import AsyncIterator

import pytest

from devstack.keys import mint
from devstack.postgres import Postgres
from tests.contract.realtime_bench import Bench, Client, Frame, serving

VERSIONS = ["1.0.0", "2.0.0"]


@pytest.fixture
async def bench(cluster: Postgres) -> AsyncIterator[Bench]:
    async with serving(cluster) as bench:
        yield bench


async def present(bench: Bench, key: object = "", *, version: str = "1.0.0") -> Client:
    client = await bench.connect(version=version)
    await client.enter(presence={"enabled": True, "key": key})
    return client


async def track(client: Client, payload: object, event: str = "track") -> Frame:
    """Tracks and gives the payload of the reply."""
    ref = await client.send(
        "realtime:t", "presence", {"type": "presence", "event": event, "payload": payload}
    )
    reply = await client.receive()
    assert (reply["event"], reply["ref"]) == ("phx_reply", ref), reply
    answered: Frame = reply["payload"]
    return answered


async def diff(client: Client) -> tuple[Frame, Frame]:
    """Who came and who went, their metas without the refs."""
    frame = await client.receive()
    assert frame["event"] == "presence_diff", frame
    return named(frame["payload"]["joins"]), named(frame["payload"]["leaves"])


def named(state: Frame) -> Frame:
    return {
        key: [{name: value for name, value in meta.items() if "ref" not in name} for meta in each["metas"]]
        for key, each in state.items()
    }


@pytest.mark.parametrize("version", VERSIONS)
async def test_who_comes_changes_and_goes_is_told(bench: Bench, version: str) -> None:
    here, other = await present(bench, "here", version=version), await present(bench, "other")
    assert await track(here, {"mood": "ok"}) == {"response": {}, "status": "ok"}
    for client in (here, other):
        assert await diff(client) == ({"here": [{"mood": "ok"}]}, {})
    await track(here, {"mood": "fine"}, "TRACK")
    for client in (here, other):
        assert await diff(client) == ({"here": [{"mood": "fine"}]}, {"here": [{"mood": "ok"}]})
    await track(here, {"mood": "fine"})  # nothing new
    await track(here, {}, "untrack")
    for client in (here, other):
        assert await diff(client) == ({}, {"here": [{"mood": "fine"}]})
    await track(here, {}, "untrack")
    await other.quiet()


async def test_refs_tell_metas_apart(bench: Bench) -> None:
    client = await present(bench, "me")
    await track(client, {"n": 1})
    first = (await client.receive())["payload"]["joins"]["me"]["metas"][0]
    await track(client, {"n": 2})
    frame = (await client.receive())["payload"]
    second = frame["joins"]["me"]["metas"][0]
    assert first["phx_ref"] == second["phx_ref_prev"] != second["phx_ref"]
    assert frame["leaves"]["me"]["metas"] == [first]


async def test_state_groups_by_key(bench: Bench) -> None:
    first, second = await present(bench, "both"), await present(bench, "both")
    await track(first, {"n": 1})
    await diff(second)
    await track(second, {"n": 2})
    alone = await present(bench, 5)
    await track(alone, {"n": 3})
    late = await bench.connect()
    state = await late.enter(presence={"enabled": True})
    assert state is not None
    assert named(state) == {"both": [{"n": 1}, {"n": 2}], "5": [{"n": 3}]}


async def test_key_is_made_up_when_there_is_none(bench: Bench) -> None:
    client = await present(bench)
    await track(client, {})
    (key,) = (await diff(client))[0]
    assert len(key) == 36


async def test_end_of_a_channel_is_told_to_the_others(bench: Bench) -> None:
    other = await present(bench)
    for how in ("leave", "close", "join again", "token runs out", "connection lost"):
        client = await bench.connect()
        token = mint("anon", exp=time.time() + 1) if how == "token runs out" else None
        await client.enter(presence={"enabled": True, "key": how}, token=token)
        await track(client, {"n": 1})
        assert await diff(other) == ({how: [{"n": 1}]}, {})
        match how:
            case "leave":
                await client.send("realtime:t", "phx_leave", {})
            case "close":
                await client.socket.close()
            case "join again":
                await client.ask()
            case "connection lost":
                transport = client.socket.get_extra_info("socket")
                transport.shutdown(socket.SHUT_RDWR)
            case _:
                pass
        assert await diff(other) == ({}, {how: [{"n": 1}]})


async def test_who_did_not_ask_for_presence_gets_no_state_and_is_seen_all_the_same(bench: Bench) -> None:
    other = await present(bench)
    client = await bench.connect()
    await client.enter()
    await track(client, {"n": 1})
    (metas,) = (await diff(other))[0].values()
    assert metas == [{"n": 1}]
    assert (await client.receive())["event"] == "presence_diff"


async def test_malformed_presence(bench: Bench) -> None:
    client, other = await present(bench), await present(bench)
    assert await track(client, "no object") == {
        "response": {"reason": "Presence track payload must be a map"},
        "status": "error",
    }
    assert await track(client, {}, "dance") == {"response": {}, "status": "error"}
    await client.send("realtime:t", "presence", {"no": "event"})
    assert (await client.receive())["payload"]["status"] == "ok"
    await client.send("realtime:t", "presence", "no object")
    assert (await client.receive())["payload"]["status"] == "ok"
    await client.send("realtime:t", "presence", {"event": 5})
    assert (await client.receive())["event"] == "phx_error"
    await other.quiet()


async def test_too_many_calls_end_the_channel(bench: Bench) -> None:
    client = await present(bench)
    for n in range(5):
        await track(client, {"n": n})
        await diff(client)
    await client.send("realtime:t", "presence", {"type": "presence", "event": "track", "payload": {"n": 6}})
    told, closed = await client.receive(), await client.receive()
    assert told["payload"]["message"] == "Client presence rate limit exceeded"
    assert closed["event"] == "phx_close"


async def test_too_large_a_payload_ends_the_channel(bench: Bench) -> None:
    client = await present(bench)
    await client.send(
        "realtime:t", "presence", {"type": "presence", "event": "track", "payload": {"x": "x" * 3_001_000}}
    )
    assert (await client.receive())["payload"]["message"] == "Track message size exceeded"


async def test_many_are_present(bench: Bench) -> None:
    clients = [await present(bench, n) for n in range(1, 61)]
    for n, client in enumerate(clients):
        await client.send(
            "realtime:t", "presence", {"type": "presence", "event": "track", "payload": {"n": n}}
        )
    late = await bench.connect()
    for client in clients:
        seen: set[str] = set()
        while len(seen) < len(clients):
            frame = await client.receive()
            if frame["event"] == "presence_diff":
                seen |= frame["payload"]["joins"].keys()
    state = await late.enter(presence={"enabled": True})
    assert state is not None
    assert len(state) == len(clients)
