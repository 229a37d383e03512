"""How the queues are: the numbers are the rows', bounded, and cost what they count."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

import asyncpg
import pytest

from tests.sql.calls import Calls, Connection, Json

MINUTE = timedelta(minutes=1)
MANY = 20_000
NOTHING: Json = {"due": 0, "oldest_seconds": 0, "held": 0, "paused": False, "running": 0, "dead": 0}


async def ages(server: Calls, at_most: int = 10_000) -> dict[str, Json]:
    answer: dict[str, Json] = await server._answer("queue_ages($1)", at_most)
    return answer


async def test_it_tells_of_each_queue_what_its_rows_are(server: Calls, owner: Connection) -> None:
    assert await ages(server) == dict.fromkeys(("payment", "broker", "alerts", "maintenance"), NOTHING)
    await owner.execute("select create_queue('reports')")
    for priority in (0, 0, 7, 100):
        await server.insert(priority=priority)
    await server.insert("nobody_knows_it")
    await owner.execute("insert into payment_jobs (type, run_at) values ('a', now() + interval '1 hour')")
    await owner.execute(
        "insert into payment_jobs (type, priority, created_at, run_at)"
        " values ('a', 3, now() - interval '50 seconds', now() - interval '1 hour')"
    )
    dead, running = (await server.claim(2))["jobs"]
    await server.end(dead, "dead", error_class="E")
    await server.insert("a", queue="reports")
    told = await ages(server)
    assert told["payment"] | {"oldest_seconds": 0} == NOTHING | {"due": 4, "running": 1, "dead": 1}
    assert 50 <= told["payment"]["oldest_seconds"] < 3000, "it was not there an hour ago"
    assert told["reports"]["due"] == 1
    assert told["broker"] == NOTHING
    assert running["priority"] == 7


async def test_a_dead_letter_that_was_replayed_is_none_any_more(server: Calls) -> None:
    await server.insert()
    ended = await server.end(await server.take(), "dead", error_class="E")
    assert (await ages(server))["payment"]["dead"] == 1
    await server.replay([ended["failed_job_id"]])
    told = (await ages(server))["payment"]
    assert (told["dead"], told["due"]) == (0, 1)


async def test_what_a_limit_holds_is_not_due_and_a_pause_is_told(server: Calls, owner: Connection) -> None:
    await owner.execute("select limit_jobs('broker', 'a', 'all', at_once => 1)")
    await owner.execute("select pause_jobs('payment', 'b', 'somebody looks at it')")
    for _ in range(3):
        await server.insert(queue="broker")
    await server.take(queue="broker")
    told = await ages(server)
    assert told["broker"] == NOTHING | {"held": 2, "running": 1}
    assert told["payment"] == NOTHING | {"paused": True}


async def test_what_waits_for_the_turn_of_its_user_is_due(server: Calls, owner: Connection) -> None:
    await owner.execute(
        "insert into payment_jobs (type, user_id, run_at, created_at)"
        " select 'a', '00000000-0000-0000-0000-000000000001', at, at"
        " from (select now() - interval '50 seconds' as at) as o cross join generate_series(1, 4)"
    )
    await server.claim(1)
    assert await owner.fetchval("select count(*) from jobs where lane is not null") == 3
    told = (await ages(server))["payment"]
    assert 50 <= told["oldest_seconds"] < 3000
    assert told | {"oldest_seconds": 0} == NOTHING | {"due": 3, "running": 1}
    (facts,) = [one for one in (await server._answer("queue_stats()"))["queues"] if one["queue"] == "payment"]
    assert (facts["pending"], facts["due"], facts["held"]) == (3, 3, 0)


async def test_age_is_told_by_the_queues_clock(
    server: Calls, move_clock: Callable[[timedelta], Awaitable[None]]
) -> None:
    await server.insert(queue="broker")
    await move_clock(10 * MINUTE)
    assert 600 <= (await ages(server))["broker"]["oldest_seconds"] < 660
    await move_clock(-10 * MINUTE)
    assert (await ages(server))["broker"] == NOTHING


async def test_counts_are_bounded_and_so_is_the_look(server: Calls, owner: Connection) -> None:
    """Whatever the session has planned on empty tables, and whatever lies around: finished rows and the future."""
    for _ in range(6):
        await ages(server)
    await owner.execute("alter table jobs_payment set (autovacuum_enabled = off)")
    await owner.execute(
        f"""
        insert into jobs_payment (type, status, attempt, finished_at)
        select 'a', 'completed', 1, now() from generate_series(1, {MANY});
        insert into jobs_payment (type, priority, run_at)
        select 'a', n % 5, now() + interval '1 day' from generate_series(1, {MANY}) as n;
        insert into jobs_payment (type, priority, created_at, run_at)
        select 'a', n % 5, now() - interval '1 hour', now() - interval '1 minute' from generate_series(1, 1500) as n;
        insert into jobs_payment (type, status, attempt, lease_expires_at)
        select 'a', 'running', 1, now() from generate_series(1, 1500);
        insert into jobs_payment (type, lane) select 'a', n % 7 from generate_series(1, 1500) as n;
        insert into failed_jobs (job_id, job_type, job_data, attempts, attempt)
        select n, 'payment', '{{}}', 1, 1 from generate_series(1, 1500) as n
        """
    )
    async with server.connection.transaction():
        told = (await ages(server, 1_000))["payment"]
        row = await server.connection.fetchrow(
            """
            select
                pg_stat_get_xact_numscans('jobs_payment'::regclass) as of_jobs,
                pg_stat_get_xact_numscans('failed_jobs'::regclass) as of_letters,
                (
                    select sum(pg_stat_get_xact_tuples_returned(indexrelid))
                    from pg_index where indrelid in ('jobs_payment'::regclass, 'failed_jobs'::regclass)
                ) as entries
            """
        )
    full = {"due": 1000, "held": 1000, "running": 1000, "dead": 1000}
    assert told | {"oldest_seconds": 0} == NOTHING | full
    assert 60 <= told["oldest_seconds"] < 3000
    assert row is not None
    assert (row["of_jobs"], row["of_letters"]) == (0, 0), "no table is read from end to end"
    assert row["entries"] < 5 * 1_000


async def test_no_more_is_counted_than_that(server: Calls) -> None:
    for wrong in (0, 10_001, None):
        with pytest.raises(asyncpg.InvalidParameterValueError, match="at_most must be from 1 to 10000"):
            await server._answer("queue_ages($1)", wrong)
