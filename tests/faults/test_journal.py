"""A process that dies while the database is away loses no outcome where there is a disk for its journal."""

import os
import signal
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import TypeAlias

import asyncpg
import pytest

from devstack.gateway import Gateway
from tests.faults.test_four_promises import all_ran_once, enqueue, statuses
from tests.projects import StartWorker, Worker
from tests.waiting import until

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
MoveClock = Callable[[timedelta], Awaitable[None]]
JOBS = 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def lines(folder: Path) -> list[bytes]:
    return [line for path in folder.glob("*.outcomes") for line in path.read_bytes().splitlines()]


async def ended_during_an_outage(
    gateway: Gateway, traces: Connection, worker: Worker, folder: Path
) -> list[int]:
    """Jobs whose handlers have returned, and whose outcomes are in the journal only."""
    await until("the worker hears inserts", lambda: worker.said("Realtime is ready"))
    gateway.faults.rest.plan("status", "finish", times=None)
    jobs = await enqueue(traces, JOBS)
    await until("every outcome is on the disk", lambda: len(lines(folder)) == JOBS)
    gateway.faults.rest.plan("status", "/rest/v1/rpc", times=None)
    return jobs


async def test_the_next_process_records_what_a_killed_one_had_finished(
    gateway: Gateway, traces: Connection, start_worker: StartWorker, folder: Path
) -> None:
    async with start_worker(PULSE_JOURNAL=str(folder)) as first:
        jobs = await ended_during_an_outage(gateway, traces, first, folder)
        os.kill(first.pid, signal.SIGKILL)
    gateway.faults.rest.clear()
    async with start_worker(PULSE_JOURNAL=str(folder)) as second:
        await until("each outcome was told", lambda: len(second.outcomes) == JOBS)
        assert second.said("that a process left when it died")
    assert await statuses(traces) == {"completed"}
    assert await all_ran_once(traces, jobs)
    assert {one.facts["answer"] for one in second.outcomes} == {"recorded"}
    assert files(folder) == []


async def test_what_was_given_to_another_meanwhile_is_told_as_stale(
    gateway: Gateway, traces: Connection, start_worker: StartWorker, folder: Path, move_clock: MoveClock
) -> None:
    async with start_worker(PULSE_JOURNAL=str(folder)) as first:
        await ended_during_an_outage(gateway, traces, first, folder)
        os.kill(first.pid, signal.SIGKILL)
    gateway.faults.rest.clear()
    await move_clock(timedelta(seconds=61))
    async with start_worker() as another:
        await until("another has noticed", lambda: another.said("workers vanished"))
        await until("another has run them", lambda: len(another.outcomes) == JOBS)
    async with start_worker(PULSE_JOURNAL=str(folder)) as second:
        await until("each outcome was told", lambda: len(second.outcomes) == JOBS)
    assert {one.facts["answer"] for one in second.outcomes} == {"stale"}
    assert await traces.fetchval("select count(*) from stale_outcomes") == JOBS
    assert await statuses(traces) == {"completed"}


async def test_an_outage_that_ends_leaves_an_empty_journal(
    gateway: Gateway, traces: Connection, start_worker: StartWorker, folder: Path
) -> None:
    async with start_worker(PULSE_JOURNAL=str(folder)) as worker:
        jobs = await ended_during_an_outage(gateway, traces, worker, folder)
        gateway.faults.rest.clear()
        await until("each outcome was told", lambda: len(worker.outcomes) == JOBS)
        await until("nothing is left in it", lambda: lines(folder) == [])
    assert await all_ran_once(traces, jobs)
    assert files(folder) == []
