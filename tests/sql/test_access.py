"""Who may do what: every role on every table and function, and every partition like its siblings."""

import json
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from tests.sql.calls import Calls, Connection

QUEUES = ["payment", "broker", "alerts", "maintenance"]
PARTITIONS = [f"jobs_{queue}" for queue in QUEUES]
VIEWS = [f"{queue}_jobs" for queue in QUEUES]
TABLES = [
    "jobs",
    *PARTITIONS,
    "jobs_unknown_queue",
    "failed_jobs",
    "stale_outcomes",
    "realtime_canary",
    "job_schemas",
    "schema_modes",
]
CALLABLE = {
    "clock_now",
    "enqueue",
    "enqueue_delivery",
    "claim",
    "heartbeat",
    "cancel",
    "finish",
    "replay",
    "prune",
    "canary",
    "tell_worker",
    "why",
    "doctor_facts",
    "report_progress",
    "publish_schemas",
    "retire_schemas",
    "schema_mode",
}
INTERNAL = {
    "publish_table",
    "create_queue",
    "guard_queue_table",
    "open_to_producers",
    "open_to_workers",
    "announce_insert",
    "announce_canary",
    "announce_problem",
    "announce_by_broadcast",
    "announce_table",
    "check_enqueue",
    "is_another",
    "find_due",
    "unknown_types",
    "check_lease",
    "renew_held",
    "end_lost_attempts",
    "record_outcomes",
    "status_after",
    "retry_delay",
    "payload_problem",
    "leaf_problem",
    "bound_problem",
    "payload_kind",
    "schema_mode_of",
    "check_payloads",
    "is_part_of_more",
    "check_table",
}
PRODUCER_COLUMNS = {
    "type",
    "data",
    "user_id",
    "priority",
    "run_at",
    "max_attempts",
    "idempotency_key",
    "traceparent",
}
USER_COLUMNS = {
    "id",
    "queue",
    "status",
    "type",
    "user_id",
    "priority",
    "run_at",
    "attempt",
    "cancel_requested",
    "progress",
    "result",
    "created_at",
    "updated_at",
    "finished_at",
}
MINE = UUID("11111111-1111-1111-1111-111111111111")
YOURS = UUID("22222222-2222-2222-2222-222222222222")


async def columns(owner: Connection, role: str, table: str, privilege: str) -> set[str]:
    rows = await owner.fetch(
        "select attname from pg_attribute where attrelid = $1::text::regclass and attnum > 0 and not attisdropped"
        " and has_column_privilege($2, attrelid, attnum, $3)",
        f"public.{table}",
        role,
        privilege,
    )
    return {row["attname"] for row in rows}


@pytest.mark.parametrize("table", [*TABLES, *VIEWS])
async def test_nobody_changes_or_deletes_rows(owner: Connection, table: str) -> None:
    for role in ("anon", "authenticated", "service_role"):
        for privilege in ("update", "delete", "truncate", "references", "trigger"):
            allowed = await owner.fetchval("select has_table_privilege($1, $2, $3)", role, table, privilege)
            assert not allowed, f"{role} may {privilege} {table}"
        assert not await columns(owner, role, table, "update")


@pytest.mark.parametrize("table", [*TABLES, *VIEWS])
async def test_what_each_role_reads_and_inserts(owner: Connection, table: str) -> None:
    everything = await columns(owner, "postgres", table, "select")
    of_jobs = table in {"jobs", *PARTITIONS, *VIEWS}

    assert not await columns(owner, "anon", table, "select")
    assert not await columns(owner, "anon", table, "insert")
    of_users = of_jobs and table not in VIEWS
    assert await columns(owner, "authenticated", table, "select") == (USER_COLUMNS if of_users else set())
    assert not await columns(owner, "authenticated", table, "insert")
    readable: set[str] = set() if table == "jobs_unknown_queue" else everything
    assert await columns(owner, "service_role", table, "select") == readable
    insertable: set[str] = PRODUCER_COLUMNS if of_jobs else set()
    if table == "jobs":
        insertable = insertable | {"queue"}
    assert await columns(owner, "service_role", table, "insert") == insertable


async def test_only_the_server_calls_functions_and_only_those_for_it(owner: Connection) -> None:
    rows = await owner.fetch(
        "select p.proname, r.role, has_function_privilege(r.role, p.oid, 'execute') as may, p.proconfig, p.prosecdef"
        " from pg_proc as p cross join unnest(array['anon', 'authenticated', 'service_role']) as r (role)"
        " where p.pronamespace = 'public'::regnamespace and p.proname = any($1)",
        sorted(CALLABLE | INTERNAL),
    )
    assert {row["proname"] for row in rows} == CALLABLE | INTERNAL
    for row in rows:
        expected = row["role"] == "service_role" and row["proname"] in CALLABLE
        assert row["may"] == expected, f"{row['role']} and {row['proname']}"
        if row["prosecdef"]:
            assert "search_path=pg_catalog, pg_temp" in row["proconfig"], row["proname"]


async def test_no_function_lets_an_error_out_that_postgrest_would_repeat_for_ever(owner: Connection) -> None:
    rows = await owner.fetch(
        "select proname, prosrc, provolatile = 'v' as writes from pg_proc"
        " where pronamespace = 'public'::regnamespace and prosecdef"
        " and (has_function_privilege('service_role', oid, 'execute')"
        "      or has_function_privilege('authenticated', oid, 'execute'))"
    )
    assert {row["proname"] for row in rows} > CALLABLE - {"clock_now", "enqueue_delivery"}
    bare = [
        row["proname"]
        for row in rows  # one that is declared to read only locks nothing that could meet another
        if row["writes"] and "when deadlock_detected or serialization_failure" not in row["prosrc"]
    ]
    assert bare == []


