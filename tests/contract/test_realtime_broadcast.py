"""Broadcasts from client to client and from the database, in both versions of the protocol."""

import asyncio
import itertools
from collections.abc import AsyncIterator

import asyncpg
import pytest

from devstack.keys import PUBLISHABLE_KEY
from devstack.postgres import Postgres
from devstack.realtime.sizes import LARGEST_PAYLOAD
from tests.contract.realtime_bench import Bench, Client, serving
from tests.waiting import until

VERSIONS = ["1.0.0", "2.0.0"]
HELLO = {"type": "broadcast", "event": "hello", "payload": {"n": 1.5, "s": "☃"}}


@pytest.fixture
async def bench(cluster: Postgres) -> AsyncIterator[Bench]:
    async with serving(cluster) as bench:
        yield bench


async def connected(
    bench: Bench, version: str = "1.0.0", topic: str = "realtime:t", *, private: bool = False
) -> Client:
    """A client in a topic for which the reader of the database's messages is there."""
    client = await bench.connect(version=version)
    await client.enter(topic, broadcast={"replication_ready": True, "self": True}, private=private)
    told = (await client.receive())["payload"]
    assert told == {
        "channel": topic.removeprefix("realtime:"),
        "extension": "system",
        "message": "Replication connection established",
        "status": "ok",
    }
    return client


async def test_client_hears_another_and_itself_only_when_asked(bench: Bench) -> None:
    for speaks, listens in itertools.product(VERSIONS, VERSIONS):
        speaker, listener = await bench.connect(version=speaks), await bench.connect(version=listens)
        await speaker.enter()
        await listener.enter(broadcast={"self": True})
        await speaker.send("realtime:t", "broadcast", HELLO)
        assert await listener.heard() == HELLO
        await listener.send("realtime:t", "broadcast", HELLO)
        assert [await listener.heard(), await speaker.heard()] == [HELLO, HELLO]
        for client in (speaker, listener):
            await client.quiet()
            await client.socket.close()


async def test_binary_frames_reach_version_1_as_json_and_version_2_as_they_are(bench: Bench) -> None:
    speaker, old, new = (
        await bench.connect(version="2.0.0"),
        await bench.connect(),
        await bench.connect(version="2.0.0"),
    )
    for client in (speaker, old, new):
        await client.enter()
    await speaker.shout("hello", HELLO["payload"])
    await speaker.shout("bytes", b"\x00\xff")
    assert await old.heard() == HELLO
    frame = await new.receive()
    assert (frame["payload"], "binary" in frame) == (HELLO, True)
    assert await new.heard() == {"type": "broadcast", "event": "bytes", "payload": b"\x00\xff"}
    await old.quiet()  # version 1 has no way to say bytes


async def test_acknowledged_after_delivery(bench: Bench) -> None:
    client = await bench.connect()
    await client.enter(broadcast={"ack": True, "self": "true"})
    ref = await client.send("realtime:t", "broadcast", HELLO)
    assert await client.heard() == HELLO
    reply = await client.receive()
    assert (reply["ref"], reply["payload"]) == (ref, {"response": {}, "status": "ok"})


async def test_nobody_hears_another_topic_nor_one_that_was_left(bench: Bench) -> None:
    here, there, gone = await bench.connect(), await bench.connect(), await bench.connect()
    await here.enter()
    await there.enter("realtime:u")
    await gone.enter()
    await gone.send("realtime:t", "phx_leave", {})
    assert [(await gone.receive())["event"] for _ in range(2)] == ["phx_reply", "phx_close"]
    await here.send("realtime:t", "broadcast", HELLO)
    await here.quiet()
    for client in (there, gone):
        await client.quiet()


async def test_broadcast_on_a_topic_that_was_not_joined(bench: Bench) -> None:
    client = await bench.connect()
    await client.send("realtime:t", "broadcast", HELLO)
    assert (await client.receive())["payload"]["response"] == {"reason": "unmatched topic"}


