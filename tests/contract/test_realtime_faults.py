"""Every switch and act of Realtime's faults bites, as a bare socket sees it; set in Python and over the admin door."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from aiohttp import WSServerHandshakeError

from devstack.postgres import Postgres
from devstack.realtime.acts import Acts
from tests.contract.realtime_bench import Bench, Client, serving
from tests.waiting import until

JOBS = {"event": "INSERT", "schema": "public", "table": "payment_jobs"}
INSERT = "insert into payment_jobs (job_type) select unnest(array['{}'])"


@pytest.fixture
async def bench(cluster: Postgres) -> AsyncIterator[Bench]:
    async with serving(cluster) as bench:
        yield bench


@pytest.fixture
async def client(bench: Bench) -> Client:
    """Joined and subscribed; the marker's witness is, too."""
    await bench.delivered()
    client = await bench.connect()
    await client.join(JOBS)
    return client


async def insert(bench: Bench, *types: str) -> None:
    await bench.sql(INSERT.format("','".join(types)))


async def heard(client: Client, count: int) -> list[str]:
    return [(await client.change())["record"]["job_type"] for _ in range(count)]


async def door(bench: Bench, path: str, body: object) -> tuple[int, dict[str, object]]:
    async with bench.http.post(f"{bench.gateway.url}/_devstack/{path}", json=body) as answer:
        return answer.status, await answer.json()


# -- events --


@pytest.mark.parametrize(
    ("switch", "types"),
    [
        ("lose_events", ["b", "c"]),
        ("double_events", ["a", "a", "b", "c"]),
        ("late_events", ["b", "c", "a"]),
    ],
)
async def test_events_are_missing_doubled_and_late(
    bench: Bench, client: Client, switch: str, types: list[str]
) -> None:
    assert (await door(bench, "faults", {"realtime": {switch: 1, "late_seconds": 0.1}}))[0] == 200
    await insert(bench, "a", "b", "c")
    assert await heard(client, len(types)) == types
    assert getattr(bench.gateway.faults.realtime, switch) == 0
    await bench.quiet(client)


async def test_what_is_committed_while_the_slot_is_gone_is_lost_silently(
    bench: Bench, client: Client
) -> None:
    async with asyncio.TaskGroup() as group:
        losing = group.create_task(bench.gateway.realtime.acts.lose_changes(0.5))
        await asyncio.sleep(0)
        await insert(bench, "lost")
        assert not losing.done()
    await until("a new slot is read", lambda: bench.gateway.realtime.listens)
    await insert(bench, "heard")
    assert await heard(client, 1) == ["heard"]
    await bench.quiet(client)


async def test_subscribed_with_nothing_behind_it(bench: Bench, client: Client) -> None:
    bench.gateway.faults.realtime.false_subscribed = True
    fooled = await bench.connect()
    await fooled.join(JOBS)
    await insert(bench, "unheard")
    await bench.quiet(fooled)
    assert await heard(client, 1) == ["unheard"]


async def test_large_rows_lose_their_large_values(bench: Bench) -> None:
    bench.gateway.faults.realtime.largest_record_bytes = 100
    client = await bench.connect()
    await client.join({"event": "INSERT", "schema": "public", "table": "big_rows"})
    await bench.sql("insert into big_rows values (1, 'n', repeat('x', 100)), (2, 'n', repeat('x', 50))")
    large, small = await client.change(), await client.change()
    assert (large["errors"], large["record"]) == (["Error 413: Payload Too Large"], {"id": 1, "note": "n"})
    assert (small["errors"], small["record"]["id"]) == (None, 2)


async def test_above_the_rate_rows_are_passed_over_in_silence_and_later_heard_again(bench: Bench) -> None:
    client = await bench.connect()
    await client.join(JOBS)
    bench.gateway.realtime.acts.limit(events_per_second=100, bucket_seconds=0.3)
    for at in range(0, 100, 10):
        await insert(bench, *map(str, range(at, at + 10)))
    assert len(await heard(client, 100)) == 100
    await asyncio.sleep(0.3)  # the bucket fills: this is the time that the counter measures
    await insert(bench, "unheard")
    await until("rows are heard again", lambda: hears_again(bench, client))


