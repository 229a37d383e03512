"""What Realtime promises and what it loses: order, publication, partitions, tokens, faults, refusals."""

import asyncio
import time
from collections.abc import AsyncIterator

import asyncpg
import pytest
from aiohttp import WSServerHandshakeError

from devstack.keys import PUBLISHABLE_KEY, mint
from devstack.postgres import Postgres
from tests.contract.realtime_bench import Bench, Client, Frame, serving
from tests.waiting import until

JOBS = {"event": "INSERT", "schema": "public", "table": "payment_jobs"}
INSERT = "insert into payment_jobs (job_type) values ('{}')"


@pytest.fixture
async def bench(cluster: Postgres) -> AsyncIterator[Bench]:
    async with serving(cluster) as bench:
        yield bench


async def types(client: Client, count: int) -> list[str]:
    """The job types of the next changes."""
    return [(await client.change())["record"]["job_type"] for _ in range(count)]


async def system(client: Client) -> Frame:
    frame = await client.receive()
    assert frame["event"] == "system", frame
    payload: Frame = frame["payload"]
    return payload


async def test_row_before_subscribed_is_not_delivered_and_the_first_after_it_is(bench: Bench) -> None:
    client = await bench.connect()
    await bench.sql(INSERT.format("too early"))
    bench.gateway.realtime.timing.subscribe_seconds = 0.1
    await client.ask(JOBS)
    assert (await client.receive())["payload"]["status"] == "ok"
    await bench.sql(INSERT.format("still too early"))
    assert (await system(client))["message"] == "Subscribed to PostgreSQL"
    await bench.sql(INSERT.format("in time"))
    assert await types(client, 1) == ["in time"]


async def test_changes_come_in_commit_order(bench: Bench) -> None:
    client = await bench.connect()
    await client.join(JOBS)
    async with asyncpg.create_pool(bench.dsn, min_size=1, max_size=1) as pool, pool.acquire() as slow:
        async with slow.transaction():
            await slow.execute(INSERT.format("began first"))
            await bench.sql(INSERT.format("committed first"))
        assert await types(client, 2) == ["committed first", "began first"]


async def test_partition_is_heard_under_its_own_name(bench: Bench) -> None:
    await bench.sql("""
        create table parent (queue text, id int, primary key (queue, id)) partition by list (queue);
        create table leaf partition of parent for values in ('leaf');
        create table deaf_leaf partition of parent for values in ('deaf');
        grant select on leaf to service_role;
        alter publication supabase_realtime add table leaf""")
    client = await bench.connect()
    await client.join({"event": "*", "schema": "public", "table": "leaf"})
    await bench.sql("insert into parent values ('deaf', 1), ('leaf', 2); insert into leaf values ('leaf', 3)")
    heard = [await client.change() for _ in range(2)]
    assert [(data["table"], data["record"]["id"]) for data in heard] == [("leaf", 2), ("leaf", 3)]
    await bench.quiet(client)


async def test_table_that_leaves_the_publication_falls_silent(bench: Bench) -> None:
    client = await bench.connect()
    await client.join(JOBS)
    await bench.sql("alter publication supabase_realtime drop table payment_jobs")
    await bench.sql(INSERT.format("unheard"))
    await bench.quiet(client)
    await bench.sql("alter publication supabase_realtime add table payment_jobs")
    await bench.sql(INSERT.format("heard"))
    assert await types(client, 1) == ["heard"]


async def test_renamed_and_added_columns_are_seen_at_once(bench: Bench) -> None:
    client = await bench.connect()
    await client.join({"event": "INSERT", "schema": "public", "table": "rls_jobs"})
    await bench.sql(
        "alter table rls_jobs rename note to remark; alter table rls_jobs add extra int default 5"
    )
    await bench.sql("insert into rls_jobs (id) values (1)")
    assert (await client.change())["record"] == {"id": 1, "owner": None, "remark": None, "extra": 5}


async def test_rights_that_change_between_two_rows_are_felt_by_the_second(bench: Bench) -> None:
    client = await bench.connect(PUBLISHABLE_KEY)
    await client.join(JOBS, token=mint("authenticated", sub="00000000-0000-4000-8000-000000000001"))
    await bench.sql(INSERT.format("seen whole"))
    assert len((await client.change())["record"]) == 9
    await bench.sql(
        "revoke select on payment_jobs from authenticated;"
        " grant select (id, job_type) on payment_jobs to authenticated"
    )
    await bench.sql(INSERT.format("seen in part"))
    assert set((await client.change())["record"]) == {"id", "job_type"}
    await bench.sql("alter table payment_jobs enable row level security")
    await bench.sql(INSERT.format("not seen"))
    await bench.quiet(client)


