"""Outages of every length: workers stay up, outcomes are kept, and nothing that was done is done again."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest

from devstack.gateway import Gateway
from listener.migrate import migrate, migrations
from tests.doubles.proxy import Proxy, proxy
from tests.faults.acting import Acting, MoveClock
from tests.projects import StartWorker, Worker
from tests.waiting import until

SWEEPING = {"sweep": 0.3, "reconnect": 0.05}
# Pauses of at most 10 ms instead of 5 s: as many tries as an hour has, in a few seconds.
AN_HOUR_IN_SECONDS = {"sweep": 0.3, "reconnect": 0.001, "lease": 3.0}
TRIES_IN_AN_HOUR = 60 * 60 // 5


@pytest.fixture
async def line(gateway: Gateway) -> AsyncIterator[Proxy]:
    """What stands between a worker and the REST API, and can be cut. Realtime does not go through it."""
    async with proxy(gateway.url, largest=10_000_000) as running:
        yield running


def memory_kb(worker: Worker) -> int:
    """What the process holds."""
    words = Path(f"/proc/{worker.pid}/status").read_text()
    return int(words.partition("VmRSS:")[2].split()[0])


async def test_a_database_that_is_away_at_the_start_is_waited_for_in_clear_words(
    line: Proxy, acting: Acting, start_worker: StartWorker
) -> None:
    line.is_cut = True
    jobs = await acting.enqueue("nothing", 5)
    async with start_worker(tempo=SWEEPING, SUPABASE_URL=line.url) as worker:
        await until("it says what it waits for", lambda: worker.said("waiting for the database to be there"))
        await until("it has tried for a while", lambda: line.requests > 20)
        assert worker.code is None
        line.is_cut = False
        await until("all jobs are completed", acting.all_completed)
        assert worker.said("maintenance: the REST API answers again")
    assert acting.begun() == dict.fromkeys(jobs, 1)


async def test_nobody_at_the_address_is_told_as_no_connection(
    acting: Acting, start_worker: StartWorker
) -> None:
    async with start_worker(tempo=SWEEPING, SUPABASE_URL="http://127.0.0.1:9") as worker:
        words = (
            "maintenance: claim: no connection (ClientConnectorError); waiting for the database to be there"
        )
        await until("it says so", lambda: worker.said(words))
    assert worker.code == 0, "nothing is held, so nothing keeps it"


async def test_a_database_without_our_functions_names_the_mend_and_is_waited_for(
    fresh: str, acting: Acting, start_worker: StartWorker
) -> None:
    async with (
        Gateway(fresh) as gateway,
        start_worker(tempo=SWEEPING, SUPABASE_URL=gateway.url) as worker,
    ):
        await until("it names the mend", lambda: worker.said("`pulse migrate`"))
        await migrate(fresh, migrations())
        owner = await asyncpg.connect(fresh)
        try:
            await owner.execute("notify pgrst, 'reload schema'")
            await owner.execute("insert into maintenance_jobs (type) values ('act')")
            await until("it works", lambda: owner.fetchval("select bool_and(status = 'completed') from jobs"))
        finally:
            await owner.close()


async def test_an_outage_of_an_hour_costs_no_outcome_no_memory_and_no_full_log(
    line: Proxy, acting: Acting, start_worker: StartWorker
) -> None:
    async with start_worker(tempo=AN_HOUR_IN_SECONDS, SUPABASE_URL=line.url) as worker:
        jobs = await acting.enqueue("wait", 20)
        await until("all of them run", lambda: len(acting.begun()) == len(jobs))
        line.is_cut = True
        acting.open(1)
        await until("all have ended", lambda: sum(note.what == "ends" for note in acting.ledger) == len(jobs))
        before = line.requests
        await until("some tries are over", lambda: line.requests > before + 100)
        memory, told = memory_kb(worker), len(worker.told)
        await until("an hour's tries are over", lambda: line.requests > before + TRIES_IN_AN_HOUR)
        assert memory_kb(worker) - memory < 10_000
        assert len(worker.told) - told < 60
        # Their leases have run out by now, and nobody has taken them.
        line.is_cut = False
        await until("all jobs are completed", acting.all_completed)
        await until("each outcome is told", lambda: len(worker.outcomes) == len(jobs))
    assert acting.begun() == dict.fromkeys(jobs, 1), "what was done is not done again"
    assert {one.facts["answer"] for one in worker.outcomes} == {"recorded"}
    assert await acting.stale() == []
    await acting.attempts_are_sound()


async def test_what_ended_in_an_outage_is_stale_if_another_was_given_it_meanwhile(
    line: Proxy, acting: Acting, start_worker: StartWorker, move_clock: MoveClock
) -> None:
    async with start_worker(tempo=SWEEPING, SUPABASE_URL=line.url) as cut_off:
        jobs = await acting.enqueue("wait", 6)
        await until("all of them run", lambda: len(acting.begun()) == len(jobs))
        line.is_cut = True
        acting.open(1)
        await until("all have ended", lambda: sum(note.what == "ends" for note in acting.ledger) == len(jobs))
        acting.open(2)
        await move_clock(timedelta(seconds=61))
        async with start_worker(tempo=SWEEPING):
            await until("all jobs are completed", acting.all_completed)
        line.is_cut = False
        await until("each outcome is told", lambda: len(cut_off.outcomes) == len(jobs))
    assert {one.facts["answer"] for one in cut_off.outcomes} == {"stale"}
    assert await acting.stale() == [(job, 1, "completed") for job in jobs]
    assert {row["attempt"] for row in await acting.owner.fetch("select attempt from jobs")} == {2}


async def test_while_rest_is_away_the_wake_ups_of_realtime_make_no_hot_loop(
    gateway: Gateway, acting: Acting, start_worker: StartWorker
) -> None:
    async with start_worker(tempo={"sweep": 0.3, "reconnect": 2.0}) as worker:
        await until("it hears inserts", lambda: worker.said("Realtime is ready"))
        gateway.faults.rest.plan("status", "/rest/v1/rpc", times=None)
        began = await acting.owner.fetchval("select clock_timestamp()")
        jobs = [job for _ in range(50) for job in await acting.enqueue("nothing", 2)]
        await until("it knows", lambda: worker.said("maintenance: claim: HTTP 503"))
        jobs += [job for _ in range(50) for job in await acting.enqueue("nothing", 2)]
        gateway.faults.rest.clear()
        await until("all jobs are completed", acting.all_completed)
        took = await acting.owner.fetchval("select clock_timestamp() - $1::timestamptz", began)
        last = worker.lines("maintenance: claim: HTTP 503")[-1].facts["tries"]
        assert isinstance(last, int)
        # The pauses are 1 s and more: the wake-ups of a hundred rows do not shorten them.
        assert last <= took.total_seconds() + 2
    assert acting.begun() == dict.fromkeys(jobs, 1)