async def hears_again(bench: Bench, client: Client) -> bool:
    await insert(bench, "probe")
    try:
        async with asyncio.timeout(0.1):
            return await heard(client, 1) == ["probe"]
    except TimeoutError:
        return False


# -- handshakes and joins --


async def test_next_handshakes_are_refused_one_by_one(bench: Bench) -> None:
    bench.gateway.realtime.timing.refuse_handshake_seconds = 0
    await door(bench, "faults", {"realtime": {"refuse_handshakes": [429, 401, 403]}})
    for status in (429, 401, 403):
        with pytest.raises(WSServerHandshakeError) as refused:
            await bench.connect()
        assert refused.value.status == status
    await (await bench.connect()).quiet()


async def test_slow_join_holds_up_the_whole_socket(bench: Bench, client: Client) -> None:
    bench.gateway.faults.realtime.slow_join_seconds = 0.2
    loop = asyncio.get_running_loop()
    began = loop.time()
    await client.ask(JOBS, topic="realtime:slow")
    beat = await client.send("phoenix", "heartbeat", {}, join_ref=None)
    replies = [await client.receive() for _ in range(3)]
    assert loop.time() - began >= 0.2
    assert [reply["topic"] for reply in replies if reply["event"] == "phx_reply"] == [
        "realtime:slow",
        "phoenix",
    ]
    assert beat in [reply["ref"] for reply in replies]


async def test_more_channels_and_users_than_allowed_are_refused(bench: Bench) -> None:
    bench.gateway.realtime.timing.refuse_handshake_seconds = 0
    bench.gateway.realtime.acts.limit(channels_per_socket=1, users=1)
    client = await bench.connect()
    await client.join(JOBS)
    await client.ask(JOBS, topic="realtime:second")
    reply = (await client.receive())["payload"]
    assert reply == {"status": "error", "response": {"reason": "ChannelRateLimitReached: Too many channels"}}
    async with bench.http.get(
        f"{bench.gateway.url}/realtime/v1/websocket",
        headers={
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "x-api-key": bench.gateway.keys.service_role,
        },
    ) as answer:
        assert (answer.status, await answer.json()) == (429, {"error": "Too many connected users"})


async def test_too_many_joins_are_refused_and_end_the_socket(bench: Bench) -> None:
    bench.gateway.realtime.acts.limit(joins_per_second=10, bucket_seconds=0.2)
    client = await bench.connect()
    await until("the counter has judged", lambda: join_refused(client))
    assert await client.closed() == 1001


async def join_refused(client: Client) -> bool:
    await client.ask(topic=f"realtime:{client.sent}")
    reply = (await client.receive())["payload"]
    if reply["status"] == "error":
        assert reply["response"]["reason"] == "ClientJoinRateLimitReached: Too many joins per second"
        return True
    return False


# -- acts --


async def test_second_subscribed_is_announced(bench: Bench, client: Client) -> None:
    assert await door(bench, "realtime/announce_again", {}) == (200, {"done": "announce_again"})
    assert (await client.receive())["payload"]["message"] == "Subscribed to PostgreSQL"


async def test_transient_error_leaves_the_channel_open(bench: Bench, client: Client) -> None:
    await door(bench, "realtime/system_error", {"message": "for a moment"})
    told = (await client.receive())["payload"]
    assert told == {
        "channel": "t", "extension": "postgres_changes", "message": "for a moment", "status": "error"
    }  # fmt: skip
    await insert(bench, "heard")
    assert await heard(client, 1) == ["heard"]


@pytest.mark.parametrize(
    ("act", "events", "says"),
    [
        ("expire_tokens", ["system", "phx_close"], "Token has expired 0 seconds ago"),
        ("end_channels", ["system", "phx_close"], "Too many messages per second"),
        ("crash_channels", ["phx_error"], None),
    ],
)
async def test_channels_end_and_sockets_stay(
    bench: Bench, client: Client, act: str, events: list[str], says: str | None
) -> None:
    await door(bench, f"realtime/{act}", {})
    frames = [await client.receive() for _ in events]
    assert [frame["event"] for frame in frames] == events
    assert frames[0]["payload"].get("message") == says
    assert frames[-1]["ref"] == "1"
    await insert(bench, "unheard")
    await client.quiet()


