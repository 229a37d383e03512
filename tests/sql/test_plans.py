"""How much a call touches: counted while it runs, so that a plan gone wrong shows whatever it is.

PostgreSQL counts, per table and per index, what the current transaction has read. The limits hold for every plan
that is right (a hundred jobs cost some hundred rows) and are far below what any wrong plan would read. The session
that is measured has planned its statements while the tables were empty, the worst moment for it.
"""

from dataclasses import dataclass

import asyncpg
import pytest

from tests.sql.calls import Calls, Connection, Json, outcome

FINISHED = 60_000
FUTURE = 5_000
UNKNOWN = 5_000
DUE = 3_000
BATCH = 100


@dataclass(frozen=True, slots=True)
class Touched:
    """What a transaction has read from the payment queue so far."""

    full_scans: int
    index_entries: int


async def touched(calls: Calls) -> Touched:
    """Must be asked in the transaction that it is about."""
    row = await calls.connection.fetchrow(
        """
        select
            pg_stat_get_xact_numscans('jobs_payment'::regclass) as full_scans,
            (
                select sum(pg_stat_get_xact_tuples_returned(indexrelid))
                from pg_index where indrelid = 'jobs_payment'::regclass
            ) as index_entries
        """
    )
    assert row is not None
    return Touched(int(row["full_scans"]), int(row["index_entries"]))


@pytest.fixture(params=["never analysed", "analysed while empty", "analysed when full"])
async def big(request: pytest.FixtureRequest, owner: Connection, server: Calls) -> Calls:
    """A session that planned everything on empty tables, and tables that have filled up since."""
    await owner.execute("alter table jobs_payment set (autovacuum_enabled = off)")
    if request.param == "analysed while empty":
        await owner.execute("analyze jobs, failed_jobs, stale_outcomes")
    await every_call(server)
    await owner.execute(
        "insert into jobs_payment (type, status, attempt, created_at, finished_at, last_outcome)"
        " select 'a', 'completed', 1, now(), now(), 'completed' from generate_series(1, $1::integer)",
        FINISHED,
    )
    await owner.execute(
        "insert into jobs_payment (type, priority, run_at)"
        " select 'a', n % 3, now() + interval '1 day' from generate_series(1, $1::integer) as n",
        FUTURE,
    )
    await owner.execute(
        "insert into jobs_payment (type, run_at)"
        " select 'unknown', now() - interval '1 day' from generate_series(1, $1::integer)",
        UNKNOWN,
    )
    await owner.execute(
        "insert into jobs_payment (type, priority) select 'a', n % 3 from generate_series(1, $1::integer) as n",
        DUE,
    )
    if request.param == "analysed when full":
        await owner.execute("analyze jobs")
    return server


async def every_call(server: Calls) -> None:
    """Each hot function once, often enough that a session would have settled on its plans."""
    for _ in range(6):
        jobs: list[Json] = (await server.claim(BATCH, sweep=True, holding=[(1, 1)]))["jobs"]
        await server.heartbeat({"queue": "payment", "id": 1, "attempt": 1}, *jobs)
        await server.finish({"queue": "payment", "id": 1, "attempt": 1, "kind": "completed"})
        await server.cancel(0)
        await server.replay([0])
        await server.prune()


async def test_a_claim_with_its_floor_touches_what_it_takes(big: Calls) -> None:
    floor = (await big.claim(BATCH, sweep=True))["floor"]
    async with big.connection.transaction():
        before = await touched(big)
        claimed = await big.claim(BATCH, floor=floor)
        after = await touched(big)
    assert len(claimed["jobs"]) == BATCH
    assert after.index_entries - before.index_entries < 10 * BATCH


