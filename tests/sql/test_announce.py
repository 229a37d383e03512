"""Announcing inserts by broadcast: once per statement and queue, by every table, and never at the INSERT's cost."""

import asyncio
import time

import asyncpg
import pytest

from tests.sql.calls import Calls, Connection

SEND_RAISES = """
    create or replace function realtime.send(payload jsonb, event text, topic text, private boolean default true)
    returns void language plpgsql as $$ begin raise exception 'broken'; end $$
"""
ANNOUNCED = "select topic, event, private from realtime.messages order by event, topic"


@pytest.fixture
async def announcing(owner: Connection) -> Connection:
    await owner.execute("select announce_by_broadcast()")
    return owner


async def said(owner: Connection) -> list[tuple[str, str, bool]]:
    return [tuple(row) for row in await owner.fetch(ANNOUNCED)]


async def test_nothing_is_announced_before_it_is_asked_for(server: Calls, owner: Connection) -> None:
    await server.insert()
    assert await said(owner) == []


async def test_one_announcement_per_statement_and_queue(server: Calls, announcing: Connection) -> None:
    await announcing.execute("insert into payment_jobs (type) select 'a' from generate_series(1, 100)")
    await announcing.execute(
        "insert into jobs (queue, type) select (array['broker', 'alerts'])[1 + n % 2], 'a' from generate_series(1, 9) n"
    )
    assert await said(announcing) == [
        ("pulse", "jobs_alerts", True),
        ("pulse", "jobs_broker", True),
        ("pulse", "jobs_payment", True),
    ]


async def test_enqueue_and_plain_inserts_of_the_server_are_announced(
    server: Calls, announcing: Connection
) -> None:
    await server.insert()
    await server.enqueue({"queue": "broker", "type": "a"})
    await server.claim()
    assert [event for _, event, _ in await said(announcing)] == ["jobs_broker", "jobs_payment"]


async def test_a_canary_is_announced_to_its_worker_alone(server: Calls, announcing: Connection) -> None:
    await server.value("select canary('w-1')")
    assert await said(announcing) == [("pulse-w-1", "realtime_canary", True)]


async def test_a_queue_made_later_is_announced_too(announcing: Connection) -> None:
    await announcing.execute("select create_queue('reports'); insert into reports_jobs (type) values ('a')")
    assert [event for _, event, _ in await said(announcing)] == ["jobs_reports"]


async def test_it_may_be_repeated_and_switched_off(announcing: Connection) -> None:
    await announcing.execute("select announce_by_broadcast()")
    await announcing.execute("insert into payment_jobs (type) values ('a')")
    assert len(await said(announcing)) == 1
    await announcing.execute("select announce_by_broadcast(false)")
    await announcing.execute("insert into payment_jobs (type) values ('a'); select canary('w')")
    await announcing.execute("select create_queue('reports'); insert into reports_jobs (type) values ('a')")
    assert len(await said(announcing)) == 1


@pytest.mark.parametrize(
    "broken",
    [
        "drop function realtime.send(jsonb, text, text, boolean)",
        SEND_RAISES,
        "drop table realtime.messages cascade",
        "drop schema realtime cascade",
        "revoke execute on function realtime.send from postgres, anon, authenticated, service_role, public",
        "revoke insert on realtime.messages from postgres, anon, authenticated, service_role, public",
    ],
    ids=["no send", "send raises", "no messages", "no schema", "no usage", "no insert"],
)
async def test_the_insert_never_fails_because_of_it(
    announcing: Connection, database: str, broken: str
) -> None:
    await as_superuser(database, broken)
    await announcing.execute("insert into payment_jobs (type) values ('a'); select canary('w')")
    assert await announcing.fetchval("select count(*) from payment_jobs") == 1


async def as_superuser(database: str, statement: str) -> None:
    superuser = await asyncpg.connect(database, user="supabase_admin")
    try:
        await superuser.execute(statement)
    finally:
        await superuser.close()


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        ("drop function realtime.send(jsonb, text, text, boolean)", "no realtime.send. Switch Realtime on"),
        ("drop schema realtime cascade", "no realtime.send. Switch Realtime on"),
        (
            "revoke execute on function realtime.send from postgres, anon, authenticated, service_role, public",
            "postgres may not broadcast. Run: grant usage on",
        ),
        (
            "revoke insert on realtime.messages from postgres, anon, authenticated, service_role, public",
            "postgres may not broadcast. Run: grant",
        ),
        ("alter role postgres nobypassrls", "no policy lets postgres broadcast. Run: create policy"),
    ],
)
async def test_a_project_that_cannot_broadcast_is_told_so_with_the_mend(
    owner: Connection, database: str, broken: str, problem: str
) -> None:
    await as_superuser(database, f"revoke supabase_realtime_admin from postgres; {broken}")
    try:
        with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError, match=problem):
            await owner.execute("select announce_by_broadcast()")
        assert problem in await owner.fetchval("select canary('w') ->> 'unannounced'")
        await owner.execute("insert into payment_jobs (type) values ('a')")
    finally:
        # Roles are those of all databases of this server.
        await as_superuser(
            database, "alter role postgres bypassrls; grant supabase_realtime_admin to postgres"
        )


async def test_a_queue_whose_trigger_was_taken_away_is_named(announcing: Connection) -> None:
    assert await announcing.fetchval("select canary('w') ->> 'unannounced'") is None
    await announcing.execute("alter table jobs_broker disable trigger announce_insert")
    problem = await announcing.fetchval("select canary('w') ->> 'unannounced'")
    assert problem == "inserts into jobs_broker are not announced. Run: select announce_by_broadcast();"


async def test_a_lock_on_the_messages_holds_up_no_insert(announcing: Connection, database: str) -> None:
    superuser = await asyncpg.connect(database, user="supabase_admin")
    try:
        await superuser.execute("begin; lock table realtime.messages in access exclusive mode")
        began = time.monotonic()
        await announcing.execute("insert into payment_jobs (type) values ('a'); select canary('w')")
        assert time.monotonic() - began < 1  # two announcements of 50 ms; the rest is for a busy machine
        assert await announcing.fetchval("select count(*) from payment_jobs") == 1
        await superuser.execute("rollback")
    finally:
        await superuser.close()
    await announcing.execute("insert into payment_jobs (type) values ('a')")
    assert len(await said(announcing)) == 1


async def test_switching_it_meets_no_deadlock_with_workers_and_canaries(
    owner: Connection, database: str
) -> None:
    """Workers go on while a migration switches it on and off."""
    claim = "select claim('payment', array['a'], 10, 60, 'w', 'sweep', sweep => true)"
    stop = asyncio.Event()

    async def goes_on(statement: str) -> None:
        connection = await asyncpg.connect(database)
        try:
            while not stop.is_set():
                await connection.execute(statement)
        finally:
            await connection.close()

    async with asyncio.TaskGroup() as group:
        for statement in (claim, claim, "select canary('w')", "select canary('v')"):
            group.create_task(goes_on(statement))
        for enabled in (True, False) * 10:
            await owner.execute("select announce_by_broadcast($1)", enabled)
        stop.set()
