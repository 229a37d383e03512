"""How a process ends: as a platform ends it, as a person does, and with a new one beside it."""

import asyncio
import signal
from datetime import timedelta
from pathlib import Path

import pytest

from devstack.gateway import Gateway
from listener import service, uncaught
from listener.config import Tempo
from tests.faults.acting import Acting
from tests.projects import StartWorker, Worker
from tests.waiting import until

SWEEPING = {"sweep": 0.3, "reconnect": 0.05}
PLATFORM_KILLS_AFTER = timedelta(seconds=30)


def test_all_that_a_process_may_take_to_end_is_less_than_a_platform_allows() -> None:
    """What runs, what is handed back, what is closed, the threads; half a second for Python itself."""
    phases = (service._CLEAN_UP_SECONDS, service._CLOSING_SECONDS, uncaught.PATIENCE_SECONDS)
    whole = Tempo().grace + timedelta(seconds=sum(phases))
    assert whole + timedelta(seconds=0.5) <= PLATFORM_KILLS_AFTER


async def test_deploys_with_jobs_under_way_lose_nothing_and_run_nothing_twice(
    acting: Acting, start_worker: StartWorker
) -> None:
    """Old and new processes overlap, and the old ones are told to end several times, as Heroku does."""
    jobs: list[int] = []

    async def produce(worker: Worker) -> None:
        """Until the new process has work in hand."""
        while not any(note.pid == worker.pid for note in acting.ledger):
            jobs.extend(await acting.enqueue("work", 5, size=100))
            await asyncio.sleep(0)

    codes: list[int] = []
    options = ("--concurrency", "10", "--no-scheduler")
    tempo = SWEEPING | {"grace": 15}
    async with start_worker(*options, tempo=tempo) as old:
        await produce(old)
        async with start_worker(*options, tempo=tempo) as new:
            await produce(new)
            async with asyncio.TaskGroup() as group:
                for _ in range(3):
                    old.signal(signal.SIGTERM)
                    jobs += await acting.enqueue("work", 10, size=100)
                codes.append(await group.create_task(old.ends()))
            async with start_worker(*options, tempo=tempo) as newest:
                new.signal(signal.SIGTERM)
                await produce(newest)
                new.signal(signal.SIGTERM)
                codes.append(await new.ends())
                await until("all jobs are completed", acting.all_completed)
    assert codes == [0, 0]
    assert set(acting.begun().values()) == {1}, "each ran once"
    assert set(acting.begun()) == set(jobs)
    assert await acting.stale() == []
    assert {told.facts["answer"] for worker in (old, new, newest) for told in worker.outcomes} == {"recorded"}
    await acting.attempts_are_sound()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
async def test_signals_until_the_very_end_leave_a_good_end_good(
    acting: Acting, start_worker: StartWorker, number: signal.Signals
) -> None:
    """They come while it drains, while it closes what it had, and while Python itself comes down."""
    async with start_worker(tempo=SWEEPING) as worker:
        await acting.enqueue("nothing")
        await until("it has worked", acting.all_completed)
        worker.signal(number)
        await until("it has drained", lambda: worker.said("drained") or worker.code is not None)
        while worker.code is None:
            worker.signal(signal.SIGTERM)
            await asyncio.sleep(0.0005)
    assert worker.code == 0
    assert worker.unexpected == []


async def test_a_second_ctrl_c_hands_back_at_once_and_a_platforms_signals_do_not(
    acting: Acting, start_worker: StartWorker
) -> None:
    async with start_worker(tempo=SWEEPING) as worker:
        (job,) = await acting.enqueue("wait")
        await until("it runs", lambda: bool(acting.begun(1)))
        for _ in range(3):
            worker.signal(signal.SIGTERM)
        await until("it drains", lambda: worker.said("draining"))
        assert (await acting.row(job))["status"] == "running", "it may finish"
        worker.signal(signal.SIGINT)
        assert await worker.ends() == 0
    assert worker.said("drained: 1 handed back, 0 did not stop")
    row = await acting.row(job)
    assert (row["status"], row["attempt"], row["uncounted"]) == ("pending", 1, 1)
    assert row["run_at"] <= row["updated_at"], "due at once"


async def test_a_third_ctrl_c_leaves_at_once(acting: Acting, start_worker: StartWorker) -> None:
    async with start_worker(tempo=SWEEPING) as worker:
        await acting.enqueue("ignore")
        await until("it runs", lambda: bool(acting.begun(1)))
        worker.signal(signal.SIGINT)
        await until("it drains", lambda: worker.said("draining"))
        worker.signal(signal.SIGINT)
        await until("the handler is told", lambda: worker.said("told to stop"))
        worker.signal(signal.SIGINT)
        assert await worker.ends() == 1
        told = worker.lines("drained:")
        assert [one.facts["took_seconds"] for one in told] == [0.0], "it did not wait for the handler"


async def test_what_does_not_end_is_left_behind_in_time(acting: Acting, start_worker: StartWorker) -> None:
    """A handler that ignores its cancellation, a database that has gone: the process is gone before it is killed."""
    grace = 0.5
    async with start_worker(tempo=SWEEPING | {"grace": grace}) as worker:
        await acting.enqueue("ignore")
        await until("it runs", lambda: bool(acting.begun(1)))
        worker.signal(signal.SIGTERM)
        assert await worker.ends() == 1
    (began,), (ended,) = worker.lines("draining"), worker.lines("drained:")
    took = (ended.at - began.at).total_seconds()
    assert grace <= took < grace + service._CLEAN_UP_SECONDS + 5


async def test_what_cannot_be_handed_back_now_is_handed_back_by_the_next_process(
    gateway: Gateway, acting: Acting, start_worker: StartWorker, tmp_path: Path
) -> None:
    """The database is away when the process has to end: its journal remembers, and no lease has to run out."""
    journal = str(tmp_path / "journal")
    async with start_worker(tempo=SWEEPING | {"grace": 0.2}, PULSE_JOURNAL=journal) as worker:
        (job,) = await acting.enqueue("wait")
        await until("it runs", lambda: bool(acting.begun(1)))
        gateway.faults.rest.plan("status", "/rest/v1/rpc", times=None)
        worker.signal(signal.SIGTERM)
        assert await worker.ends() == 1
    assert (await acting.row(job))["status"] == "running"
    gateway.faults.rest.clear()
    acting.open(2)
    async with start_worker(tempo=SWEEPING, PULSE_JOURNAL=journal) as following:
        await until("all jobs are completed", acting.all_completed)
    row = await acting.row(job)
    assert (row["attempt"], row["uncounted"]) == (2, 1)
    assert following.said("1 outcomes that a process left")
