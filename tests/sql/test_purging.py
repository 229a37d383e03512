"""What a purge would delete is told before, table by table, and so it is: nothing goes uncounted."""

import json

import pytest

from tests.sql.calls import Calls, Connection, Json

# Two old rows of each table that a purge may delete from, and one that stays; an old alert has three deliveries, an old
# digest one.
OLD_AND_YOUNG = """
    insert into jobs_payment (type, status, attempt, created_at, finished_at)
    select 'a', s, 1, now() - d, now() - d
    from unnest(array['completed', 'failed']) as s, unnest(array[interval '8 days', interval '91 days']) as d;
    insert into failed_jobs (job_id, job_type, job_data, attempts, attempt, failed_at)
    select n, 'payment', '{}', 1, 1, now() - (4 - n) * interval '46 days' from generate_series(1, 3) as n;
    insert into stale_outcomes (queue, job_id, attempt, kind, outcome, told_at)
    select 'payment', n, 1, 'dead', '{}', now() - (4 - n) * interval '46 days' from generate_series(1, 3) as n;
    insert into call_limits (key, forget_at)
    select 'k' || n, now() + (2.5 - n) * interval '1 day' from generate_series(1, 4) as n;
    insert into stripe_events (id, type, livemode, job_key, status, sent_at, ended_at)
    select 'evt_' || n, 't', true, 'k', 'processed', now(), now() - n * interval '21 days'
    from generate_series(1, 3) as n;
    insert into alerts (alert_type, title, dedupe_key, created_at)
    select 'a', 'a', 'k' || n, now() - n * interval '200 days' from generate_series(1, 3) as n;
    insert into alert_deliveries (alert_id, channel, address, status)
    select a.id, 'email', 'a' || n, 'failed' from alerts as a, generate_series(1, 3) as n;
    insert into digests (user_id, period, period_key, window_start, window_end, created_at)
    select gen_random_uuid(), 'daily', '2026-01-01', '2026-01-01', '2026-01-02', now() - n * interval '200 days'
    from generate_series(1, 3) as n;
    insert into alert_deliveries (digest_id, channel, address, status)
    select d.id, 'email', 'a', 'failed' from digests as d;
    insert into alert_targets (channel, address, last_seen_at)
    select 'push', 'a' || n, now() - n * interval '140 days' from generate_series(1, 3) as n;
    insert into delivery_lanes (lane, turn_at)
    select 'a' || n, now() - n * interval '13 hours' from generate_series(1, 3) as n;
    insert into broker_connections (broker, user_id) values ('paper', gen_random_uuid());
    insert into broker_callbacks (broker_connection_id, event_id, event_type, received_at, noted_at)
    select c.id, n::text, 'e', now(), now() - n * interval '4 days'
    from broker_connections as c, generate_series(1, 3) as n;
    insert into broker_sync_runs (id, broker_connection_id, began_at)
    select gen_random_uuid(), c.id, now() - n * interval '16 days'
    from broker_connections as c, generate_series(1, 3) as n
"""
WOULD_GO = {
    "jobs": 3,
    "failed_jobs": 2,
    "stale_outcomes": 2,
    "call_limits": 2,
    "stripe_events": 2,
    "alerts": 2,
    "digests": 2,
    "alert_deliveries": 8,
    "alert_targets": 2,
    "delivery_lanes": 2,
    "broker_callbacks": 2,
    "broker_sync_runs": 2,
}


async def rows(owner: Connection) -> dict[str, int]:
    """How many each table of ours has."""
    tables = await owner.fetch(
        "select relname from pg_class where relnamespace = 'public'::regnamespace"
        " and relkind in ('r', 'p') and not relispartition"
    )
    return {name: await owner.fetchval(f"select count(*) from {name}") for (name,) in tables}


async def preview(calls: Calls, failed_days: float = 90, most: int = 100_000) -> Json:
    """As the server, which may not write meanwhile: PostgREST asks functions that change nothing read-only."""
    async with calls.connection.transaction(readonly=True):
        told: Json = json.loads(await calls.value("select count_prunable(7, $1, $2)", failed_days, most))
    return told


@pytest.fixture
async def full(owner: Connection) -> Connection:
    """The owner of a database in which every table has something old and something young."""
    await owner.execute(OLD_AND_YOUNG)
    return owner


async def test_the_preview_says_of_each_table_what_then_goes(server: Calls, full: Connection) -> None:
    told = await preview(server)
    assert told == {**WOULD_GO, "at_least": []}
    before = await rows(full)
    assert await server.prune() == {**WOULD_GO, "more": False}
    after = await rows(full)
    assert {table: n - after[table] for table, n in before.items() if n != after[table]} == WOULD_GO
    assert await preview(server) == {**dict.fromkeys(WOULD_GO, 0), "at_least": []}


async def test_steps_together_delete_what_one_would(server: Calls, full: Connection) -> None:
    gone = dict.fromkeys(WOULD_GO, 0)
    more = True
    while more:
        said = await server.prune(max_jobs=1)
        more = said.pop("more")
        assert said.keys() == gone.keys()
        gone = {table: n + said[table] for table, n in gone.items()}
    assert gone == WOULD_GO


async def test_a_count_that_ends_early_says_at_least(server: Calls, full: Connection) -> None:
    told = await preview(server, most=2)
    assert sorted(told.pop("at_least")) == sorted(WOULD_GO)
    assert told == {**dict.fromkeys(WOULD_GO, 2), "jobs": 3}, "jobs are looked at by the thousand"


async def test_old_jobs_behind_many_that_stay_are_counted_or_said_to_be_possible(
    server: Calls, owner: Connection
) -> None:
    await owner.execute(
        "insert into payment_jobs (type, run_at, created_at)"
        " select 'a', now() + interval '90 days', now() - interval '20 days' from generate_series(1, 3000)"
    )
    await owner.execute(
        "insert into payment_jobs (type, status, created_at, finished_at)"
        " values ('a', 'completed', now() - interval '20 days', now() - interval '10 days')"
    )
    told = await preview(server)
    assert (told["jobs"], told["at_least"]) == (1, [])
    told = await preview(server, most=1000)
    assert (told["jobs"], told["at_least"]) == (0, ["jobs"])


async def test_a_digest_goes_without_a_look_at_all_deliveries(owner: Connection) -> None:
    await owner.execute("set enable_seqscan = off")
    plan = await owner.fetchval(
        "explain (format json) delete from alert_deliveries where digest_id = gen_random_uuid()"
    )
    assert "alert_deliveries_by_digest" in plan
