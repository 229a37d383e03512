"""The trace of a piece of work is at hand where it runs and goes with what it asks for; a stranger's is not taken."""

import asyncio
from typing import Any, TypeAlias

import asyncpg
import pytest

from devstack.gateway import Gateway
from devstack.keys import LOCAL
from handlers.clients.database import database_of
from listener.jobs import NewJob
from listener.keyring import keyring_of
from listener.store import connected
from listener.traces import carry, traceparent
from tests.listener.answering import door_of
from tests.listener.working import Anything, runs, working

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize("wrong", ["", "00-xyz", TRACE.upper(), f"{TRACE}\n", f" {TRACE}", "ff" + TRACE[2:]])
def test_what_is_no_trace_is_not_carried(wrong: str) -> None:
    carry(TRACE)
    carry(wrong)
    assert traceparent() is None


async def test_tasks_and_threads_of_the_work_inherit_it() -> None:
    carry(TRACE)

    async def inner() -> str | None:
        return traceparent()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(inner())
    assert (task.result(), await asyncio.to_thread(traceparent)) == (TRACE, TRACE)
    carry(None)


async def test_it_is_at_hand_in_each_attempt_and_only_there(gateway: Gateway, owner: Connection) -> None:
    seen: list[str | None] = []

    async def looks(_payload: Anything) -> None:
        seen.append(traceparent())

    async with working(gateway, runs(looks)) as shop:
        await shop.store.enqueue([NewJob("maintenance", "looks", traceparent=TRACE)])
        await shop.job("looks")
        await shop.finishes(2)
    assert sorted(seen, key=str) == [TRACE, None]
    assert traceparent() is None


async def test_a_job_that_is_made_within_it_belongs_to_it(gateway: Gateway, owner: Connection) -> None:
    carry(TRACE)
    job = NewJob("maintenance", "a")
    carry(None)
    async with connected(gateway.url, LOCAL.service_role, "test") as store:
        await store.enqueue([job, NewJob("maintenance", "b")])
    rows = await owner.fetch("select traceparent from jobs order by type")
    assert [row["traceparent"] for row in rows] == [TRACE, None]


async def test_what_a_handler_asks_the_database_carries_it(gateway: Gateway, owner: Connection) -> None:
    """With the client that it was handed: in plain inserts, in functions, and in what those insert."""
    await owner.execute(
        "create function make_job() returns void language sql as"
        " $$ insert into public.jobs (queue, type) values ('broker', 'b') $$;"
        "grant execute on function make_job() to service_role; notify pgrst, 'reload schema'"
    )
    async with database_of(gateway.url, keyring_of(LOCAL.secret)) as db:
        for trace in (TRACE, None):
            carry(trace)
            table: Any = db.table("payment_jobs")
            await table.insert({"type": "a"}).execute()
            await db.rpc("make_job").execute()
    rows = await owner.fetch("select type, traceparent from jobs order by id")
    assert [tuple(row) for row in rows] == [("a", TRACE), ("b", TRACE), ("a", None), ("b", None)]


async def test_the_door_takes_it_over_from_those_whom_it_admits(gateway: Gateway, owner: Connection) -> None:
    async with door_of(gateway.url) as door:
        for headers in ({"traceparent": TRACE}, {}, {"traceparent": "00-xyz"}):
            status, _ = await door.post({"type": "prune"}, headers)
            assert status == 201
        status, _ = await door.post({"type": "prune", "traceparent": TRACE})
        assert status == 201
        stranger = {"x-signature": "signed", "traceparent": TRACE}
        status, _ = await door.post("delivery", stranger, "/webhooks/mail")
        assert status == 200
    rows = await owner.fetch("select traceparent from jobs order by id")
    assert [row["traceparent"] for row in rows] == [TRACE, None, None, TRACE, None]