async def test_columns_are_chosen_and_others_tested_and_computed(bench: Bench) -> None:
    await bench.sql(
        "create table boxes (id int primary key, width int, height int, note text,"
        " area int generated always as (width * height) stored);"
        " grant select on boxes to service_role; alter publication supabase_realtime add table boxes"
    )
    client = await bench.connect()
    boxes = {"event": "INSERT", "schema": "public", "table": "boxes"}
    await client.join({**boxes, "select": ["area"], "filter": "note=eq.kept"})
    await bench.sql("insert into boxes values (1, 2, 3, 'passed over'), (2, 3, 4, 'kept')")
    assert (await client.change())["record"] == {"id": 2, "area": 12}
    await bench.quiet(client)


async def test_readings_stay_short_however_much_was_written(bench: Bench) -> None:
    """Each goes through the log again from the slot's restart: 1 ms for every MB."""
    client = await bench.connect()
    await client.join(JOBS)
    for _ in range(6):
        await bench.sql("insert into big_rows select n, repeat('x', 500) from generate_series(1, 2000) as n")
        await bench.sql("delete from big_rows")
        await bench.delivered()
    behind = await bench.owner.fetchval(
        "select (pg_current_wal_lsn() - min(restart_lsn))::bigint from pg_replication_slots where database = $1",
        bench.dsn.rpartition("/")[2].partition("?")[0],
    )
    written = 6 * 2000 * 500
    assert behind < written / 2


async def test_user_sees_own_rows_and_granted_columns_only(bench: Bench) -> None:
    await bench.sql(
        "revoke select on rls_jobs from authenticated; grant select (id, owner) on rls_jobs to authenticated"
    )
    mine, other = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"
    client = await bench.connect(PUBLISHABLE_KEY)
    rows = {"event": "*", "schema": "public", "table": "rls_jobs"}
    await client.join(rows, token=mint("authenticated", sub=mine))
    await bench.sql(
        f"insert into rls_jobs values (1, '{other}', 'x'); insert into rls_jobs values (2, '{mine}', 'x')"
    )
    data = await client.change()
    assert data["record"] == {"id": 2, "owner": mine}
    assert [column["name"] for column in data["columns"]] == ["id", "owner"]
    await bench.sql("delete from rls_jobs where id = 2")
    assert (await client.change())["old_record"] == {"id": 2}


async def test_policy_that_fails_loses_the_rows_of_other_tables_silently(bench: Bench) -> None:
    await bench.sql(
        "create policy broken on rls_nopolicy for select to authenticated using (1 / (id - id) = 1)"
    )
    client = await bench.connect()
    user = await bench.connect(PUBLISHABLE_KEY)
    await client.join(JOBS)
    await user.join({"event": "*", "schema": "public", "table": "rls_nopolicy"}, token=mint("authenticated"))
    await bench.sql("begin; " + INSERT.format("lost") + "; insert into rls_nopolicy values (1, 'x'); commit")
    await until("the slot is made anew", lambda: _heard_again(bench, client))


async def _heard_again(bench: Bench, client: Client) -> bool:
    await bench.sql(INSERT.format("probe"))
    try:
        async with asyncio.timeout(0.2):
            assert await types(client, 1) == ["probe"]
    except TimeoutError:
        return False
    return True


async def test_bad_binding_costs_no_other_channel_a_row(bench: Bench) -> None:
    client, bad = await bench.connect(), await bench.connect()
    await client.join(JOBS)
    await bench.sql(INSERT.format("pending"))
    await bad.ask(JOBS | {"filter": "priority=eq.abc"})
    assert (await bad.receive())["payload"]["status"] == "ok"
    assert (await system(bad))["status"] == "error"
    await bench.sql(INSERT.format("after"))
    assert await types(client, 2) == ["pending", "after"]


async def test_fresh_token_subscribes_again_and_loses_nothing(bench: Bench) -> None:
    client = await bench.connect()
    await client.join(JOBS, token=mint("service_role"))
    await client.send("realtime:t", "access_token", {"access_token": mint("service_role", again=True)})
    await bench.sql(INSERT.format("in between"))
    frames = [await client.receive(), await client.receive()]
    assert sorted(frame["event"] for frame in frames) == ["postgres_changes", "system"]
    await client.send("realtime:t", "access_token", {"access_token": "sb_secret_abc"})
    await client.send("realtime:t", "access_token", {"access_token": None})
    await bench.quiet(client)


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("abc", "The token provided is not a valid JWT"),
        (mint("anon")[:-4] + "AAAA", ":signature_error"),
        (mint("anon", exp=1_700_000_000), "Token has expired"),
    ],
)
async def test_bad_token_pushed_closes_the_channel_and_not_the_socket(
    bench: Bench, token: str, message: str
) -> None:
    client = await bench.connect()
    await client.join(JOBS)
    await client.send("realtime:t", "access_token", {"access_token": token})
    told, closed = await system(client), await client.receive()
    assert (told["extension"], told["status"]) == ("system", "error")
    assert told["message"].startswith(message)
    assert (closed["event"], closed["ref"]) == ("phx_close", "1")
    await bench.sql(INSERT.format("unheard"))
    await bench.quiet(client)


