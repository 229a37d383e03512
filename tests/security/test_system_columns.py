"""No INSERT sets what belongs to the system: by no caller, no spelling, no door, no upsert and no detour."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, TypeAlias

import aiohttp
import asyncpg
import pytest

from devstack.gateway import Gateway
from devstack.keys import LOCAL
from tests.security.matrix import CALLERS, MINE

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Request: TypeAlias = tuple[str, str, dict[str, str], object]

SYSTEM: dict[str, object] = {
    "id": 4242,
    "queue": "broker",
    "status": "completed",
    "attempt": 7,
    "uncounted": 7,
    "lease_expires_at": "2099-01-01T00:00:00Z",
    "worker_id": "mine",
    "lane": "mine",
    "cancel_requested": True,
    "progress": {"done": 1},
    "result": {"paid": True},
    "last_error": "none",
    "last_outcome": "completed",
    "woken_by": "me",
    "created_at": "2001-01-01T00:00:00Z",
    "updated_at": "2001-01-01T00:00:00Z",
    "finished_at": "2001-01-01T00:00:00Z",
}
"""Columns that no producer sets, with a value that would do harm. `queue` is a producer's in `jobs` alone."""
UPSERT = """
    insert into {} (type, idempotency_key) values ('forged', 'there')
    on conflict (queue, idempotency_key) where idempotency_key is not null do update set {} = excluded.{}
"""
MERGE_INTO = """
    merge into {} as j using (select 'there' as k) as s on j.idempotency_key = s.k
    when matched then update set {} = default
"""
REFUSED = {
    "42501",  # not allowed
    "42P10",  # a view has no key on which to conflict
    "42809",  # a view has no triggers of that kind
    "42883",  # there is no such function
}
PRODUCERS = {
    "type",
    "data",
    "user_id",
    "priority",
    "run_at",
    "max_attempts",
    "idempotency_key",
    "traceparent",
}
MERGE = {"Prefer": "resolution=merge-duplicates"}
IGNORE = {"Prefer": "resolution=ignore-duplicates"}


def ways(table: str, column: str, value: object) -> Iterator[Request]:
    """Every way in which a request can name that column."""
    job: dict[str, object] = {"type": "forged", column: value}
    names = f"type,{column}" + (",queue" if table == "jobs" and column != "queue" else "")
    if table == "jobs":
        job.setdefault("queue", "payment")
    others = {name: given for name, given in job.items() if name != column}
    yield "POST", table, {}, job
    yield "POST", table, {}, [job, job]
    yield "POST", f"{table}?columns={names}", {}, [job]
    yield "POST", f"{table}?columns={names}", {"Prefer": "missing=default"}, [job, others]
    yield "POST", f'{table}?columns="{column}"', {}, {column: value}
    yield "POST", f"{table}?select={column}", {"Prefer": "return=representation"}, job
    for how in (MERGE, IGNORE):
        yield "POST", table, how, job
        yield "POST", f"{table}?on_conflict=id,queue", how, job | {"id": 1}
        yield "POST", f"{table}?on_conflict=queue,idempotency_key", how, job | {"idempotency_key": "there"}
    yield "PUT", f"{table}?id=eq.1&queue=eq.payment", {}, job | {"id": 1, "queue": "payment"}
    text = json.dumps(value) if isinstance(value, dict) else str(value)
    cells = {"type": "forged", column: '"' + text.replace('"', '""') + '"'}
    if table == "jobs":
        cells.setdefault("queue", "payment")
    yield (
        "POST",
        table,
        {"Content-Type": "text/csv"},
        ",".join(cells) + "\n" + ",".join(cells.values()) + "\n",
    )


def upserts(table: str) -> Iterator[Request]:
    """Producers' columns alone, onto a job that is there already: its data would be another's."""
    job: dict[str, object] = {"type": "forged", "data": {"amount": 1}, "idempotency_key": "there"}
    if table == "jobs":
        job["queue"] = "payment"
    for target in ("id,queue", "queue,idempotency_key", "idempotency_key"):
        yield "POST", f"{table}?on_conflict={target}", MERGE, job
    yield "PATCH", f"{table}?idempotency_key=eq.there", {}, {"data": {"amount": 1}}
    yield "PATCH", f"{table}?id=eq.1&columns=priority", {}, {"priority": 100}
    yield "DELETE", f"{table}?idempotency_key=eq.there", {}, None


@pytest.fixture
async def before(owner: Connection) -> AsyncIterator[list[str]]:
    """The one job that is there; at the end it is as it was, and so is every row that came along."""
    await owner.execute("insert into payment_jobs (type, idempotency_key) values ('there', 'there')")
    look = "select to_jsonb(j)::text from jobs as j where type = 'there'"
    rows = [row[0] for row in await owner.fetch(look)]
    yield rows
    assert [row[0] for row in await owner.fetch(look)] == rows
    forged = await owner.fetch("select to_jsonb(j)::text from jobs as j where type <> 'there'")
    assert forged == []


