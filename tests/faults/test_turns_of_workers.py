"""A user's flood holds up nobody else: real workers, who find a stranger's job behind hundreds."""

from typing import TypeAlias

import asyncpg

from tests.projects import StartWorker
from tests.waiting import until

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
FLOOD = 1500
ANN, BOB = "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"
INSERT = """
    insert into maintenance_jobs (type, user_id) select 'trace', $1::uuid from generate_series(1, $2::integer)
    returning id, (select count(*) from traces) as ran
"""


async def test_a_job_behind_a_flood_runs_long_before_it(
    traces: Connection, start_worker: StartWorker
) -> None:
    await traces.execute("select unlimit_jobs(per => 'user')")
    await traces.execute("alter table traces add n bigint generated always as identity")
    await traces.fetch(INSERT, ANN, FLOOD)
    async with start_worker(), start_worker():
        await until("the flood is worked on", lambda: _ran(traces))
        (bobs,) = await traces.fetch(INSERT, BOB, 1)
        await until("all have run", lambda: _all_ran(traces, FLOOD + 1))
    place = await traces.fetchval("select n from traces where job_id = $1", bobs["id"])
    left = FLOOD - bobs["ran"]
    assert left > FLOOD / 2, "most of it waited when it came"
    assert place - bobs["ran"] < left / 4
    assert await traces.fetchval("select count(distinct job_id) from traces") == FLOOD + 1
    assert await traces.fetchval("select count(*) from jobs where status <> 'completed'") == 0


async def _ran(traces: Connection) -> bool:
    return bool(await traces.fetchval("select count(*) from traces"))


async def _all_ran(traces: Connection, jobs: int) -> bool:
    done = await traces.fetchval("select count(*) from jobs where status = 'completed'")
    return bool(done == jobs)
