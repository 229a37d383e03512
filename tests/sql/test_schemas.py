"""Wrong payloads are refused at the INSERT by every way in, as long as a schema of their type counts."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from tests.sql.calls import Calls, Connection

MoveClock = Callable[[timedelta], Awaitable[None]]

SAYS_N = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
SAYS_M = {"type": "object", "properties": {"m": {"type": "integer"}}, "required": ["m"]}
GOOD = json.dumps({"n": 1})
WRONG = json.dumps({"n": "secret"})
REFUSED = "payment job a: data.n must be a whole number"
DAY = timedelta(days=1)


async def publish(server: Calls, schema: object = SAYS_N, type_: str = "a", **more: object) -> dict[str, Any]:
    schemas = [{"queue": "payment", "type": type_, "schema": schema}]
    said: dict[str, Any] = json.loads(
        await server.value("select publish_schemas($1)", json.dumps(schemas))
        if not more
        else await server.value("select publish_schemas($1, $2)", json.dumps(schemas), more["grace_seconds"])
    )
    return said


@asynccontextmanager
async def refused(owner: Connection, sentence: str = REFUSED) -> AsyncIterator[None]:
    before = await owner.fetchval("select count(*) from jobs")
    with pytest.raises(asyncpg.CheckViolationError) as caught:
        yield
    assert str(caught.value) == sentence
    assert caught.value.detail is None
    assert await owner.fetchval("select count(*) from jobs") == before


@pytest.mark.parametrize(
    "statement",
    [
        "insert into payment_jobs (type, data) values ('a', $1)",
        "insert into jobs (queue, type, data) values ('payment', 'a', $1)",
        "insert into payment_jobs (type, data) select 'a', d from unnest(array['{\"n\": 1}', $1::jsonb]) as d",
        "select enqueue(jsonb_build_array(jsonb_build_object('queue', 'payment', 'type', 'a', 'data', $1::jsonb)))",
    ],
)
async def test_every_way_in_refuses_what_does_not_fit_and_takes_what_does(
    statement: str, server: Calls, owner: Connection
) -> None:
    await server.connection.execute(statement, WRONG)  # nothing is published yet
    await publish(server)
    async with refused(owner):
        await server.connection.execute(statement, WRONG)
    await server.connection.execute(statement, GOOD)


async def test_the_owner_and_a_script_are_judged_too(server: Calls, owner: Connection) -> None:
    await publish(server)
    async with refused(owner):
        await owner.execute("insert into jobs_payment (type, data) values ('a', $1)", WRONG)
    async with refused(owner):
        await owner.execute(
            "do $$ begin insert into payment_jobs (type, data) values ('a', '{\"n\": \"x\"}'); end $$"
        )


async def test_types_without_a_schema_and_queues_made_later(server: Calls, owner: Connection) -> None:
    await publish(server)
    await server.insert("b", data=WRONG)
    await owner.execute("select create_queue('reports')")
    schemas = [{"queue": "reports", "type": "a", "schema": SAYS_N}]
    await server.value("select publish_schemas($1)", json.dumps(schemas))
    await server.insert("a", queue="broker", data=WRONG)
    async with refused(owner, "reports job a: data.n must be a whole number"):
        await server.insert("a", queue="reports", data=WRONG)


async def test_during_a_deploy_both_shapes_are_taken_and_a_day_later_only_the_newer(
    server: Calls, owner: Connection, move_clock: MoveClock
) -> None:
    assert await publish(server) == {"published": 1, "new": 1, "retiring": 0}
    assert await publish(server, SAYS_M) == {"published": 1, "new": 1, "retiring": 1}
    for data in (GOOD, '{"m": 1}'):
        await server.insert(data=data)
    async with refused(owner, "payment job a: data.m is missing"):
        await server.insert(data=WRONG)
    await move_clock(DAY + timedelta(seconds=1))
    await server.insert(data='{"m": 1}')
    async with refused(owner, "payment job a: data.m is missing"):
        await server.insert(data=GOOD)


async def test_a_release_that_is_taken_back_counts_again(
    server: Calls, owner: Connection, move_clock: MoveClock
) -> None:
    await publish(server)
    await publish(server, SAYS_M)
    assert await publish(server) == {"published": 1, "new": 0, "retiring": 1}
    await move_clock(DAY * 2)
    await server.insert(data=GOOD)
    async with refused(owner, "payment job a: data.n is missing"):
        await server.insert(data='{"m": 1}')


async def test_the_same_again_changes_nothing_and_old_ones_are_forgotten(
    server: Calls, owner: Connection, move_clock: MoveClock
) -> None:
    await publish(server)
    assert await publish(server) == {"published": 1, "new": 0, "retiring": 0}
    await publish(server, SAYS_M, grace_seconds=0)
    async with refused(owner, "payment job a: data.m is missing"):
        await server.insert(data=GOOD)
    await move_clock(DAY * 31)
    await publish(server, SAYS_M)
    assert await owner.fetchval("select count(*) from job_schemas") == 1


async def test_what_is_retired_by_hand_counts_no_more(server: Calls, owner: Connection) -> None:
    await publish(server)
    await publish(server, SAYS_M)
    newest = await owner.fetchval("select version from job_schemas where retires_at is null")
    retired = await server.value("select retire_schemas('payment', 'a', $1)", newest)
    assert json.loads(retired) == {"retired": 1}
    async with refused(owner, "payment job a: data.n is missing"):
        await server.insert(data='{"m": 1}')
    assert json.loads(await server.value("select retire_schemas('payment', 'a')")) == {"retired": 1}
    await server.insert(data=WRONG)


async def test_the_switch_for_all_for_a_queue_and_for_a_type(server: Calls, owner: Connection) -> None:
    async def switch(mode: str | None, *where: str) -> Any:
        places = ", ".join(f"${n}" for n in range(1, 2 + len(where)))
        return json.loads(await server.value(f"select schema_mode({places})", mode, *where))

    await publish(server)
    assert await switch("accept") == {"mode": "accept", "types": 1}
    await server.insert(data=WRONG)
    await publish(server, type_="b")
    await server.insert("b", data=WRONG)
    assert await switch("refuse", "payment") == {"mode": "refuse", "types": 2}
    async with refused(owner):
        await server.insert(data=WRONG)
    assert await switch("accept", "payment", "a") == {"mode": "accept", "types": 1}
    await server.insert(data=WRONG)
    async with refused(owner, "payment job b: data.n must be a whole number"):
        await server.insert("b", data=WRONG)
    for where in ((), ("payment",), ("payment", "a")):
        await switch(None, *where)
    async with refused(owner):
        await server.insert(data=WRONG)
    with pytest.raises(asyncpg.CheckViolationError, match="mode is refuse or accept"):
        await switch("maybe")


async def test_a_repeated_enqueue_is_answered_whatever_was_published_meanwhile(
    server: Calls, owner: Connection
) -> None:
    job = {"queue": "payment", "type": "a", "data": {"m": 1}, "idempotency_key": "k"}
    (first,) = await server.enqueue(job)
    await publish(server)
    assert await server.enqueue(job) == [{"id": first["id"], "created": False}]


async def test_a_fact_is_not_lost_with_a_notice_that_does_not_fit(server: Calls, owner: Connection) -> None:
    """What a function inserts beside its own rows is taken, and left to a worker."""
    await owner.execute(
        "create table facts (n int); create function note() returns void language plpgsql security definer as $$ begin"
        ' insert into public.facts values (1); perform public.enqueue(\'[{"queue": "payment", "type": "a"}]\');'
        " insert into public.jobs (queue, type) values ('payment', 'a'); end $$;"
        " create function told() returns void language sql as"
        " $$ insert into public.jobs (queue, type) values ('payment', 'a') $$"
    )
    await publish(server)
    await owner.execute("select note(); select told()")
    assert await owner.fetchval("select count(*) from jobs") == 3


async def test_what_a_provider_delivered_is_taken_and_what_is_no_job_is_not(server: Calls) -> None:
    await publish(server)
    job = {"queue": "payment", "type": "a", "data": {"n": "secret"}, "idempotency_key": "event 1"}
    (first,) = json.loads(await server.value("select enqueue_delivery($1)", json.dumps([job])))
    again = await server.value("select enqueue_delivery($1)", json.dumps([job]))
    assert json.loads(again) == [{"id": first["id"], "created": False}]
    with pytest.raises(asyncpg.CheckViolationError):
        await server.value("select enqueue_delivery($1)", json.dumps([{**job, "type": "No Word"}]))


async def test_a_stack_in_another_language_refuses_nothing(owner: Connection) -> None:
    """What `lc_messages` makes of it; the same in English is the INSERT of a producer."""
    for stack, is_part in (
        ("PL/pgSQL function public.check_payloads() line 38 at GET DIAGNOSTICS", False),
        ("PL/pgSQL-Funktion public.check_payloads() Zeile 38 bei GET DIAGNOSTICS", True),
    ):
        assert await owner.fetchval("select is_part_of_more($1)", stack) is is_part


async def test_a_schema_that_nobody_can_read_refuses_nothing(server: Calls, owner: Connection) -> None:
    unreadable: tuple[dict[str, Any], ...] = (
        {"type": "object", "properties": {"n": {"type": "string", "pattern": "("}}},
        {"type": "object", "properties": {"n": {"type": "string", "minLength": "many"}}},
        {"$ref": "#/$defs/nowhere"},
        {"type": "strange", "properties": [], "anyOf": 1},
    )
    for schema in unreadable:
        await publish(server, schema, grace_seconds=0)
        await server.insert(data=WRONG)


@pytest.mark.parametrize("schemas", ["{}", "[1]", '[{"queue": "payment", "type": "a"}]', "null"])
async def test_what_is_no_list_of_schemas_is_refused(schemas: str, server: Calls) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError, match="schemas must be a JSON array"):
        await server.value("select publish_schemas($1)", schemas)
