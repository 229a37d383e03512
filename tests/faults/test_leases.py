"""Leases and fences under stress: real processes that are killed, frozen or cut off in the middle of their jobs."""

import signal
from datetime import timedelta

from devstack.gateway import Gateway
from tests.doubles.proxy import proxy
from tests.faults.acting import Acting, MoveClock
from tests.projects import StartWorker, Worker
from tests.waiting import until

SWEEPING = {"sweep": 0.3, "reconnect": 0.05}
PAST_THE_LEASE = timedelta(seconds=61)


async def test_after_kill_9_a_job_is_claimed_again_within_its_lease_and_a_sweep(
    acting: Acting, start_worker: StartWorker
) -> None:
    """By the clock of the database: a slow machine may be late to start a process, not to find a lease."""
    tempo = SWEEPING | {"lease": 3.0}
    acting.open(2)
    async with start_worker(tempo=tempo) as one, start_worker(tempo=tempo) as two:
        jobs = await acting.enqueue("wait", 10)
        await until("all of them run", lambda: acting.begun().total() == len(jobs))
        killed = one if acting.pid(jobs[0], 1) == one.pid else two
        mine = [job for job in jobs if acting.pid(job, 1) == killed.pid]
        killed.signal(signal.SIGKILL)
        await until("they have run again", lambda: set(mine) <= set(acting.begun(2)))
        acting.open(1)
        await until("all jobs are completed", acting.all_completed)
    late = await acting.owner.fetchval(
        "select max(taken.at - run_out.lease_expires_at) from history as taken"
        " join lateral (select lease_expires_at from history as h where h.id = taken.id and h.n < taken.n"
        "   and h.lease_expires_at is not null order by n desc limit 1) as run_out on true"
        " where taken.attempt = 2 and taken.status = 'running' and taken.id = any ($1)",
        mine,
    )
    # A sweep, and for a loaded machine so much that a retry's five seconds on top would be seen.
    assert timedelta() < late < timedelta(seconds=0.3 + 4)
    rows = [await acting.row(job) for job in mine]
    assert {(row["attempt"], row["uncounted"]) for row in rows} == {(2, 0)}, "the attempt counts"
    await acting.attempts_are_sound()


async def test_a_frozen_worker_that_wakes_up_does_not_write_over_its_successor(
    acting: Acting, start_worker: StartWorker, move_clock: MoveClock
) -> None:
    async with start_worker(tempo=SWEEPING) as frozen:
        (job,) = await acting.enqueue("ignore")
        await until("the first worker runs it", lambda: bool(acting.begun(1)))
        frozen.signal(signal.SIGSTOP)
        await move_clock(PAST_THE_LEASE)
        async with start_worker(tempo=SWEEPING) as successor:
            await until("its successor runs it", lambda: bool(acting.begun(2)))
            acting.open(1)
            frozen.signal(signal.SIGCONT)
            await until("the first has said its outcome", lambda: bool(frozen.outcomes))
            row = await acting.row(job)
            assert (row["status"], row["attempt"], row["result"]) == ("running", 2, None)
            acting.open(2)
            await until("all jobs are completed", acting.all_completed)
    await it_was_the_successors(acting, job, frozen, successor)


async def test_a_worker_that_was_cut_off_never_writes_over_its_successor(
    gateway: Gateway, acting: Acting, start_worker: StartWorker, move_clock: MoveClock
) -> None:
    """Its handler goes on and ends while nothing gets through; what it then says comes too late."""
    async with (
        proxy(gateway.url, largest=10_000_000) as line,
        start_worker(tempo=SWEEPING, SUPABASE_URL=line.url) as cut_off,
    ):
        (job,) = await acting.enqueue("wait")
        await until("the first worker runs it", lambda: bool(acting.begun(1)))
        line.is_cut = True
        await move_clock(PAST_THE_LEASE)
        async with start_worker(tempo=SWEEPING) as successor:
            await until("its successor runs it", lambda: bool(acting.begun(2)))
            acting.open(1)
            await until("the first has ended it", lambda: note_of(acting, job, 1, "ends"))
            line.is_cut = False
            await until("the first has said its outcome", lambda: bool(cut_off.outcomes))
            row = await acting.row(job)
            assert (row["status"], row["attempt"], row["result"]) == ("running", 2, None)
            acting.open(2)
            await until("all jobs are completed", acting.all_completed)
    await it_was_the_successors(acting, job, cut_off, successor)


def note_of(acting: Acting, job: int, attempt: int, what: str) -> bool:
    return any(note.what == what and note[:2] == (job, attempt) for note in acting.ledger)


async def it_was_the_successors(acting: Acting, job: int, first: Worker, successor: Worker) -> None:
    """Its result stands, and the first worker was told that its own came too late."""
    row = await acting.row(job)
    assert (row["attempt"], row["result"]) == (2, f'{{"pid": {successor.pid}, "attempt": 2}}')
    assert await acting.stale() == [(job, 1, "completed")]
    assert [told.facts["answer"] for told in first.outcomes] == ["stale"]
    assert [told.facts["answer"] for told in successor.outcomes] == ["recorded"]
    await acting.attempts_are_sound()


