"""Private channels: what the policies on realtime.messages allow, at the join and later; and what is replayed."""

import time
from collections.abc import AsyncIterator

import pytest

from devstack.keys import PUBLISHABLE_KEY, mint
from devstack.postgres import Postgres
from tests.contract.realtime_bench import Bench, Frame, serving

ME, OTHER = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"
UNREADABLE = "You do not have permissions to read from this Channel topic: t"
HELLO: Frame = {"type": "broadcast", "event": "hello", "payload": {}}
READ = """
    create policy read on realtime.messages for select to authenticated
    using (
      realtime.topic() = 't' and extension = 'broadcast' and auth.uid() = '00000000-0000-4000-8000-000000000001'
    )"""
WRITE = """
    create policy write on realtime.messages for insert to authenticated
    with check (extension = 'broadcast' and topic = realtime.topic() and auth.jwt() ->> 'mood' = 'loud')"""


@pytest.fixture
async def bench(cluster: Postgres) -> AsyncIterator[Bench]:
    async with serving(cluster) as bench:
        yield bench


async def test_policies_decide_who_may_join(bench: Bench) -> None:
    await bench.sql(READ)
    client = await bench.connect(PUBLISHABLE_KEY)
    assert await client.refused(private=True) == f"Unauthorized: {UNREADABLE}"
    assert await client.refused(private="True", token=mint("authenticated", sub=OTHER)) == (
        f"Unauthorized: {UNREADABLE}"
    )
    elsewhere = await client.refused("realtime:u", private=True, token=mint("authenticated", sub=ME))
    assert elsewhere.endswith("Channel topic: u")
    await client.enter(private=True, token=mint("authenticated", sub=ME))
    assert await bench.owner.fetchval("select count(*) from realtime.messages") == 0  # what was tried is gone


async def test_private_and_public_topics_are_two_rooms(bench: Bench) -> None:
    private, public = await bench.connect(), await bench.connect()
    await private.enter(private=True)
    await public.enter()
    for client in (private, public):
        await client.send("realtime:t", "broadcast", HELLO)
        await client.quiet()
    await private.quiet()


async def test_policies_decide_who_may_send(bench: Bench) -> None:
    await bench.sql(READ + ";" + WRITE)
    listener, quiet, loud = await bench.connect(), await bench.connect(), await bench.connect()
    await listener.enter(private=True)
    for client, mood in ((quiet, "quiet"), (loud, "loud")):
        await client.enter(
            private=True, broadcast={"ack": True}, token=mint("authenticated", sub=ME, mood=mood)
        )
        await client.send("realtime:t", "broadcast", HELLO | {"event": mood})
    assert (await listener.heard())["event"] == "loud"
    assert (await loud.receive())["payload"]["status"] == "ok"
    assert (await quiet.heard())["event"] == "loud"  # and no answer to its own
    await quiet.send(
        "realtime:t", "access_token", {"access_token": mint("authenticated", sub=ME, mood="loud")}
    )
    await quiet.send("realtime:t", "broadcast", HELLO | {"event": "loud now"})
    assert (await listener.heard())["event"] == "loud now"


async def test_fresh_token_is_tried_against_the_policies(bench: Bench) -> None:
    await bench.sql(READ)
    client = await bench.connect()
    await client.enter(private=True, token=mint("authenticated", sub=ME))
    await client.send(
        "realtime:t", "access_token", {"access_token": mint("authenticated", sub=ME, again=True)}
    )
    await client.quiet()
    await client.send("realtime:t", "access_token", {"access_token": mint("authenticated", sub=OTHER)})
    told, closed = await client.receive(), await client.receive()
    assert told["payload"] == {
        "channel": "t",
        "extension": "system",
        "message": UNREADABLE,
        "status": "error",
    }
    assert closed["event"] == "phx_close"


async def test_permission_that_is_lost_in_part_ends_the_channel(bench: Bench) -> None:
    await bench.sql(
        READ + ";create policy presence on realtime.messages for select to authenticated"
        " using (extension = 'presence')"
    )
    client = await bench.connect()
    await client.enter(private=True, presence={"enabled": True}, token=mint("authenticated", sub=ME))
    await client.send("realtime:t", "access_token", {"access_token": mint("authenticated", sub=OTHER)})
    told = (await client.receive())["payload"]
    assert told["message"] == "You no longer have permission to read from this Channel topic: t"


@pytest.mark.parametrize(
    ("role", "policy"),
    [
        ("authenticated", "create policy broken on realtime.messages for select using (1 / (select 0) = 1)"),
        ("nobody", "select 1"),
    ],
    ids=["policy that fails", "role that does not exist"],
)
async def test_what_the_database_cannot_answer_is_no(bench: Bench, role: str, policy: str) -> None:
    await bench.sql(policy)
    client = await bench.connect()
    assert await client.refused(private=True, token=mint(role)) == f"Unauthorized: {UNREADABLE}"


async def test_missing_partition_is_named(bench: Bench) -> None:
    client = await bench.connect()
    await client.enter("realtime:u", private=True)
    await bench.sql("alter table realtime.messages rename to gone")
    await bench.sql(
        "create table realtime.messages (like realtime.gone including all) partition by range (inserted_at);"
        " grant select, insert on realtime.messages to service_role"
    )
    reason = "MissingPartition: Realtime was unable to find the expected messages partition"
    assert await client.refused(private=True) == reason