async def test_operator_disconnects_with_a_message_without_a_channel(bench: Bench, client: Client) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(door(bench, "realtime/disconnect", {}))
        told = (await client.receive())["payload"]
        assert told == {"extension": "system", "message": "Server requested disconnect", "status": "ok"}
        assert await client.closed() == 1012


@pytest.mark.parametrize("code", [1000, 1001, 1012])
async def test_sockets_are_closed_with_the_code_asked_for(bench: Bench, client: Client, code: int) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(door(bench, "realtime/close_sockets", {"code": code}))
        assert await client.closed() == code


async def test_cut_sockets_hear_no_farewell(bench: Bench, client: Client) -> None:
    await door(bench, "realtime/drop_sockets", {})
    assert await client.closed() == 1006


async def test_half_open_socket_answers_no_ping_and_hears_nothing(bench: Bench, client: Client) -> None:
    await door(bench, "realtime/mute_sockets", {})
    await client.socket.ping()
    await client.send("phoenix", "heartbeat", {})
    await insert(bench, "unheard")
    with pytest.raises(TimeoutError):
        await client.socket.receive(timeout=0.2)


async def test_table_made_anew_is_heard_after_the_next_look_at_the_publication(bench: Bench) -> None:
    await bench.sql(
        "create table brief (id int primary key); alter publication supabase_realtime add table brief"
    )
    client = await bench.connect()
    await client.join({"event": "*", "schema": "public", "table": "brief"})
    await bench.sql(
        "drop table brief; create table brief (id int primary key);"
        " alter publication supabase_realtime add table brief; insert into brief values (1)"
    )
    await bench.quiet(client)
    await door(bench, "realtime/check_publication", {})
    assert (await client.receive())["payload"]["message"] == "Subscribed to PostgreSQL"
    await bench.sql("insert into brief values (2)")
    assert (await client.change())["record"] == {"id": 2}


async def test_table_that_is_gone_ends_in_an_error_at_the_next_look(bench: Bench, client: Client) -> None:
    await bench.sql("alter publication supabase_realtime drop table payment_jobs")
    await door(bench, "realtime/check_publication", {})
    told = (await client.receive())["payload"]
    assert told["status"] == "error"
    assert told["message"].startswith("Unable to subscribe to changes with given parameters")


async def test_recovering_ends_the_wait_after_a_loss(bench: Bench, client: Client) -> None:
    bench.gateway.realtime.timing.recover_seconds = 60
    superuser = await asyncpg.connect(bench.superuser_dsn)
    await superuser.execute(
        "select pg_terminate_backend(active_pid) from pg_replication_slots where database = current_database()"
    )
    await superuser.close()
    await until("the loss is noticed", lambda: not bench.gateway.realtime.listens)
    await until("the server listens", lambda: recovered(bench))
    await insert(bench, "heard")
    assert await heard(client, 1) == ["heard"]


async def recovered(bench: Bench) -> bool:
    bench.gateway.realtime.acts.recover()
    return bench.gateway.realtime.listens


# -- the admin door --


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("realtime/explode", {}, "there is no act 'explode'; there are announce_again,"),
        ("realtime/close_sockets", {"code": "x"}, "close_sockets: code: Input should be a valid integer"),
        ("realtime/close_sockets", {"kode": 1}, "close_sockets: kode: Unexpected keyword argument"),
        ("realtime/close_sockets", [], "the arguments of an act are a JSON object"),
        (
            "faults",
            {"realtime": {"lose_events": -1}},
            "realtime.lose_events: Input should be greater than or equal",
        ),
        (
            "faults",
            {"realtime": {"refuse_handshakes": [200]}},
            "realtime.refuse_handshakes.0: Input should be 401",
        ),
    ],
)
async def test_door_says_what_it_does_not_take(bench: Bench, path: str, body: object, says: str) -> None:
    status, answer = await door(bench, path, body)
    assert status == 400
    assert str(answer["message"]).startswith(says)


async def test_door_tells_its_acts(bench: Bench) -> None:
    async with bench.http.get(f"{bench.gateway.url}/_devstack/realtime") as answer:
        assert await answer.json() == Acts.names()


def test_every_act_is_described() -> None:
    acts = {name for name in vars(Acts) if not name.startswith("_")} - {"names", "perform"}
    assert set(Acts.names()) == acts
    assert all(Acts.names().values())