async def test_a_job_that_kills_its_worker_each_time_ends_alone_in_the_dead_letters(
    acting: Acting, start_worker: StartWorker, move_clock: MoveClock
) -> None:
    """A platform starts the worker anew each time. The first two deaths take along what runs beside the killer."""
    (killer,) = await acting.enqueue("kill")
    await acting.enqueue("work", 6, size=1)
    passed = timedelta()
    starts = 0
    while not await nothing_is_left(acting):
        starts += 1
        async with start_worker(tempo=SWEEPING) as worker:
            while worker.code is None and not await nothing_is_left(acting):
                passed += timedelta(seconds=5)
                await move_clock(passed)

                async def is_idle(worker: Worker = worker) -> bool:
                    return worker.code is not None or await nothing_is_due(acting)

                await until("the worker has done what is due, or is dead", is_idle)
    assert await acting.statuses() == {"completed": 6, "failed": 1}
    assert acting.begun()[killer] == 4, "all its attempts"
    assert starts == 5
    letters = await acting.owner.fetch("select job_id, attempts, error_class, error_message from failed_jobs")
    ((job, attempts, error_class, text),) = letters
    assert (job, attempts, error_class) == (killer, 4, "WorkerVanished")
    assert "vanished: the lease of attempt 4 ended" in text
    assert text.endswith("as that of the attempt before did: the job may kill its worker")
    await acting.attempts_are_sound()


async def nothing_is_left(acting: Acting) -> bool:
    return set(await acting.statuses()) <= {"completed", "failed"}


async def nothing_is_due(acting: Acting) -> bool:
    return bool(
        await acting.owner.fetchval(
            "select count(*) = 0 from jobs where status = 'pending' and run_at <= clock_now()"
            " or status = 'running' and lease_expires_at < clock_now()"
        )
    )


async def test_a_handler_that_ignores_its_cancellation_costs_a_place_and_no_other_job(
    acting: Acting, start_worker: StartWorker, move_clock: MoveClock
) -> None:
    """Nor does the end of its process end it: that leaves without it, and its lease gives it back."""
    (acting.folder / "impatient").touch()
    async with start_worker(tempo=SWEEPING | {"grace": 0.2}) as worker:
        (job,) = await acting.enqueue("ignore")
        await until("it runs", lambda: bool(acting.begun(1)))
        others = await acting.enqueue("nothing", 30)
        await until("the others are done", lambda: {told.job_id for told in worker.outcomes} == set(others))
        worker.signal(signal.SIGTERM)
        assert await worker.ends() == 1
    assert worker.said("1 did not stop")
    row = await acting.row(job)
    assert (row["status"], row["attempt"]) == ("running", 1)
    acting.open(2)
    await move_clock(PAST_THE_LEASE)
    async with start_worker(tempo=SWEEPING):
        await until("all jobs are completed", acting.all_completed)
    await acting.attempts_are_sound()


async def test_poison_at_the_head_of_the_queue_harms_nobody_behind_it(
    acting: Acting, start_worker: StartWorker
) -> None:
    """Rows that no handler can take, of the highest priority and due since long ago."""
    poison = [
        ("act", """{"do": 7}"""),
        ("act", """{"do": "be large", "size": 400000}"""),
        ("act", """{"do": "unsayable"}"""),
        ("act", """{"nothing": "known"}"""),
        ("act", "jsonb_build_object('size', '1e1000'::numeric)"),
        ("act", "jsonb_build_object('size', repeat('9', 5000)::numeric)"),
        ("act", "jsonb_build_object('do', repeat('x', 900000))"),
        ("nobodys", "{}"),
    ]
    for type_, data in poison:
        value = data if data.startswith("jsonb") else f"'{data}'::jsonb"
        await acting.owner.execute(
            "insert into maintenance_jobs (type, data, priority, run_at)"
            f" select '{type_}', {value}, 100, '0001-01-01 00:00+00' from generate_series(1, 5)"
        )
    async with start_worker("--concurrency", "5", "--no-scheduler", tempo=SWEEPING):
        jobs = await acting.enqueue("nothing", 100)

        async def are_done() -> bool:
            done = "select count(*) from jobs where status = 'completed' and id = any ($1)"
            return bool(await acting.owner.fetchval(done, jobs) == len(jobs))

        await until("the rest of the queue is done", are_done)
    rows = await acting.owner.fetch("select type, status, count(*) from jobs group by 1, 2")
    assert {(type_, status): count for type_, status, count in rows if status != "completed"} == {
        ("act", "failed"): 2 * 5,
        ("act", "pending"): 5,
        ("nobodys", "pending"): 5,
    }


async def test_two_hundred_failing_jobs_do_not_make_a_hot_loop(
    gateway: Gateway, acting: Acting, start_worker: StartWorker
) -> None:
    """They fail at once and are due again at once: the rest of the queue runs all the same, in few calls."""
    async with (
        proxy(gateway.url, largest=10_000_000) as line,
        start_worker(tempo={"sweep": 1.0}, SUPABASE_URL=line.url),
    ):
        await acting.enqueue("fail", 200)
        others = await acting.enqueue("nothing", 100)
        await until("all have ended", lambda: nothing_is_left(acting))
        calls = line.requests
        slow = await acting.enqueue("fail slowly", 200)
        await until("each has failed once", lambda: set(slow) <= set(acting.begun()))
        more = await acting.enqueue("nothing", 10)
        await until("what comes later runs", lambda: set(more) <= set(acting.begun()))
    assert await acting.statuses() == {"failed": 200, "completed": len(others) + 10, "pending": 200}
    assert acting.begun().total() == 200 * 4 + len(others) + 200 + 10
    assert calls < 900 / 4, "a call is worth many outcomes"
    assert line.requests - calls < 210 / 4
