"""No job is lost and no outcome is written twice: the four faults that the README names first, on real processes."""

import os
import signal
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeAlias

import asyncpg

from devstack.gateway import Gateway
from tests.projects import StartWorker
from tests.waiting import until

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
MoveClock = Callable[[timedelta], Awaitable[None]]
LEASE = timedelta(seconds=60)
JOBS = 20


async def statuses(owner: Connection) -> set[str]:
    """The statuses that jobs are in."""
    return {row["status"] for row in await owner.fetch("select distinct status from jobs")}


async def enqueue(owner: Connection, count: int, data: str = "{}") -> list[int]:
    """Plain inserts, as any producer makes them."""
    rows = await owner.fetch(
        "insert into maintenance_jobs (type, data) select 'trace', $1::jsonb from generate_series(1, $2) returning id",
        data,
        count,
    )
    return [row["id"] for row in rows]


async def all_ran_once(owner: Connection, jobs: list[int]) -> bool:
    """Every job has exactly one trace and no outcome was stale."""
    runs = await owner.fetch("select job_id, count(*) as runs from traces group by job_id order by job_id")
    stale = await owner.fetchval("select count(*) from stale_outcomes")
    return [(row["job_id"], row["runs"]) for row in runs] == [(job, 1) for job in jobs] and stale == 0


async def test_with_realtime_off_every_job_runs_within_a_sweep(
    gateway: Gateway, traces: Connection, start_worker: StartWorker
) -> None:
    gateway.faults.realtime.off = True
    async with start_worker() as worker:
        await until("the worker knows that it is deaf", lambda: worker.said("deaf to Realtime"))
        jobs = await enqueue(traces, JOBS)

        await until("all jobs are completed", lambda: _all_completed(traces))

        assert await all_ran_once(traces, jobs)
        assert not worker.said("Realtime is ready")
        waited = await traces.fetchval("select max(finished_at - created_at) from jobs")
        assert waited < timedelta(seconds=5 + 1)  # a sweep, and a second to run them


async def test_a_killed_workers_job_runs_again_elsewhere_and_counts_the_attempt(
    traces: Connection, start_worker: StartWorker, move_clock: MoveClock
) -> None:
    (job,) = await enqueue(traces, 1, '{"hold": true}')
    async with start_worker() as first:
        await until("the first worker runs the job", lambda: _traced(traces, job, attempt=1))
        os.kill(first.pid, signal.SIGKILL)

    await move_clock(LEASE - timedelta(seconds=5))
    async with start_worker() as second:
        await until("the second worker hears inserts", lambda: second.said("Realtime is ready"))
        row = await traces.fetchrow("select status, attempt from jobs where id = $1", job)
        assert row is not None
        assert (row["status"], row["attempt"]) == ("running", 1), "the lease still holds"

        await move_clock(LEASE + timedelta(seconds=1))
        await until("a sweep has noticed that the worker vanished", lambda: second.said("workers vanished"))
        await until("all jobs are completed", lambda: _all_completed(traces))

    row = await traces.fetchrow("select attempt, uncounted, last_error from jobs where id = $1", job)
    assert row is not None
    assert (row["attempt"], row["uncounted"]) == (2, 0)
    assert "WorkerVanished" in row["last_error"]
    assert await _traced(traces, job, attempt=2)


async def test_two_workers_and_sweeps_racing_for_the_same_rows_run_each_once(
    gateway: Gateway, traces: Connection, start_worker: StartWorker
) -> None:
    async with start_worker() as first, start_worker() as second:
        await until("the first hears inserts", lambda: first.said("Realtime is ready"))
        await until("the second hears inserts", lambda: second.said("Realtime is ready"))
        jobs: list[int] = []
        for _ in range(JOBS):
            jobs += await enqueue(traces, 5)
            # A second join makes both workers sweep while the insert is still being announced to them.
            gateway.realtime.acts.announce_again()

        await until("all jobs are completed", lambda: _all_completed(traces))

    assert await all_ran_once(traces, jobs)
    assert await traces.fetchval("select max(attempt) from jobs") == 1


async def test_an_answer_lost_after_its_commit_costs_neither_the_job_nor_its_outcome(
    gateway: Gateway, traces: Connection, start_worker: StartWorker
) -> None:
    async with start_worker() as worker:
        await until("the worker hears inserts", lambda: worker.said("Realtime is ready"))
        gateway.faults.rest.plan("lose_answer", "claim")
        gateway.faults.rest.plan("lose_answer", "finish", times=2)
        jobs = await enqueue(traces, JOBS)

        await until("all jobs are completed", lambda: _all_completed(traces))
        await until("each outcome was told", lambda: len(worker.outcomes) == JOBS)

    assert not gateway.faults.rest.planned, "the faults have happened"
    assert await all_ran_once(traces, jobs)
    assert await traces.fetchval("select max(attempt) from jobs") == 1
    assert {one.facts["answer"] for one in worker.outcomes} <= {"recorded", "repeated"}


async def _all_completed(owner: Connection) -> bool:
    return await statuses(owner) == {"completed"}


async def _traced(owner: Connection, job: int, attempt: int) -> bool:
    found = await owner.fetchval(
        "select count(*) from traces where job_id = $1 and attempt = $2", job, attempt
    )
    return bool(found == 1)