async def test_presence_alone_may_be_allowed(bench: Bench) -> None:
    await bench.sql(
        "create policy r on realtime.messages for select to authenticated using (extension = 'presence');"
        "create policy w on realtime.messages for insert to authenticated with check (extension = 'presence')"
    )
    user, service = await bench.connect(), await bench.connect()
    token = mint("authenticated", sub=ME)
    assert await user.refused(private=True, token=token) == f"Unauthorized: {UNREADABLE}"
    assert await user.enter(private=True, token=token, presence={"enabled": True, "key": "me"}) == {}
    await service.enter(private=True)
    await service.send("realtime:t", "broadcast", HELLO)
    await service.quiet()
    await user.quiet()  # hears no broadcasts
    await user.send("realtime:t", "presence", {"type": "presence", "event": "track", "payload": {"n": 1}})
    assert (await user.receive())["payload"] == {"response": {}, "status": "ok"}
    assert list((await user.receive())["payload"]["joins"]) == ["me"]
    await service.quiet()  # presence was not asked for at its join


async def test_presence_may_be_forbidden(bench: Bench) -> None:
    await bench.sql(
        "create policy r on realtime.messages for select to authenticated using (extension = 'broadcast')"
    )
    user, service = await bench.connect(), await bench.connect()
    await service.enter(private=True, presence={"enabled": True})
    await user.ask(token=mint("authenticated"), config={"private": True, "presence": {"enabled": True}})
    assert (await user.receive())["payload"]["status"] == "ok"
    track: Frame = {"type": "presence", "event": "track", "payload": {}}
    await user.send("realtime:t", "presence", track)
    assert (await user.receive())["payload"] == {"response": {}, "status": "error"}
    await service.send("realtime:t", "presence", track)
    assert [(await service.receive())["event"] for _ in range(2)] == ["phx_reply", "presence_diff"]
    await user.quiet()


# -- replay --


async def sent(bench: Bench, *numbers: int, private: bool = True) -> None:
    for n in numbers:
        await bench.sql(f"""select realtime.send('{{"n": {n}}}', 'ev', 't', {private})""")


@pytest.mark.parametrize("version", ["1.0.0", "2.0.0"])
async def test_messages_are_replayed_oldest_first_and_once(bench: Bench, version: str) -> None:
    await sent(bench, *range(1, 5))
    await sent(bench, 99, private=False)
    client = await bench.connect(version=version)
    await client.enter(private=True, broadcast={"replay": {"since": 0, "limit": 3}})
    for n in (2, 3, 4):
        payload = await client.heard()
        assert (payload["event"], payload["payload"]["n"]) == ("ev", n)
        assert payload["meta"] == {"id": payload["payload"]["id"], "replayed": True}
    await bench.sql(
        "insert into realtime.messages (id, topic, extension, event, payload, private)"
        " select id, topic, extension, 'again', payload, private from realtime.messages where payload ->> 'n' = '4'"
    )
    await sent(bench, 5)
    after = await client.heard()
    assert (after["payload"]["n"], list(after["meta"])) == (5, ["id"])


async def test_since_is_a_time_and_the_limit_has_a_limit(bench: Bench) -> None:
    await bench.sql(
        "insert into realtime.messages (topic, extension, event, payload, private, inserted_at)"
        " select 't', 'broadcast', 'ev', to_jsonb(n), true, now() at time zone 'UTC' - interval '1 h' * (40 - n) / 40"
        " from generate_series(1, 40) as n"
    )
    client = await bench.connect()
    await client.enter(private=True, broadcast={"replay": {"since": 0, "limit": 1000}})
    assert [(await client.heard())["payload"] for _ in range(25)] == list(range(16, 41))
    half_an_hour_ago = int((time.time() - 1800) * 1000)
    await client.enter(private=True, broadcast={"replay": {"since": half_an_hour_ago}})
    closed = await client.receive()
    assert closed["event"] == "phx_close"
    assert [(await client.heard())["payload"] for _ in range(20)] == list(range(21, 41))
    await client.quiet()


async def test_replay_is_for_private_channels_and_for_numbers(bench: Bench) -> None:
    client = await bench.connect()
    public = "UnableToReplayMessages: Replay is not allowed for public channels"
    assert await client.refused(broadcast={"replay": {"since": 0}}) == public
    invalid = "UnableToReplayMessages: Replay params are not valid"
    for params in ({}, {"since": "0"}, {"since": 0, "limit": "3"}, {"since": 10**30}, {"since": 1.5}):
        assert await client.refused(private=True, broadcast={"replay": params}) == invalid


async def test_bytes_are_replayed_to_version_2(bench: Bench) -> None:
    await bench.sql("select realtime.send_binary('\\x00ff', 'bytes', 't')")
    for version in ("1.0.0", "2.0.0"):
        client = await bench.connect(version=version)
        await client.enter(private=True, broadcast={"replay": {"since": 0}})
        if version == "2.0.0":
            payload = await client.heard()
            assert (payload["payload"], payload["meta"]["replayed"]) == (b"\x00\xff", True)
        await client.quiet()
