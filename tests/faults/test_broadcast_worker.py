"""A worker that is told to listen to broadcasts: it hears them, and says what to do where the database sends none."""

from typing import TypeAlias

import asyncpg

from tests.faults.test_four_promises import enqueue, statuses
from tests.projects import StartWorker
from tests.waiting import until

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
MEND = "select announce_by_broadcast();"


async def test_it_says_at_its_start_what_is_missing_and_works_by_its_sweeps_until_then(
    traces: Connection, start_worker: StartWorker
) -> None:
    async with start_worker(tempo={"sweep": 0.5}, PULSE_LISTEN="broadcast") as worker:
        await until("it says what to do", lambda: worker.said(f"are not announced. Run: {MEND}"))
        await enqueue(traces, 3)
        await until("the jobs are done", lambda: are_done(traces))
        assert await woken_by(traces) <= {"sweep", "start", "due"}


async def test_it_hears_what_the_database_announces(traces: Connection, start_worker: StartWorker) -> None:
    await traces.execute(MEND)
    async with start_worker(tempo={"sweep": 60}, PULSE_LISTEN="broadcast") as worker:
        await until("it hears inserts", lambda: worker.said("Realtime is ready"))
        assert not worker.said("PULSE_LISTEN")
        await until("it looks because it heard of one", lambda: one_is_heard_of(traces))


async def one_is_heard_of(owner: Connection) -> bool:
    """The look that follows "ready" may find the first ones before they are heard of."""
    await enqueue(owner, 1)
    await until("it is done", lambda: are_done(owner))
    return "realtime" in await woken_by(owner)


async def are_done(owner: Connection) -> bool:
    return await statuses(owner) == {"completed"}


async def woken_by(owner: Connection) -> set[str]:
    return {row["woken_by"] for row in await owner.fetch("select distinct woken_by from jobs")}