@pytest.mark.parametrize("version", VERSIONS)
async def test_payload_over_the_limit_is_refused(bench: Bench, version: str) -> None:
    client = await bench.connect(version=version)
    await client.enter(broadcast={"ack": True, "self": True})
    overhead = 6 + 5  # of bytes as an Erlang term, and of `"` and the like
    for length in (LARGEST_PAYLOAD - overhead - 100, LARGEST_PAYLOAD):
        if version == "2.0.0":
            await client.shout("large", "x" * length)
        else:
            await client.send("realtime:t", "broadcast", {"event": "large", "payload": "x" * length})
    assert (await client.heard())["event"] == "large"
    assert (await client.receive())["payload"]["status"] == "ok"
    assert (await client.receive())["payload"] == {"response": "payload_size_exceeded", "status": "error"}


async def test_message_of_the_database_reaches_its_room_only(bench: Bench) -> None:
    for version, private in itertools.product(VERSIONS, (False, True)):
        client = await connected(bench, version, private=private)
        for each in (not private, private):
            await bench.sql(
                f"""select realtime.send('{{"private": {str(each).lower()}}}', 'ev', 't', {each})"""
            )
        frame = await client.receive()
        payload = frame["payload"]
        assert payload["event"] == "ev"
        assert payload["payload"] == {"id": payload["meta"]["id"], "private": private}
        assert ("binary" in frame) == (version == "2.0.0")
        await client.quiet()
        await client.socket.close()


async def test_messages_come_in_commit_order_and_not_before_commit(bench: Bench) -> None:
    client = await connected(bench)
    await bench.sql("begin; select realtime.send('{}', 'rolled back', 't', false); rollback")
    async with bench.owner.transaction():
        await bench.sql(
            "select realtime.send(jsonb_build_object('n', n), 'many', 't', false) from generate_series(1, 500) n"
        )
        await client.quiet()
    assert [(await client.heard())["payload"]["n"] for _ in range(500)] == list(range(1, 501))


async def test_payload_keeps_its_own_id(bench: Bench) -> None:
    client = await connected(bench)
    await bench.sql("""select realtime.send('{"id": 7, "big": 1.50}', 'ev', 't', false)""")
    payload = await client.heard()
    assert payload["payload"] == {"id": 7, "big": 1.5}
    assert payload["meta"]["id"] != 7


async def test_bytes_of_the_database(bench: Bench) -> None:
    old, new = await connected(bench), await connected(bench, "2.0.0")
    await bench.sql("select realtime.send_binary('\\x00ff', 'bytes', 't', false)")
    assert (await new.heard())["payload"] == b"\x00\xff"
    await old.quiet()


async def test_changes_are_broadcast_by_a_trigger(bench: Bench) -> None:
    await bench.sql("""
        create function public.tell() returns trigger language plpgsql security definer as $$
        begin
            perform realtime.broadcast_changes('t', tg_op, tg_op, tg_table_name, tg_table_schema, new, old);
            return null;
        end $$;
        create trigger tell after insert or update or delete on rls_nopolicy for each row execute function tell()""")
    client = await connected(bench, private=True)
    await bench.sql(
        "insert into rls_nopolicy values (1, 'a'); update rls_nopolicy set note = 'b'; delete from rls_nopolicy"
    )
    heard = [await client.heard() for _ in range(3)]
    a, b = {"id": 1, "note": "a"}, {"id": 1, "note": "b"}
    records = [(each["payload"]["old_record"], each["payload"]["record"]) for each in heard]
    assert records == [(None, a), (a, b), (b, None)]
    first = heard[0]["payload"]
    assert (first["operation"], first["table"], first["schema"]) == ("INSERT", "rls_nopolicy", "public")


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (
            "broadcast_changes('t', 'e', 'TRUNCATE', 'a', 'b', null::record, null)",
            "Unexpected operation type",
        ),
        (
            "broadcast_changes('t', 'e', 'INSERT', 'a', 'b', null::record, null, 'STATEMENT')",
            "for each row, not for each statement",
        ),
    ],
)
async def test_wrong_call_of_broadcast_changes_fails(bench: Bench, call: str, told: str) -> None:
    with pytest.raises(asyncpg.RaiseError, match=f"Failed to process the row: .*{told}"):
        await bench.sql(f"select realtime.{call}")


