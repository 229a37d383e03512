"""`doctor_facts` finds each planted fault, and the statement that it prints mends it; a healthy project has none."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import asyncpg
import pytest

from devstack.postgres import SUPERUSER, Postgres, bootstrap, throw_away_folder
from listener.migrate import migrate, migrations
from tests.skips import POSTGRES_15
from tests.sql.calls import Connection
from tests.sql.patient import CLOCK, Patient


@dataclass(frozen=True)
class Fault:
    """What is wrong, how it is done, and what else is found then."""

    finding: str
    plant: str
    besides: Sequence[str] = ()
    tidy: str = ""
    """Takes away what the fault has left, and the mend leaves."""
    as_superuser: bool = False


FAULTS = [
    # Realtime is not told
    Fault("not_published", "alter publication supabase_realtime drop table jobs_payment, realtime_canary"),
    Fault(
        "not_published",
        "drop publication supabase_realtime",
        as_superuser=True,  # here the database is not the owner's, as it is in a project
        tidy="alter publication supabase_realtime owner to postgres",
    ),
    Fault(
        "published_as_parent", "alter publication supabase_realtime set (publish_via_partition_root = true)"
    ),
    Fault("inserts_not_published", "alter publication supabase_realtime set (publish = 'update')"),
    Fault(
        "published_in_part",
        "alter publication supabase_realtime drop table jobs_broker;"
        "alter publication supabase_realtime add table jobs_broker (id, queue)",
    ),
    Fault(
        "published_in_part",
        "alter publication supabase_realtime drop table jobs_broker;"
        "alter publication supabase_realtime add table jobs_broker where (priority > 5)",
    ),
    # row level security
    Fault("no_row_security", "alter table jobs_payment disable row level security"),
    Fault("no_row_security", "alter table failed_jobs disable row level security"),
    Fault(
        "open_table", "create table notes (a text); grant select on notes to anon", tidy="drop table notes"
    ),
    Fault("no_policy", 'drop policy "users see their own jobs" on jobs'),
    Fault("no_policy", 'drop policy "workers hear of inserts" on jobs_alerts'),
    Fault("no_policy", 'drop policy "workers hear canaries" on realtime_canary'),
    Fault("strange_policy", "create policy everybody on jobs for select to authenticated using (true)"),
    # rights
    Fault("function_not_allowed", "revoke execute on function cancel from service_role"),
    Fault("function_not_allowed", "revoke execute on function claim, finish from pulse_worker"),
    Fault("function_open", "grant execute on function cancel, lock_connection, open_to_workers to public"),
    Fault("function_open", "grant execute on function cancel to authenticated"),
    Fault("function_open", "grant execute on function why to anon"),
    Fault("function_without_rights", "alter function claim security invoker"),
    Fault("function_without_path", "alter function claim reset search_path"),
    Fault(
        "function_without_path",
        "alter function finish set search_path = public; alter function cancel reset search_path",
    ),
    Fault("table_open", "grant select on jobs to authenticated"),
    Fault("table_open", "grant insert on jobs_payment to anon"),
    Fault("table_open", "grant select on failed_jobs to authenticated"),
    Fault("users_see_nothing", "revoke all on jobs_payment from authenticated"),
    Fault("server_may_change_jobs", "grant all on jobs to service_role"),
    Fault("server_sees_nothing", "revoke select on workers from service_role"),
    Fault(
        "server_may_not_insert",
        "revoke insert on jobs from service_role",
    ),
    Fault("worker_is_deaf", "revoke all on jobs_broker from pulse_worker"),
    Fault("worker_may_too_much", "grant select on jobs_broker to pulse_worker"),
    Fault("sequence_not_allowed", "revoke all on sequence jobs_id_seq from service_role"),
    Fault("worker_keys_closed", "revoke pulse_worker from authenticator"),
    Fault(
        "short_timeout",
        "do $$ begin execute format('alter role service_role in database %I set statement_timeout = ''500ms''',"
        " current_database()); end $$",
        as_superuser=True,
    ),
    # the things themselves
    Fault("index_missing", "drop index jobs_pending"),
    Fault("index_missing", "drop index jobs_lanes"),
    Fault("index_missing", "drop index jobs_running"),
    Fault("index_missing", "drop index jobs_idempotency_key"),
    Fault("index_missing", "drop index failed_jobs_newest"),
    Fault("index_invalid", "create index half on only jobs (type)"),
    Fault("queue_detached", "alter table jobs detach partition jobs_payment"),
    Fault("view_missing", "drop view payment_jobs"),
    Fault("view_of_owner", "alter view payment_jobs set (security_invoker = false)"),
    Fault("clock_replaced", CLOCK + " as $$ select now() - interval '1 second' $$"),
    Fault(
        "sequence_behind",
        "insert into payment_jobs (type, run_at) values ('a', now() + interval '1 day');"
        "update jobs set id = 1000",
    ),
    Fault("plan_settings_lost", "alter function claim reset enable_sort"),
    Fault("plan_settings_lost", "alter function heartbeat reset plan_cache_mode"),
    Fault(
        "plan_settings_lost",
        "alter function heartbeat reset all",
        besides=("function_without_path",),
        tidy="alter function heartbeat set jit = off; alter function heartbeat set enable_indexscan = off;"
        "alter function heartbeat set enable_bitmapscan = on; alter function heartbeat set enable_hashjoin = off;"
        "alter function heartbeat set enable_mergejoin = off",
    ),
    # upkeep
    Fault("vacuum_off", "alter table jobs_payment set (autovacuum_enabled = false)"),
    Fault(
        "vacuum_late",
        "alter table jobs_payment reset (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold,"
        " autovacuum_analyze_scale_factor, autovacuum_analyze_threshold)",
    ),
]


# Everything about our things that a mend could get wrong.
FINGERPRINT = """
    select 'class ' || c.relname || ' ' || c.relkind::text || ' ' || c.relrowsecurity || ' ' || c.relispartition || ' '
        || coalesce((select string_agg(o, ',' order by o) from unnest(c.reloptions) as o), '') as thing,
        (select string_agg(a::text, ' ' order by a::text) from unnest(c.relacl) as a) as rights
    from pg_class as c where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p', 'v', 'S')
    union all
    select 'column ' || a.attrelid::regclass || '.' || a.attname,
        (select string_agg(r::text, ' ' order by r::text) from unnest(a.attacl) as r)
    from pg_attribute as a join pg_class as c on c.oid = a.attrelid
    where c.relnamespace = 'public'::regnamespace and a.attnum > 0 and a.attacl is not null and a.attacl <> '{}'
    union all
    select 'policy ' || p.polrelid::regclass || ' ' || p.polname || ' ' || p.polcmd::text || ' ' || p.polroles::text,
        pg_get_expr(p.polqual, p.polrelid)
    from pg_policy as p
    union all
    select 'index ' || i.indexrelid::regclass || ' ' || i.indisvalid, pg_get_indexdef(i.indexrelid)
    from pg_index as i join pg_class as c on c.oid = i.indexrelid where c.relnamespace = 'public'::regnamespace
    union all
    select 'function ' || p.oid::regprocedure || ' ' || p.prosecdef || ' '
        || coalesce((select string_agg(o, ',' order by o) from unnest(p.proconfig) as o), ''),
        (select string_agg(a::text, ' ' order by a::text) from unnest(p.proacl) as a)
    from pg_proc as p where p.pronamespace = 'public'::regnamespace
    union all
    select 'published ' || p.tablename || ' ' || coalesce(p.rowfilter, ''), p.attnames::text
    from pg_publication_tables as p where p.pubname = 'supabase_realtime'
    union all
    select 'publication ' || p.pubname, concat_ws(' ', p.pubinsert, p.pubupdate, p.pubdelete, p.pubviaroot)
    from pg_publication as p