async def test_a_claim_without_a_floor_passes_over_the_unknown_but_not_over_the_past(big: Calls) -> None:
    for _ in range(DUE // 3 * 2 // BATCH):
        await big.claim(BATCH)
    async with big.connection.transaction():
        before = await touched(big)
        claimed = await big.claim(BATCH)
        after = await touched(big)
    assert len(claimed["jobs"]) == BATCH
    assert after.index_entries - before.index_entries < UNKNOWN + DUE + 10 * BATCH


async def test_finish_heartbeat_and_cancel_touch_the_rows_they_name(big: Calls) -> None:
    jobs = (await big.claim(BATCH, sweep=True))["jobs"]
    assert len(jobs) == BATCH
    async with big.connection.transaction():
        before = await touched(big)
        await big.heartbeat(*jobs)
        renewed = await touched(big)
        await big.cancel(*(job["id"] for job in jobs))
        cancelled = await touched(big)
        answer = await big.finish(*(outcome(job, "completed") for job in jobs))
        finished = await touched(big)
    assert {said["answer"] for said in answer["outcomes"]} == {"recorded"}
    for start, end in ((before, renewed), (renewed, cancelled), (cancelled, finished)):
        assert end.index_entries - start.index_entries < 10 * BATCH


async def test_what_is_held_is_found_by_id(big: Calls) -> None:
    """A sweep renews what its worker holds, and looks what else was leased to it."""
    jobs = (await big.claim(BATCH, sweep=True))["jobs"]
    held = [(job["id"], job["attempt"]) for job in jobs]
    async with big.connection.transaction():
        before = await touched(big)
        claimed = await big.claim(0, lease_seconds=600, sweep=True, holding=held[1:])
        renewed = await touched(big)
        recovered = await big.claim(1, holding=held[1:])
        after = await touched(big)
    assert (claimed["unsettled"], recovered["unsettled"], len(recovered["jobs"])) == (1, 0, 1)
    # A sweep also counts the unknown at the head of the queue, a thousand at most.
    assert renewed.index_entries - before.index_entries < 1000 + 10 * BATCH
    assert after.index_entries - renewed.index_entries < 10 * BATCH


async def test_an_empty_claim_touches_next_to_nothing(big: Calls, owner: Connection) -> None:
    await owner.execute("update jobs_payment set status = 'cancelled' where type = 'a' and run_at <= now()")
    floor = (await big.claim(BATCH, sweep=True))["floor"]
    async with big.connection.transaction():
        before = await touched(big)
        claimed = await big.claim(BATCH, floor=floor)
        after = await touched(big)
    assert claimed["jobs"] == []
    assert claimed["next_in_seconds"] > 80_000
    assert after.index_entries - before.index_entries < BATCH


async def test_what_a_limit_holds_back_is_walked_over_once(big: Calls, owner: Connection) -> None:
    """Then it is in its lane: claims touch what they take, from there too."""
    await Calls(owner).limit(queue="payment", type="a", at_once=BATCH)
    jobs: list[Json] = []
    floor: object = None
    entries = 0
    for _ in range(12):
        async with big.connection.transaction():
            before = await touched(big)
            claimed = await big.claim(BATCH, floor=floor)
            entries = (await touched(big)).index_entries - before.index_entries
        jobs += claimed["jobs"]
        floor = claimed["floor"]
    assert len(jobs) == BATCH
    assert await big.value("select count(*) from jobs where lane is not null") == DUE - BATCH
    assert entries < BATCH, "the last of them had nothing left to move"
    async with big.connection.transaction():
        before = await touched(big)
        said = await big.finish(*(outcome(job, "completed") for job in jobs), claim=_asks(floor))
        after = await touched(big)
    assert len(said["claim"]["jobs"]) == BATCH
    assert after.index_entries - before.index_entries < 30 * BATCH
    assert after.full_scans == before.full_scans


def _asks(floor: object) -> Json:
    return {
        "queue": "payment",
        "types": ["a"],
        "max_jobs": BATCH,
        "lease_seconds": 30,
        "worker_id": "w",
        "woken_by": "finish",
        "floor": floor,
    }


async def test_no_call_reads_the_table_from_end_to_end(big: Calls) -> None:
    async with big.connection.transaction():
        await every_call(big)
        assert (await touched(big)).full_scans == 0


async def test_an_old_snapshot_does_not_slow_claims_down(
    server: Calls, owner: Connection, database: str
) -> None:
    """The floor lets the walk start behind the dead entries that nothing may remove."""
    rounds = 30
    await owner.execute(
        "insert into jobs_payment (type, priority, run_at)"
        " select 'a', n % 2, now() - interval '1 minute' from generate_series(1, $1::integer) as n",
        rounds * BATCH,
    )
    watcher = await asyncpg.connect(database)
    try:
        async with watcher.transaction(isolation="repeatable_read", readonly=True):
            await watcher.execute("select from jobs limit 1")
            floor: object = None
            worst = 0
            for turn in range(rounds):
                async with server.connection.transaction():
                    before = await touched(server)
                    claimed = await server.claim(BATCH, floor=floor, sweep=turn % 10 == 9)
                    after = await touched(server)
                assert len(claimed["jobs"]) == BATCH
                await server.finish(*(outcome(job, "completed") for job in claimed["jobs"]))
                floor = claimed["floor"]
                if turn % 10 != 9:
                    worst = max(worst, after.index_entries - before.index_entries)
    finally:
        await watcher.close()
    assert worst < 10 * BATCH


async def test_no_plan_whose_ways_are_chosen_is_compiled(owner: Connection) -> None:
    settings = await owner.fetch(
        "select proname, proconfig from pg_proc where pronamespace = 'public'::regnamespace and proconfig is not null"
    )
    chosen = {row[0]: row[1] for row in settings if any(one.startswith("enable_") for one in row[1])}

    assert len(chosen) > 10
    assert [name for name, words in chosen.items() if "jit=off" not in words] == []
