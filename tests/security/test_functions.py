"""Our SQL functions as a hostile caller meets them: where they look names up, with whose rights, what they execute."""

import re
from collections.abc import AsyncIterator
from typing import TypeAlias

import asyncpg
import pytest

from tests.security.alert_matrix import FOR_ALERTS, REGISTERING
from tests.security.matrix import (
    FOR_BROKER_CALLS,
    FOR_GATES,
    FOR_HANDLERS_OF_PAYMENTS,
    FOR_LOOKING,
    FOR_ORDER_TRUTH,
    FOR_ORDERS,
    FOR_PAPER,
    FOR_PEOPLE_AND_SCHEDULES,
    FOR_SCHEDULERS,
)
from tests.sql.calls import Calls

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

CHANGES_JOBS = "nobody but the owner may change a job's state (docs/decisions/001)"
MONEY = "nobody but the owner may write what users pay for"
ACCOUNTS = "nobody but the owner may count calls, or read Vault for an account"
ORDERS = "nobody but the owner may write orders"
TRUTH = "nobody but the owner may write what a broker said"
SLOTS = "nobody but the owner may say which slots are settled, or insert a job with their keys"
JUDGES = "nobody but the owner may say what is refused"
SENDS = "who inserts a job need not be allowed to broadcast"
DEFINER = {
    "enqueue": CHANGES_JOBS,
    "claim": CHANGES_JOBS,
    "heartbeat": CHANGES_JOBS,
    "finish": CHANGES_JOBS,
    "cancel": CHANGES_JOBS,
    "replay": CHANGES_JOBS,
    "prune": CHANGES_JOBS,
    "count_prunable": "who deletes jobs need not be allowed to read what else is old",
    "report_progress": CHANGES_JOBS,
    "publish_schemas": JUDGES,
    "retire_schemas": JUDGES,
    "schema_mode": JUDGES,
    "check_payloads": "who inserts a job need not be allowed to read the schemas",
    "canary": "the rows are nobody's to write",
    "tell_worker": "the rows are nobody's to write",
    "take_door_call": "nobody but the owner may count calls",
    "queue_ages": "a worker need not read rows to know how many there are",
    "announce_insert": SENDS,
    "announce_canary": SENDS,
    **dict.fromkeys(FOR_GATES, "nobody but the owner may say what is held back, or read whom a limit counts"),
    **dict.fromkeys(FOR_SCHEDULERS, SLOTS),
    **dict.fromkeys(FOR_PEOPLE_AND_SCHEDULES, SLOTS),
    **dict.fromkeys(FOR_HANDLERS_OF_PAYMENTS, MONEY),
    **dict.fromkeys(FOR_BROKER_CALLS, ACCOUNTS),
    **dict.fromkeys(FOR_ORDERS, ORDERS),
    **dict.fromkeys(FOR_ORDER_TRUTH, TRUTH),
    **dict.fromkeys(FOR_PAPER, "nobody but the paper broker may write its books"),
    **dict.fromkeys(FOR_LOOKING, "they tell of catalogs and sessions that only the owner may look at"),
    **dict.fromkeys(FOR_ALERTS, "nobody but the owner may say who was told what"),
    "forget_secret": "who may delete a target need not be allowed to write in Vault",
    "forget_reader": "who deletes a user need not be allowed to write what is ours",
    **dict.fromkeys(REGISTERING, "no user may write a table in which tokens of others are"),
}
"""Run with the rights of their owner, and why."""
IN_FULL = {
    "clock_now": "is inlined, which a setting would forbid",
    "trace_of_request": "is inlined, which a setting would forbid",
    "status_after": "is inlined, which a setting would forbid",
    "retry_delay": "is inlined, which a setting would forbid",
    "limit_key": "is inlined, which a setting would forbid",
    "turn_key": "is inlined, which a setting would forbid",
    "calls_within": "is inlined, which a setting would forbid",
    "add_months": "is inlined, which a setting would forbid",
    "grace_period": "is inlined, which a setting would forbid",
    "renewal_stage": "is inlined, which a setting would forbid",
    "payload_kind": "is inlined, which a setting would forbid",
    "is_part_of_more": "is inlined, which a setting would forbid",
}
"""Without a search_path: their names were looked up for good when they were made."""
NAMES_A_TABLE = "a table's name is no parameter of a statement"
DYNAMIC = {
    "publish_table": NAMES_A_TABLE,
    "create_queue": NAMES_A_TABLE,
    "guard_queue_table": NAMES_A_TABLE,
    "open_to_producers": NAMES_A_TABLE,
    "open_to_workers": NAMES_A_TABLE,
    "announce_by_broadcast": NAMES_A_TABLE,
    "announce_table": NAMES_A_TABLE,
    "check_table": NAMES_A_TABLE,
}
"""Make statements out of text, and why. Only the owner may call them."""
RIGHT_OR_TRIGGER = r"grant execute|revoke execute|'execute'|execute function"
TEXT_THAT_RUNS = re.compile(
    r"\bexecute\b|query_to_xml|cursor_to_xml|dblink|set_config|lo_import", re.IGNORECASE
)
HOSTILE = [
    'x"; drop table victims; --',
    "x'; drop table victims; --",
    "x$$; drop table victims; --",
    "victims; drop table victims; --",
    "%I %s %L; drop table victims",
    'x" add table victims; --',
]
FUNCTIONS = """
    select p.proname as name, p.oid, p.prosrc as source, p.prosecdef as definer, p.proconfig as settings,
        p.prosqlbody is not null as bound, l.lanname as language, r.rolname as owner
    from pg_proc as p join pg_language as l on l.oid = p.prolang join pg_roles as r on r.oid = p.proowner
    where p.pronamespace = 'public'::regnamespace
"""


