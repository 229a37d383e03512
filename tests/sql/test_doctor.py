"""`doctor_facts` finds each planted fault, and the statement that it prints mends it; a healthy project has none."""

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest

from devstack.postgres import SUPERUSER, Postgres, bootstrap, throw_away_folder
from listener.migrate import migrate, migrations
from tests.skips import POSTGRES_15
from tests.sql.calls import Connection
from tests.sql.test_workers import word

CALM = "create or replace function public.clock_now() returns timestamptz language sql stable parallel safe"


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
    Fault("index_missing", "drop index jobs_running"),
    Fault("index_missing", "drop index jobs_idempotency_key"),
    Fault("index_missing", "drop index failed_jobs_newest"),
    Fault("index_invalid", "create index half on only jobs (type)"),
    Fault("queue_detached", "alter table jobs detach partition jobs_payment"),
    Fault("view_missing", "drop view payment_jobs"),
    Fault("view_of_owner", "alter view payment_jobs set (security_invoker = false)"),
    Fault("clock_replaced", CALM + " as $$ select now() - interval '1 second' $$"),
    Fault(
        "sequence_behind",
        "insert into payment_jobs (type, run_at) values ('a', now() + interval '1 day');"
        "update jobs set id = 1000",
    ),
    Fault("plan_settings_lost", "alter function claim reset enable_sort"),
    Fault("plan_settings_lost", "alter function heartbeat reset plan_cache_mode"),
    # upkeep
    Fault("vacuum_off", "alter table jobs_payment set (autovacuum_enabled = false)"),
    Fault(
        "vacuum_late",
        "alter table jobs_payment reset (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold,"
        " autovacuum_analyze_scale_factor, autovacuum_analyze_threshold)",
    ),
]


class Patient:
    """A project that is examined: what is found, by its word, and what mends it."""

    def __init__(self, owner: Connection) -> None:
        self.owner = owner

    async def findings(self) -> list[dict[str, str]]:
        facts = json.loads(await self.owner.fetchval("select doctor_facts()"))
        found: list[dict[str, str]] = facts["findings"]
        assert all(set(one) == {"finding", "what", "why", "mend"} and all(one.values()) for one in found), (
            found
        )
        return found

    async def words(self) -> list[str]:
        return sorted({one["finding"] for one in await self.findings()})

    async def at(self, moment: str) -> None:
        """Moves the clock, which is a finding of its own."""
        await self.owner.execute(f"{CALM} as $$ select now() + interval '{moment}' $$")

    async def says(self, worker_id: str = "w", **changes: object) -> None:
        await self.owner.execute("select tell_worker($1)", word(worker_id, **changes))


@pytest.fixture
async def patient(owner: Connection) -> Patient:
    """A healthy project with a worker for the jobs of type `a`."""
    patient = Patient(owner)
    await patient.says(queues=["payment", "maintenance"], types={"payment": ["a"], "maintenance": ["prune"]})
    return patient


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
        " and (proname like 'doctor%' or proname in ('queue_tables', 'functions_to_call', 'indexes_wanted',"
        " 'applied_migrations', 'announce_problem'))"
    )
    assert len(rows) >= 10
    assert all(row["provolatile"] in (b"s", b"i") for row in rows)
    async with patient.owner.transaction(readonly=True):
        assert await patient.findings() == []


async def runs(patient: Patient) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(
        await patient.owner.fetchval("select claim('payment', '{a}', 10, 30, 'w', 'sweep')")
    )
    return answer


async def only(patient: Patient, *besides: str) -> dict[str, str]:
    """The one finding that there is, besides those that come with a moved clock."""
    found = [one for one in await patient.findings() if one["finding"] not in {"clock_replaced", *besides}]
    assert len(found) == 1, found
    return found[0]


async def is_mended(patient: Patient, *besides: str) -> bool:
    return set(await patient.words()) <= {"clock_replaced", *besides}


async def test_nobody_runs_jobs(owner: Connection) -> None:
    patient = Patient(owner)
    assert (await only(patient))["mend"] == "pulse worker"
    await patient.says()
    assert await is_mended(patient)