async def test_message_that_cannot_be_stored_vanishes_with_a_warning(bench: Bench) -> None:
    warned: list[str] = []
    bench.owner.add_log_listener(lambda _, message: warned.append(str(message)))
    client = await connected(bench, private=True)
    await bench.sql("begin; set local role authenticated; select realtime.send('{}', 'lost', 't'); commit")
    await bench.sql("begin; set local role service_role; select realtime.send('{}', 'kept', 't'); commit")
    assert (await client.heard())["event"] == "kept"
    assert [text for text in warned if "WarnSendingBroadcastMessage: new row violates" in text]


async def test_message_without_an_event_or_payload_is_passed_over(bench: Bench) -> None:
    client = await connected(bench)
    await bench.sql("""
        insert into realtime.messages (topic, extension, event, payload) values ('t', 'broadcast', null, '{}');
        insert into realtime.messages (topic, extension, event, payload) values ('t', 'broadcast', 'empty', null);
        insert into realtime.messages (topic, extension, event, payload) values ('t', 'anything', 'good', '[1]')""")
    assert (await client.heard())["payload"] == [1]
    await client.quiet()


async def test_partitions_are_made_ahead(bench: Bench) -> None:
    days: int = await bench.owner.fetchval(
        "select count(*) from pg_inherits where inhparent = 'realtime.messages'::regclass"
    )
    assert days == 5


async def test_reader_that_fails_comes_back_and_tells_nobody(bench: Bench) -> None:
    client = await connected(bench)
    superuser = await asyncpg.connect(bench.superuser_dsn)
    try:
        await superuser.execute(
            "select pg_terminate_backend(active_pid) from pg_replication_slots where database = current_database()"
        )
    finally:
        await superuser.close()

    async def heard_again() -> bool:
        await bench.sql("select realtime.send('{}', 'probe', 't', false)")
        try:
            async with asyncio.timeout(0.2):
                return bool((await client.heard())["event"] == "probe")
        except TimeoutError:
            return False

    await until("messages are heard again", heard_again)


async def test_payload_that_is_no_object_breaks_the_channel_of_its_sender_only(bench: Bench) -> None:
    bad, good = await bench.connect(PUBLISHABLE_KEY), await bench.connect()
    await good.enter(broadcast={"self": True})
    payloads: list[object] = ["no object", None, [1], 5]
    for payload in payloads:
        await bad.enter()
        await bad.send("realtime:t", "broadcast", payload)
        assert (await bad.receive())["event"] == "phx_error"
    await good.send("realtime:t", "broadcast", HELLO)
    assert await good.heard() == HELLO
    await bad.quiet()


async def test_text_that_is_no_json_is_passed_over(bench: Bench) -> None:
    bad, good = await bench.connect(PUBLISHABLE_KEY), await bench.connect()
    await bad.enter()
    await good.enter()
    push = '{"topic":"realtime:t","event":"broadcast","ref":"1","payload":{"event":"x","payload":...}}'
    deep = "[" * 700 + "]" * 700
    for payload in ('"\\ud800"', "NaN", "1e999", "-Infinity", deep, "1" * 5000):
        await bad.socket.send_str(push.replace("...", payload))
    for text in ("[" * 100_000, "", "{}", "[]", '"', "null", "[1,2,3,4,5]", "\x00"):
        await bad.socket.send_str(text)
    await bad.quiet()
    await good.quiet()


async def test_malformed_binary_frame_is_passed_over(bench: Bench) -> None:
    client, old = await bench.connect(version="2.0.0"), await bench.connect()
    await client.enter()
    half, no_text = b"\x03\x01\x01\xff\x01\x01\x011", b"\x03\x00\x00\x01\x00\x00\x01\xff"
    for data in (b"", b"\x03", b"\x03" * 7, half, no_text, bytes(50)):
        await client.socket.send_bytes(data)
        await old.socket.send_bytes(data)
    await client.quiet()
    await old.quiet()


async def test_giant_topic_is_heard_where_it_can_be_said(bench: Bench) -> None:
    topic = "realtime:" + "x" * 100_000
    old, new = await connected(bench, topic=topic), await connected(bench, "2.0.0", topic)
    await new.send(topic, "broadcast", HELLO)
    assert [await old.heard(), await new.heard()] == [HELLO, HELLO]
    await bench.sql(f"select realtime.send('{{}}', 'ev', '{topic[9:]}', false)")
    assert (await old.heard())["event"] == "ev"
    await new.quiet()  # a binary frame has one byte for the length of a topic