"""


async def fingerprint(owner: Connection) -> set[tuple[str, str | None]]:
    return {tuple(row) for row in await owner.fetch(FINGERPRINT)}


@pytest.mark.parametrize("part", range(4))
async def test_a_planted_fault_is_found_and_its_own_statement_mends_it_exactly(
    patient: Patient, cluster: Postgres, part: int
) -> None:
    """One after the other in one project, which is healthy again each time, and as it was to the letter."""
    owner = patient.owner
    superuser = await asyncpg.connect(
        cluster.dsn(await owner.fetchval("select current_database()"), SUPERUSER)
    )
    before = await fingerprint(owner)
    try:
        for fault in FAULTS[part::4]:
            assert await patient.words() == [], f"before {fault.plant}"
            doctor = superuser if fault.as_superuser else owner
            await doctor.execute(fault.plant)
            found = await patient.findings()
            words = {one["finding"] for one in found}
            assert words == {fault.finding, *fault.besides}, f"{fault.plant}: {words}"
            for one in found:
                await doctor.execute(one["mend"])
            assert await patient.words() == [], f"after the mend of {fault.plant}"
            if fault.tidy:
                await doctor.execute(fault.tidy)
            assert await fingerprint(owner) == before, fault.plant
    finally:
        await superuser.close()


async def test_a_project_with_a_worker_is_healthy(patient: Patient) -> None:
    assert await patient.findings() == []


async def test_a_project_that_announces_is_healthy_and_one_that_announces_in_part_is_not(
    patient: Patient,
) -> None:
    await patient.owner.execute("select announce_by_broadcast()")
    assert await patient.findings() == []
    await patient.owner.execute("drop trigger announce_insert on jobs_payment")
    [found] = await patient.findings()
    assert found["finding"] == "not_announced"
    await patient.owner.execute(found["mend"])
    assert await patient.findings() == []


@pytest.fixture
async def plain() -> AsyncIterator[Connection]:
    """PostgreSQL 15 with the roles that the files need, and no Supabase around it."""
    binaries = POSTGRES_15.path()
    with throw_away_folder() as folder:
        async with Postgres(folder, binaries=binaries) as server:
            await bootstrap(server.dsn(user=SUPERUSER))
            superuser = await asyncpg.connect(server.dsn(user=SUPERUSER))
            await superuser.execute("drop schema realtime cascade; drop publication supabase_realtime")
            await superuser.close()
            await migrate(server.dsn(), migrations())
            connection = await asyncpg.connect(server.dsn())
            yield connection
            await connection.close()


async def test_postgres_15_with_plain_roles_is_healthy(plain: Connection) -> None:
    patient = Patient(plain)
    await patient.says()
    assert await patient.findings() == []


async def test_it_only_reads_and_is_for_the_server_alone(patient: Patient) -> None:
    rows = await patient.owner.fetch(
        "select proname, provolatile from pg_proc where pronamespace = 'public'::regnamespace"
        " and (proname like 'doctor%' or proname in ('queues', 'queue_tables', 'functions_to_call', 'indexes_wanted',"
        " 'applied_migrations', 'announce_problem'))"
    )
    assert len(rows) >= 10
    assert all(row["provolatile"] in (b"s", b"i") for row in rows)
    async with patient.owner.transaction(readonly=True):
        assert await patient.findings() == []


def test_there_are_faults_enough() -> None:
    assert len({fault.finding for fault in FAULTS}) >= 25