async def test_a_queue_has_no_worker(patient: Patient) -> None:
    await patient.owner.execute("insert into broker_jobs (type) values ('a')")
    await patient.at("2 minutes")
    await patient.says()
    found = await only(patient)
    assert (found["finding"], found["mend"]) == ("queue_without_worker", "pulse worker --queues broker")
    await patient.says("x", queues=["broker"], types={"broker": ["a"]})
    assert await is_mended(patient)


async def test_a_type_has_no_worker(patient: Patient) -> None:
    await patient.owner.execute("insert into payment_jobs (type) values ('strange'), ('strange'), ('a')")
    await patient.at("2 minutes")
    await patient.says()
    found = await only(patient)
    assert found["finding"] == "type_without_worker"
    assert found["what"].startswith("2 jobs of the type strange are due")
    await patient.owner.execute(found["mend"])
    assert await is_mended(patient)
    assert await patient.owner.fetchval("select count(*) from jobs where status = 'cancelled'") == 2


async def test_all_places_of_a_queue_are_taken(patient: Patient) -> None:
    await patient.owner.execute("insert into payment_jobs (type) select 'a' from generate_series(1, 11)")
    await patient.says("v", places=10, types={"payment": ["a"]}, leaves_in_seconds=None)
    await patient.owner.execute("delete from workers where worker_id = 'w'")
    await patient.owner.execute("select claim('payment', '{a}', 10, 1000, 'v', 'sweep')")
    await patient.at("2 minutes")
    await patient.says("v")
    found = await only(patient)
    assert (found["finding"], found["mend"]) == ("queue_full", "pulse worker --queues payment")
    await patient.says("x")
    assert await is_mended(patient)


async def test_nobody_ends_an_attempt_whose_lease_is_over(patient: Patient) -> None:
    await patient.owner.execute("insert into payment_jobs (type) values ('a')")
    await runs(patient)
    await patient.at("2 minutes")
    await patient.says()
    found = await only(patient)
    assert found["finding"] == "lease_over"
    await patient.owner.execute(found["mend"])
    assert await is_mended(patient)
    assert await patient.owner.fetchval("select status from jobs") == "pending"


async def test_a_worker_vanished(patient: Patient) -> None:
    await patient.at("2 minutes")
    await patient.says("x")
    found = await only(patient)
    assert found["finding"] == "worker_vanished"
    await patient.owner.execute(found["mend"])
    assert await is_mended(patient)


async def test_a_worker_that_has_left_did_not_vanish(patient: Patient) -> None:
    await patient.says(leaves_in_seconds=5)
    await patient.at("2 minutes")
    await patient.says("x")
    assert await is_mended(patient)


@pytest.mark.parametrize(
    ("change", "finding", "mend"),
    [
        ({"deaf_seconds": 70}, "worker_deaf", "pulse check"),
        ({"problems": ["broker: no answer"], "up_seconds": 70}, "worker_not_ready", "pulse check"),
        ({"clock": "2020-01-01T00:00:00Z"}, "worker_clock", "sudo timedatectl set-ntp true"),
    ],
)
async def test_a_worker_says_that_it_is_not_well(
    owner: Connection, change: dict[str, object], finding: str, mend: str
) -> None:
    patient = Patient(owner)
    await patient.says(**change)
    found = await only(patient)
    assert (found["finding"], found["mend"]) == (finding, mend)
    await patient.says()
    assert await is_mended(patient)


async def test_a_worker_that_has_just_begun_is_given_its_time(owner: Connection) -> None:
    patient = Patient(owner)
    await patient.says(deaf_seconds=5, problems=["payment: has not looked into its queue yet"], up_seconds=5)
    assert await patient.findings() == []


async def test_an_old_version_goes_on_after_a_deploy(owner: Connection) -> None:
    patient = Patient(owner)
    await patient.says("box-17-abc123", version="1", up_seconds=9000)
    await patient.says("box-18-abc123", version="2", up_seconds=7000)
    found = await only(patient)
    assert (found["finding"], found["mend"]) == ("versions_differ", "kill -TERM 17  # on a-machine")
    await patient.says("box-17-abc123", version="1", up_seconds=9000, leaves_in_seconds=20)
    assert await is_mended(patient)