async def test_every_table_of_the_queue_has_row_level_security(owner: Connection) -> None:
    open_tables = await owner.fetch(
        "select relname from pg_class where oid = any($1::text[]::regclass[]) and not relrowsecurity",
        [f"public.{table}" for table in TABLES],
    )
    assert open_tables == []


async def test_a_view_asks_with_the_rights_of_its_caller(owner: Connection) -> None:
    options = await owner.fetch(
        "select reloptions from pg_class where oid = any($1::text[]::regclass[])", VIEWS
    )
    assert [row["reloptions"] for row in options] == [["security_invoker=true"]] * len(VIEWS)


@pytest.mark.parametrize("named", ["jobs_{}", "{}_jobs"])
async def test_every_partition_and_view_is_like_its_siblings(owner: Connection, named: str) -> None:
    await owner.execute("select create_queue('reports')")
    described = [await describe(owner, named, queue) for queue in [*QUEUES, "reports"]]
    for queue, one in zip(QUEUES[1:], described[1:], strict=False):
        assert one == described[0], f"{named.format(queue)} differs from {named.format('payment')}"
    assert described[-1] == described[0], "a new queue differs from payment"
    is_partition = named == "jobs_{}"
    assert len(described[0]["policies"] or []) == 2 * is_partition
    assert described[0]["published"] == is_partition


async def describe(owner: Connection, named: str, queue: str) -> Any:
    """All that a partition or view has of its own, without its name."""
    text = await owner.fetchval(
        """
        select jsonb_build_object(
            'options', t.reloptions,
            'security', array[t.relrowsecurity, t.relforcerowsecurity],
            'grants', array(select a::text from unnest(t.relacl) as a order by 1),
            'columns', (
                select jsonb_agg(jsonb_build_array(
                    a.attname, a.attnotnull, a.attacl::text, pg_get_expr(d.adbin, d.adrelid)
                ) order by a.attname)
                from pg_attribute as a
                left join pg_attrdef as d on d.adrelid = a.attrelid and d.adnum = a.attnum
                where a.attrelid = t.oid and a.attnum > 0
            ),
            'policies', (
                select jsonb_agg(jsonb_build_array(p.policyname, p.cmd, p.roles, p.qual, p.with_check))
                from pg_policies as p where p.tablename = t.relname
            ),
            'indexes', array(
                select pg_get_indexdef(i.indexrelid) from pg_index as i where i.indrelid = t.oid order by 1
            ),
            'checks', array(
                select c.conname || ': ' || pg_get_constraintdef(c.oid)
                from pg_constraint as c where c.conrelid = t.oid and c.contype = 'c' order by 1
            ),
            'triggers', array(select g.tgname::text from pg_trigger as g where g.tgrelid = t.oid order by 1),
            'published', (
                select count(*) from pg_publication_tables as p
                where p.pubname = 'supabase_realtime' and p.tablename = t.relname
            )
        )::text
        from pg_class as t where t.oid = $1::text::regclass
        """,
        named.format(queue),
    )
    return json.loads(text.replace(queue, "QUEUE"))


async def test_the_canary_and_every_queue_are_published(owner: Connection) -> None:
    rows = await owner.fetch(
        "select tablename from pg_publication_tables where pubname = 'supabase_realtime'"
    )
    assert {row["tablename"] for row in rows} >= {"realtime_canary", *PARTITIONS}


async def test_a_missing_publication_is_made_again(database: str) -> None:
    superuser = await asyncpg.connect(database, user="supabase_admin")
    try:
        await superuser.execute("drop publication supabase_realtime")
        await superuser.execute("select create_queue('reports')")
        rows = await superuser.fetch(
            "select tablename from pg_publication_tables where pubname = 'supabase_realtime'"
        )
    finally:
        await superuser.close()
    assert [row["tablename"] for row in rows] == ["jobs_reports"]


@pytest.mark.parametrize("name", ["Reports", "re ports", "", "1st", "r" * 41])
async def test_a_queue_needs_a_word_for_a_name(owner: Connection, name: str) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError, match="cannot name a queue"):
        await owner.execute("select create_queue($1)", name)


async def test_a_new_queue_works_at_once(owner: Connection, server: Calls) -> None:
    await owner.execute("select create_queue('reports')")
    made = await server.insert("a", queue="reports")
    job = await server.take(queue="reports")
    assert job["id"] == made
    assert (await server.end(job))["status"] == "completed"


@pytest.mark.parametrize("table", ["jobs", "jobs_payment"])
async def test_a_user_sees_their_own_jobs_and_no_others(server: Calls, owner: Connection, table: str) -> None:
    mine = await server.insert("a", user_id=MINE)
    await server.insert("a", user_id=YOURS)
    await server.insert("a")

    async with owner.transaction():
        await owner.execute("set local role authenticated")
        await owner.fetchval(
            "select set_config('request.jwt.claims', $1, true)", json.dumps({"sub": str(MINE)})
        )
        seen = await owner.fetch(f"select {', '.join(sorted(USER_COLUMNS))} from {table}")
    assert [row["id"] for row in seen] == [mine]


@pytest.mark.parametrize("column", ["data", "result", "last_error", "worker_id", "*"])
async def test_a_user_does_not_see_what_the_system_keeps(owner: Connection, column: str) -> None:
    await owner.execute("set role authenticated")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await owner.fetch(f"select {column} from payment_jobs")
    await owner.execute("reset role")
