"""`why` says in one sentence why a job does not run, and what mends it: a table of situations."""

import asyncio
import json
from typing import Any

import asyncpg
import pytest

from tests.sql.calls import Calls, Connection, Json
from tests.sql.test_plans import touched
from tests.sql.test_workers import word
from tests.sql.why_held import SITUATIONS
from tests.sql.why_situations import SECRET, Scene

PARTS = 6
EMPTY = "truncate jobs, failed_jobs, stale_outcomes, workers, paused, lanes, call_limits restart identity"


def fits(text: str, pattern: str) -> bool:
    """Whether the text is the pattern, where … stands for any words."""
    place = 0
    pieces = pattern.split("…")
    if not text.startswith(pieces[0]) or not text.endswith(pieces[-1]):
        return False
    for piece in pieces:
        place = text.find(piece, place)
        if place < 0:
            return False
        place += len(piece)
    return len(pieces) > 1 or text == pattern


async def why(server: Calls, id_: int) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(await server.value("select why($1)", id_))
    return answer


@pytest.mark.parametrize("part", range(PARTS))
async def test_a_situation_and_its_sentence(server: Calls, owner: Connection, part: int) -> None:
    """Several in one database, each in an empty one: making it anew each time would take longest."""
    scene = Scene(server, owner)
    brought = await owner.fetchval("select max(id) from job_limits")
    for name in list(SITUATIONS)[part::PARTS]:
        prepare, sentence, mend = SITUATIONS[name]
        await owner.execute(EMPTY)
        await owner.execute("delete from job_limits where id > $1", brought)
        await scene.at(0)
        id_ = await prepare(scene)
        said = await why(server, id_)
        assert fits(said["sentence"], sentence), f"{name}: {said['sentence']}"
        assert (said["mend"] or "") == mend, name
        assert SECRET not in json.dumps(said), name
        assert said["job"] is None or said["job"]["id"] == id_, name
        assert "data" not in (said["job"] or {}), name


def test_there_are_situations_enough() -> None:
    assert len(SITUATIONS) >= 30


async def test_a_locked_row_is_told_with_the_session_that_may_hold_it(
    server: Calls, owner: Connection, database: str
) -> None:
    scene = Scene(server, owner)
    await scene.at(0)
    id_ = await scene.job()
    holder = await asyncpg.connect(database, server_settings={"application_name": "a dump"})
    try:
        # As if it had begun ten minutes ago: PostgreSQL's own clock does not move.
        await owner.execute(
            "create or replace function who_locks(queue text) returns text language sql stable as"
            f" $f$ {await who_locks_sooner(owner)} $f$"
        )
        async with holder.transaction():
            await holder.execute("select from jobs_payment for update")
            await scene.at(60)
            await scene.worker()
            said = await why(server, id_)
    finally:
        await holder.close()
    assert "its row may be locked, by the session" in said["sentence"]
    assert "a dump" in said["sentence"]


async def who_locks_sooner(owner: Connection) -> str:
    """Its statement, content with a transaction of any age."""
    source: str = await owner.fetchval("select prosrc from pg_proc where proname = 'who_locks'")
    assert "interval '5 seconds'" in source
    return source.replace("interval '5 seconds'", "interval '0'")


async def test_what_it_says_is_of_one_moment(database: str, server: Calls, owner: Connection) -> None:
    """A job that is claimed, ended and replayed all the time: each answer is one of the states it was in, whole."""
    await owner.execute("select tell_worker($1)", word())
    id_ = await server.insert("a")
    wrong: list[Json] = []
    stop = asyncio.Event()

    async def look() -> int:
        connection = await asyncpg.connect(database)
        looks = 0
        try:
            while not stop.is_set():
                said = json.loads(await connection.fetchval("select why($1)", id_))
                looks += 1
                if (said["job"]["status"], said["state"]) not in {
                    ("pending", "due"),
                    ("running", "running"),
                    ("failed", "failed"),
                } or (said["state"] == "failed") != (said["mend"] is not None):
                    wrong.append(said)
        finally:
            await connection.close()
        return looks

    async with asyncio.TaskGroup() as group:
        looking = [group.create_task(look()) for _ in range(2)]
        for _ in range(60):
            ended = await server.end(await server.take(), "dead", error_class="E")
            assert (await server.replay([ended["failed_job_id"]]))["replayed"]
        stop.set()
    assert not wrong
    assert sum(task.result() for task in looking) > 20
    volatile = await owner.fetch(
        "select proname from pg_proc where pronamespace = 'public'::regnamespace and provolatile = 'v'"
        " and (proname like 'why%' or proname in ('gate_of', 'live_workers', 'who_locks', 'jobs_before'))"
    )
    assert not volatile, "a volatile function looks at a later moment than its caller"


@pytest.mark.parametrize("analysed", [False, True])
async def test_a_long_queue_is_looked_at_in_part(server: Calls, owner: Connection, analysed: bool) -> None:
    """That of `doctor_facts` too, which is asked of the same queue."""
    await owner.execute("alter table jobs_payment set (autovacuum_enabled = off)")
    await owner.execute("select tell_worker($1)", word())
    await owner.execute("insert into payment_jobs (type) select 'a' from generate_series(1, 30000)")
    if analysed:
        await owner.execute("analyze jobs")
    last = await owner.fetchval("select max(id) from jobs")
    for statement, most in (("select why($1)", 2100), ("select doctor_facts($1)", 7100)):
        async with server.connection.transaction():
            before = await touched(server)
            await server.value(statement, last)
            after = await touched(server)
        assert after.full_scans == before.full_scans
        assert after.index_entries - before.index_entries <= most, statement