async def test_nobody_prunes(patient: Patient) -> None:
    await patient.owner.execute("insert into payment_jobs (type) values ('a')")
    [job] = (await runs(patient))["jobs"]
    ended = {"queue": "payment", "id": job["id"], "attempt": 1, "kind": "completed"}
    await patient.owner.execute("select finish($1)", json.dumps([ended]))
    await patient.at("7 days 12 hours")
    await patient.says()
    assert await is_mended(patient, "worker_vanished")
    await patient.at("9 days")
    await patient.says()
    found = await only(patient)
    assert found["finding"] == "not_pruned"
    assert json.loads(await patient.owner.fetchval("select doctor_facts(30)"))["findings"] == [
        one for one in await patient.findings() if one["finding"] == "clock_replaced"
    ]
    await patient.owner.execute(found["mend"])
    # What the worker does with that job.
    [job] = json.loads(
        await patient.owner.fetchval("select claim('maintenance', '{prune}', 1, 30, 'w', 'sweep')")
    )["jobs"]
    await patient.owner.execute("select prune()")
    assert await is_mended(patient)


async def fail(patient: Patient, count: int, error_class: str) -> None:
    await patient.owner.execute(
        "insert into payment_jobs (type) select 'a' from generate_series(1, $1)", count
    )
    jobs = json.loads(await patient.owner.fetchval("select claim('payment', '{a}', 100, 30, 'w', 'sweep')"))[
        "jobs"
    ]
    words = [
        {"queue": "payment", "id": job["id"], "attempt": 1, "kind": "dead", "error_class": error_class}
        for job in jobs
    ]
    await patient.owner.execute("select finish($1)", json.dumps(words))


async def test_many_jobs_of_a_type_fail(patient: Patient) -> None:
    await fail(patient, 9, "Broken")
    assert await patient.findings() == []
    await fail(patient, 1, "Other")
    found = await only(patient)
    assert found["finding"] == "many_failures"
    assert "Most of them with Broken." in found["why"]
    await patient.owner.execute(found["mend"])
    assert await is_mended(patient)


async def test_a_job_kills_its_workers(patient: Patient) -> None:
    await patient.owner.execute("insert into payment_jobs (type, max_attempts) values ('a', 1)")
    await runs(patient)
    await patient.at("31 seconds")
    await patient.owner.execute("select claim('payment', '{}', 0, 30, 'w', 'sweep', null, true)")
    await patient.says()
    found = await only(patient)
    assert found["finding"] == "poison_job"
    await patient.owner.execute(found["mend"])
    assert await is_mended(patient)


async def test_dead_rows_pile_up(patient: Patient) -> None:
    owner = patient.owner
    await owner.execute("alter table jobs_payment set (autovacuum_enabled = false)")
    await owner.execute(
        "insert into payment_jobs (type, run_at) select 'a', now() + interval '1 day' from generate_series(1, 10500)"
    )
    await owner.execute("update jobs set updated_at = now()")
    await owner.execute("update jobs set updated_at = now()")
    await owner.execute("select pg_stat_force_next_flush()")
    found = await only(patient, "vacuum_off")
    assert found["finding"] == "bloat"
    await owner.execute(found["mend"])
    assert await is_mended(patient, "vacuum_off")


async def test_a_transaction_is_never_ended(patient: Patient, database: str) -> None:
    forgotten = await asyncpg.connect(database, server_settings={"application_name": "a forgotten shell"})
    try:
        await forgotten.execute("begin; select count(*) from jobs")
        await patient.at("11 minutes")
        await patient.says()
        found = await only(patient, "worker_vanished")
        assert found["finding"] == "old_transaction"
        assert "a forgotten shell" in found["what"]
        await patient.owner.execute(found["mend"])
        with pytest.raises(asyncpg.PostgresConnectionError):
            await forgotten.execute("select 1")
        assert await is_mended(patient, "worker_vanished")
    finally:
        await forgotten.close()


def test_there_are_faults_enough() -> None:
    assert len({fault.finding for fault in FAULTS}) >= 25