@pytest.fixture
async def functions(owner: Connection) -> dict[str, asyncpg.Record]:
    return {row["name"]: row for row in await owner.fetch(FUNCTIONS)}


@pytest.fixture
async def server(database: str) -> AsyncIterator[Calls]:
    """A direct connection as service_role: more than any key gives."""
    connection = await asyncpg.connect(database)
    try:
        await connection.execute("set role service_role")
        yield Calls(connection)
    finally:
        await connection.close()


@pytest.fixture
async def victims(owner: Connection) -> AsyncIterator[None]:
    """A table that somebody would like to drop; it must still be as it was."""
    await owner.execute("create table victims (who text)")
    yield
    assert await owner.fetch("select who from victims") == []


async def test_every_function_is_the_owners_and_in_a_language_that_reaches_nothing_else(
    functions: dict[str, asyncpg.Record],
) -> None:
    assert {row["owner"] for row in functions.values()} == {"postgres"}
    assert {row["language"] for row in functions.values()} <= {"sql", "plpgsql"}


async def test_every_function_looks_names_up_where_no_caller_can_put_any(
    functions: dict[str, asyncpg.Record],
) -> None:
    loose = {
        name
        for name, row in functions.items()
        if "search_path=pg_catalog, pg_temp" not in (row["settings"] or [])
    }
    assert loose == set(IN_FULL), "say where it looks names up: set search_path = pg_catalog, pg_temp"
    assert all(functions[name]["bound"] for name in IN_FULL)


async def test_only_those_with_a_reason_run_with_the_rights_of_their_owner(
    functions: dict[str, asyncpg.Record],
) -> None:
    assert {name for name, row in functions.items() if row["definer"]} == set(DEFINER)


async def test_only_those_with_a_reason_make_statements_out_of_text_and_nobody_else_calls_them(
    functions: dict[str, asyncpg.Record], owner: Connection
) -> None:
    sources = {name: re.sub(RIGHT_OR_TRIGGER, "", row["source"]) for name, row in functions.items()}
    runs = {name for name, source in sources.items() if TEXT_THAT_RUNS.search(source)}
    assert runs == set(DYNAMIC)
    for name in runs:
        for role in ("anon", "authenticated", "service_role", "pulse_worker"):
            may = await owner.fetchval(
                "select has_function_privilege($1, $2::oid, 'execute')", role, functions[name]["oid"]
            )
            assert not may, f"{role} may call {name}"
        assert not functions[name]["definer"]