async def test_these_are_all_columns_of_the_system(owner: Connection) -> None:
    rows = await owner.fetch(
        "select attname from pg_attribute where attrelid = 'jobs'::regclass and attnum > 0 and not attisdropped"
    )
    assert {row["attname"] for row in rows} == PRODUCERS | set(SYSTEM)


async def statuses(gateway: Gateway, key: str, requests: Sequence[Request]) -> list[int]:
    """What the REST door answers to each."""
    headers = {
        "apikey": key if key.startswith("sb_") else LOCAL.publishable,
        "Authorization": f"Bearer {key}",
        "Content-Type": "application/json",
    }
    at_once = asyncio.Semaphore(8)
    async with aiohttp.ClientSession(gateway.url, headers=headers) as session:

        async def ask(request: Request) -> int:
            method, path, more, body = request
            data = body if isinstance(body, str) else json.dumps(body)
            async with (
                at_once,
                session.request(method, f"/rest/v1/{path}", data=data, headers=more) as answer,
            ):
                return answer.status

        return await asyncio.gather(*(ask(request) for request in requests))


@pytest.mark.parametrize("caller", CALLERS)
async def test_no_request_sets_one(gateway: Gateway, before: list[str], caller: str) -> None:
    forged = [
        request
        for table in ("jobs", "payment_jobs")
        for column, value in SYSTEM.items()
        if (table, column) != ("jobs", "queue")
        for request in ways(table, column, value)
    ]
    wanted = [*forged, *(request for table in ("jobs", "payment_jobs") for request in upserts(table))]
    answers = await statuses(gateway, CALLERS[caller], wanted)
    taken = [request for request, status in zip(wanted, answers, strict=True) if not 400 <= status < 500]
    assert taken == []


@pytest.mark.parametrize("table", ["jobs", "payment_jobs"])
async def test_the_same_requests_with_a_producers_column_are_taken(
    gateway: Gateway, owner: Connection, table: str
) -> None:
    """Otherwise they would be refused for another reason than the column; upserts that write over a row never are."""
    requests = list(ways(table, "user_id", MINE))
    plain = [request for request in requests if request[2] != MERGE and request[0] != "PUT"]
    plain = [request for request in plain if '"' not in request[1] and "on_conflict" not in request[1]]
    assert len(plain) == len(requests) / 2
    answers = await statuses(gateway, LOCAL.secret, plain)
    assert [request for request, status in zip(plain, answers, strict=True) if status != 201] == []
    assert (
        await owner.fetchval("select count(*) from jobs where user_id = $1", MINE) == len(plain) + 1
    )  # one has two


async def test_no_batch_sets_one(owner: Connection, before: list[str]) -> None:
    await owner.execute("set role service_role")
    for column in SYSTEM.keys() - {"queue"}:
        for spelling in ("{}", "{} ", '"{}"', "j.{}"):
            forged: dict[str, Any] = {
                "queue": "payment",
                "type": "a",
                spelling.format(column): SYSTEM[column],
            }
            with pytest.raises(asyncpg.InvalidParameterValueError, match="not a column that a producer sets"):
                await owner.execute(
                    "select enqueue($1)", json.dumps([{"queue": "payment", "type": "a"}, forged])
                )
    await owner.execute("reset role")


@pytest.mark.parametrize(
    "statement",
    [
        "insert into {} (type, {}) overriding system value values ('forged', default)",
        UPSERT,
        MERGE_INTO,
        "with x as (insert into {} (type, {}) values ('forged', null) returning 1) select * from x",
        "update {} set {} = default",
        "copy {} (type, {}) from stdin",
        "select * from {} order by {} for update",
        "select setval('jobs_id_seq', 1)",
        "alter sequence jobs_id_seq restart",
        "alter table {} alter column {} set default null",
        "create trigger t before insert on {} for each row execute function {}()",
        "create rule r as on insert to {} do also update jobs set {} = default",
        "set role postgres",
        "set session authorization postgres",
    ],
)
async def test_no_statement_of_the_server_sets_one(
    owner: Connection, database: str, before: list[str], statement: str
) -> None:
    """A direct connection with the rights of the service key, which is more than the REST door lets through."""
    server = await asyncpg.connect(database, user="authenticator")
    try:
        await server.execute("set role service_role")
        for table in ("jobs", "payment_jobs", "jobs_payment"):
            for column in SYSTEM.keys() - ({"queue"} if table == "jobs" else set()):
                words = [table, *[column] * (statement.count("{}") - 1)]
                with pytest.raises(asyncpg.PostgresError) as refused:
                    await server.execute(statement.format(*words))
                assert refused.value.sqlstate in REFUSED, (statement.format(*words), refused.value)
    finally:
        await server.close()
