"""Clocks that jump: a worker goes by the database's clock and its own monotonic one, whatever its wall clock says."""

import signal
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.faults.acting import Acting, MoveClock
from tests.projects import StartWorker
from tests.waiting import until

SWEEPING = {"sweep": 0.3, "reconnect": 0.05}
HOUR = 3600


@pytest.fixture
def wall_clock(tmp_path: Path) -> Path:
    """The file that makes the wall clock of a worker's machine wrong."""
    file = tmp_path / "wall_clock"
    file.write_text("0")
    return file


def set_to(wall_clock: Path, seconds: float) -> None:
    """At once: nobody reads half of it."""
    wall_clock.with_suffix(".new").write_text(str(seconds))
    wall_clock.with_suffix(".new").rename(wall_clock)


async def test_a_wall_clock_that_jumps_makes_neither_a_flood_of_slots_nor_a_silence(
    acting: Acting, start_worker: StartWorker, wall_clock: Path
) -> None:
    """Hours ahead, back, and back again: there is a job for each second that the database has seen, and no other."""
    await acting.owner.execute(
        "insert into schedules (name, queue, type, every_seconds, missed)"
        " values ('tick', 'maintenance', 'act', 1, 'all')"
    )

    async def slots() -> list[datetime]:
        rows = await acting.owner.fetch(
            "select idempotency_key from jobs where idempotency_key like 'tick@%'"
        )
        return sorted(datetime.fromisoformat(row["idempotency_key"].removeprefix("tick@")) for row in rows)

    began = await acting.owner.fetchval("select clock_now()")
    async with start_worker("--log-level", "INFO", tempo=SWEEPING, wall_clock=wall_clock) as worker:
        for wrong_by in (0, 5 * HOUR, -7 * HOUR, 26 * HOUR, 0):
            set_to(wall_clock, wrong_by)
            before = len(await slots())

            async def goes_on(wanted: int = before + 2) -> bool:
                return len(await slots()) >= wanted

            await until(f"two more slots are in ({wrong_by:+} s)", goes_on)
    found = await slots()
    assert found == [found[0] + timedelta(seconds=n) for n in range(len(found))], "each second, once"
    assert began - timedelta(seconds=1) < found[0]
    assert found[-1] <= await acting.owner.fetchval("select clock_now()")
    assert not worker.said("scheduler thread")


@pytest.mark.parametrize("wrong_by", [9 * HOUR, -9 * HOUR], ids=["ahead", "behind"])
async def test_leases_retries_and_snoozes_go_by_the_clock_of_the_database(
    acting: Acting, start_worker: StartWorker, wall_clock: Path, wrong_by: float
) -> None:
    set_to(wall_clock, wrong_by)
    async with start_worker(tempo=SWEEPING, wall_clock=wall_clock) as worker:
        (held,), (asleep,), (failed,) = [await acting.enqueue(do) for do in ("wait", "snooze", "fail slowly")]
        await until("two have ended", lambda: len(worker.outcomes) == 2)
        due = {
            row["id"]: (row["lease_expires_at"] or row["run_at"]) - row["updated_at"]
            for row in await acting.owner.fetch("select * from jobs")
        }
        assert due == {
            held: timedelta(seconds=60),
            asleep: timedelta(hours=1),
            failed: timedelta(seconds=5),
        }
        acting.open(1)
        await until("the first is done", lambda: len(worker.outcomes) == 3)


@pytest.mark.parametrize("jump", [6, -6], ids=["forward", "back"])
async def test_a_clock_of_the_database_that_jumps_costs_no_running_attempt_and_no_new_job(
    acting: Acting, start_worker: StartWorker, move_clock: MoveClock, jump: int
) -> None:
    """What runs is renewed by its own worker before that sweeps; what is new is due by the new time."""
    async with start_worker("--concurrency", "5", "--no-scheduler", tempo=SWEEPING) as worker:
        before = await acting.enqueue("nothing", 5)
        held = await acting.enqueue("wait", 2)
        await until("they run", lambda: len(acting.begun()) == 7)
        await until("the first are done", lambda: len(worker.outcomes) == 5)
        await move_clock(timedelta(hours=jump))
        fresh = await acting.enqueue("nothing", 20)
        await until("what is new is done", lambda: len(worker.outcomes) == 25)
        acting.open(1)
        await until("all jobs are completed", acting.all_completed)
    assert set(acting.begun()) == {*before, *held, *fresh}
    assert set(acting.begun().values()) == {1}
    assert {told.facts["answer"] for told in worker.outcomes} == {"recorded"}
    assert not worker.said("vanished")
    waited = await acting.owner.fetchval(
        "select max(finished_at - created_at) from jobs where id = any ($1)", fresh
    )
    assert waited < timedelta(seconds=10), "not the hours that the clock jumped"
    await acting.attempts_are_sound()


async def test_a_clock_that_jumps_forward_brings_what_was_planned_for_later(
    acting: Acting, start_worker: StartWorker, move_clock: MoveClock
) -> None:
    async with start_worker(tempo=SWEEPING) as worker:
        (job,) = await acting.enqueue("snooze")
        await until("it sleeps", lambda: len(worker.outcomes) == 1)
        await move_clock(timedelta(hours=2))
        await until("it runs again", lambda: len(worker.outcomes) == 2)
    assert acting.begun() == {job: 2}


async def test_after_a_jump_back_a_killed_workers_job_waits_for_its_lease_and_no_longer(
    acting: Acting, start_worker: StartWorker, move_clock: MoveClock
) -> None:
    """What the README says of the limit: a lease ends at a time, and the clock has to get there again."""
    async with start_worker(tempo=SWEEPING) as first:
        (job,) = await acting.enqueue("wait")
        await until("it runs", lambda: bool(acting.begun(1)))
        first.signal(signal.SIGKILL)
    await move_clock(timedelta(hours=-1))
    acting.open(2)
    async with start_worker(tempo=SWEEPING):
        await acting.enqueue("nothing")
        await until("a new job is done", lambda: is_done(acting))
        assert (await acting.row(job))["status"] == "running"
        await move_clock(timedelta(seconds=61))
        await until("all jobs are completed", acting.all_completed)


async def is_done(acting: Acting) -> bool:
    return (await acting.statuses())["completed"] == 1