@pytest.mark.usefixtures("victims")
@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_name_is_a_name(owner: Connection, name: str) -> None:
    """The table is called so: what works on it has understood the name, what runs the name would drop another."""
    quoted = '"' + name.replace('"', '""') + '"'
    await owner.execute(f"create table public.{quoted} (like public.jobs including defaults)")
    await owner.execute(f"alter table public.{quoted} add primary key (id, queue)")
    for function in (
        "publish_table",
        "guard_queue_table",
        "open_to_producers",
        "open_to_workers",
        "announce_table",
        "check_table",
    ):
        assert function in DYNAMIC
        await owner.execute(f"select {function}($1)", name)
    made = await owner.fetchrow(
        "select c.relrowsecurity,"
        " array(select tgname::text from pg_trigger where tgrelid = c.oid order by 1) as triggers,"
        " (select count(*) from pg_policy where polrelid = c.oid) as policies,"
        " (select count(*) from pg_publication_rel where prrelid = c.oid) as published"
        " from pg_class as c where relname = $1 and relnamespace = 'public'::regnamespace",
        name,
    )
    assert made is not None
    assert tuple(made) == (True, ["announce_insert", "check_payloads"], 2, 1)


@pytest.mark.usefixtures("victims")
@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_name_is_no_queue(owner: Connection, name: str) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError, match="cannot name a queue"):
        await owner.execute("select create_queue($1)", name)
    await owner.execute("select announce_by_broadcast()")
    quoted = '"' + f"jobs_{name}".replace('"', '""') + '"'
    await owner.execute(f"create table public.{quoted} partition of jobs for values in ('strange')")
    await owner.execute("select announce_by_broadcast(); select announce_by_broadcast(false)")


@pytest.mark.usefixtures("victims")
@pytest.mark.parametrize("text", HOSTILE)
async def test_hostile_words_in_a_call_are_words(server: Calls, text: str) -> None:
    await server.enqueue({"queue": "payment", "type": "a", "data": {text: text}, "idempotency_key": text})
    job = await server.take(worker_id=text, woken_by=text, types=["a", text])
    assert job["data"] == {text: text}
    assert (await server.claim(queue=text, sweep=True))["jobs"] == []
    ended = await server.end(job, "dead", error_class=text, error_message=text, error_stack=text)
    assert (await server.replay([ended["failed_job_id"]], job_type=text, type=text))["replayed"] == []
    await server.value("select canary($1)", text)
    letter = await server.value("select error_message from failed_jobs")
    assert letter == text
    with pytest.raises(asyncpg.CheckViolationError, match="unknown queue"):
        await server.enqueue({"queue": text, "type": "a"})


@pytest.mark.usefixtures("victims")
async def test_what_a_caller_makes_in_its_temporary_schema_is_not_looked_at(
    server: Calls, owner: Connection
) -> None:
    """A type there would bring the caller's code into a function that runs as the owner."""
    say = server.connection.execute  # nothing that would look at types by itself
    await say(
        "create function pg_temp.grab(anyelement) returns boolean language plpgsql as $$ begin"
        " insert into public.victims select current_user; return true;"
        " exception when insufficient_privilege then return true; end $$"
    )
    for type_ in ("uuid", "text", "jsonb", "timestamptz", "int8", "float8", "interval"):
        await say(f"create domain pg_temp.{type_} as pg_catalog.{type_} check (pg_temp.grab(value))")
    for table in ("jobs", "failed_jobs", "stale_outcomes", "realtime_canary"):
        await say(f"create temp table {table} (id pg_catalog.int8)")
    now = "pg_catalog.now()::pg_catalog.varchar"
    await say(
        f"""select public.enqueue(pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_object(
        'queue', 'payment', 'type', 'a', 'user_id', pg_catalog.gen_random_uuid(), 'run_at', {now})))"""
    )
    await say("select public.claim('payment', '{a}', 5, 30, 'w', 'sweep', null, true, '[[1, 1]]')")
    job = await owner.fetchval("select id from jobs where status = 'running'")
    await say(f"""select public.heartbeat('w', '[["payment", {job}, 1]]', 30)""")
    dead = f"""[{{"queue": "payment", "id": {job}, "attempt": 1, "kind": "dead", "error_class": "E"}}]"""
    await say(f"select public.finish('{dead}'); select public.finish('{dead}')")
    await say(f"select public.replay(); select public.cancel('{{{job}}}'); select public.canary('w')")
    assert await owner.fetchval("select status from jobs where id = $1", job) == "cancelled"
    await say("select public.prune(0, 0)")
