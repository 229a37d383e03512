"""report_progress writes for live attempts only, waits for nobody, and touches the rows that it names."""

import json
from typing import Any

import asyncpg
import pytest

from tests.sql.calls import Calls, Connection, Json


async def report(server: Calls, *reports: Json) -> Any:
    return json.loads(await server.value("select report_progress($1)", json.dumps(reports)))


def of(job: Json, done: int, attempt: int | None = None) -> Json:
    return {
        "queue": "payment",
        "id": job["id"],
        "attempt": attempt or job["attempt"],
        "progress": {"done": done},
    }


async def progress(owner: Connection, job: Json) -> Any:
    found = await owner.fetchval("select progress from jobs where id = $1", job["id"])
    return None if found is None else json.loads(found)


async def test_a_live_attempt_writes_and_says_which_it_is(server: Calls, owner: Connection) -> None:
    await server.insert()
    job = await server.take()
    assert await report(server, of(job, 1)) == {"again": []}
    assert await progress(owner, job) == {"done": 1, "attempt": 1}


async def test_an_attempt_that_lost_its_job_writes_nothing(server: Calls, owner: Connection) -> None:
    await server.insert()
    job = await server.take()
    await report(server, of(job, 1))
    await server.end(job, "retry", delay_seconds=0)
    assert await report(server, of(job, 2)) == {"again": []}
    again = await server.take()
    assert await report(server, of(job, 3), of(again, 4)) == {"again": []}
    assert await progress(owner, job) == {"done": 4, "attempt": 2}
    await server.end(again, "completed")
    assert await report(server, of(again, 5), of({"id": 0, "attempt": 1}, 1)) == {"again": []}
    assert await progress(owner, job) == {"done": 4, "attempt": 2}


async def test_a_locked_row_is_told_and_not_waited_for(server: Calls, owner: Connection) -> None:
    await server.insert()
    await server.insert()
    locked, other = (await server.claim())["jobs"]
    async with owner.transaction():
        await owner.execute("select from jobs where id = $1 for update", locked["id"])
        said = await report(server, of(locked, 1), of(other, 1))
    assert said == {"again": [[locked["id"], locked["attempt"]]]}
    assert await progress(owner, other) == {"done": 1, "attempt": 1}


@pytest.mark.parametrize("words", [[1], "half", None, {"note": "x" * 9000}])
async def test_what_is_no_small_object_is_refused(words: object, server: Calls) -> None:
    await server.insert()
    job = await server.take()
    with pytest.raises(asyncpg.InvalidParameterValueError, match="progress must be a JSON object"):
        await report(server, of(job, 1) | {"progress": words})