async def test_token_that_runs_out_closes_the_channel(bench: Bench) -> None:
    client = await bench.connect()
    await client.join(JOBS, token=mint("service_role", exp=time.time() + 0.3))
    assert (await system(client))["message"] == "Token has expired 0 seconds ago"
    assert (await client.receive())["event"] == "phx_close"
    await client.quiet()


async def test_realtime_off_drops_sockets_and_refuses_handshakes(bench: Bench) -> None:
    client = await bench.connect()
    await client.join(JOBS)
    bench.gateway.faults.realtime.off = True
    assert await client.closed() == 1006
    with pytest.raises(WSServerHandshakeError) as refused:
        await bench.connect()
    assert refused.value.status == 503


async def test_deaf_channel_is_joined_and_hears_nothing(bench: Bench) -> None:
    client = await bench.connect()
    await client.join(JOBS)
    await bench.delivered()
    bench.gateway.faults.realtime.deaf = True
    await bench.sql(INSERT.format("unheard"))
    before = await bench.owner.fetchval("select pg_current_wal_flush_lsn()")
    await until("the slot has been read", lambda: _confirmed(bench, before))
    await (
        bench.gateway.realtime.acts.lose_changes()
    )  # waits until that reading has been handed out, to nobody
    await client.quiet()
    bench.gateway.faults.realtime.deaf = False
    await until("rows are heard again", lambda: _heard_again(bench, client))


async def _confirmed(bench: Bench, position: str) -> bool:
    return bool(
        await bench.owner.fetchval(
            "select bool_and(confirmed_flush_lsn >= $1) from pg_replication_slots where database = current_database()",
            position,
        )
    )


async def test_faults_of_sockets(bench: Bench) -> None:
    realtime = bench.gateway.realtime.acts
    client = await bench.connect()
    await client.join(JOBS)
    realtime.announce_again()
    assert (await system(client))["message"] == "Subscribed to PostgreSQL"
    realtime.system_error()
    assert (await system(client))["status"] == "error"
    await realtime.lose_changes()
    await bench.sql(INSERT.format("heard by a new slot or by none"))
    realtime.expire_tokens()
    frames = [await client.receive()]
    while frames[-1]["event"] != "phx_close":
        frames.append(await client.receive())
    assert frames[-2]["payload"]["message"].startswith("Token has expired")
    await realtime.close_sockets(1012)
    assert await client.closed() == 1012


async def test_connection_lost_behind_the_scenes_is_not_told_and_heals(bench: Bench) -> None:
    client = await bench.connect()
    await client.join(JOBS)
    superuser = await asyncpg.connect(bench.superuser_dsn)
    await superuser.execute(
        "select pg_terminate_backend(active_pid) from pg_replication_slots where database = current_database()"
    )
    await superuser.close()
    await until("rows are heard again", lambda: _heard_again(bench, client))
    await client.quiet()


async def test_muted_socket_answers_nothing(bench: Bench) -> None:
    client = await bench.connect()
    await client.join(JOBS)
    bench.gateway.realtime.acts.mute_sockets()
    await client.send("phoenix", "heartbeat", {})
    with pytest.raises(TimeoutError):
        await client.socket.receive(timeout=0.2)


async def test_silent_socket_is_closed_in_the_end(bench: Bench) -> None:
    bench.gateway.realtime.timing.idle_seconds = 0.2
    client = await bench.connect()
    assert await client.closed() == 1000


async def test_plain_request_is_no_handshake(bench: Bench) -> None:
    async with bench.http.get(f"{bench.gateway.url}/realtime/v1/websocket?apikey=x") as answer:
        assert answer.status == 400


async def test_production_pace_delivers_too(cluster: Postgres) -> None:
    async with serving(cluster, deliver_at_once=False) as bench:
        client = await bench.connect()
        await client.join(JOBS)
        await bench.sql(INSERT.format("in half a second"))
        assert await types(client, 1) == ["in half a second"]
