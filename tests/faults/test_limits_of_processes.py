"""Limits under four real processes, of which one is killed: never one more than allowed, none left while somebody asks.

Handlers note when they run, triggers note what is claimed and what ends (bench/exactness.py). No lease of a living
process runs out here, and that of the killed one runs out when the test says so: however slow the machine is.
"""

import signal
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from bench.exactness import (
    Change,
    Connection,
    Limit,
    Record,
    Start,
    disagreements,
    findings,
    keep_record,
    read_record,
)
from bench.limits import PROJECT, insert, set_limits
from bench.noting import OPEN, Run, Who, runs_in
from tests.projects import StartWorker, Worker
from tests.waiting import until

HOLDING = (
    Limit("alone", at_once=1),
    Limit("together", at_once=4),
    Limit("of_user", per="user", at_once=2),
    Limit("of_account", per="data.account_id", at_once=1),
)
PACED = Limit("paced", per="user", starts=2, per_seconds=0.5)
USERS = [UUID(int=n) for n in range(1, 6)]
ACCOUNTS = 10
FULL = Counter[tuple[str, str]](
    {("alone", ""): 1, ("together", ""): 4}
    | {("of_user", str(user)): 2 for user in USERS}
    | {("of_account", f"a{n}"): 1 for n in range(ACCOUNTS)}
)
PLACES = 8
"""25 jobs hold four processes' places but for 7: each process holds some, and one has room for 2 starts of a user."""
TEMPO = {"sweep": 0.3, "reconnect": 0.05}
KEYS = {limit.type: limit for limit in HOLDING}
Key = tuple[str, str]


@pytest.fixture
def project() -> Path:
    """Whose handlers start_worker runs."""
    return PROJECT


def key(who: Who) -> Key:
    return who.type, KEYS[who.type].key(who) if who.type in KEYS else ""


def holding(runs: list[Run]) -> Counter[Key]:
    """What runs, and waits to be let go."""
    return Counter(key(run.who) for run in runs if run.end is None and run.who.type in KEYS)


async def pending(owner: Connection) -> set[Key]:
    rows = await owner.fetch(
        "select distinct type, user_id::text, data ->> 'account_id' from jobs where status = 'pending'"
    )
    return {key(Who(*row)) for row in rows}


async def running(owner: Connection) -> Counter[str]:
    """How many jobs run, by the name of their worker."""
    rows = await owner.fetch("select worker_id from jobs where status = 'running'")
    return Counter(row["worker_id"] for row in rows)


async def test_limits_hold_over_four_processes_and_what_a_killed_one_ran_counts_until_a_sweep_ends_it(
    owner: Connection, start_worker: StartWorker, tmp_path: Path
) -> None:
    limits = await set_limits(owner, [*HOLDING, PACED])
    await keep_record(owner)
    async with AsyncExitStack() as stack:

        async def start() -> Worker:
            words = ("--concurrency", str(PLACES), "--no-scheduler")
            return await stack.enter_async_context(
                start_worker(*words, tempo=TEMPO, BENCH_NOTES=str(tmp_path))
            )

        fleet = [await start() for _ in range(4)]
        stack.callback((tmp_path / OPEN).touch)  # a test that fails lets them go too
        since = await insert(owner, [*jobs_of(200)], waits=True)
        await until("each limit is full", lambda: holding(runs_in(tmp_path)) >= FULL)
        assert holding(runs_in(tmp_path)) == FULL
        await insert(owner, [("paced", USERS[n // 12], "", 0.0) for n in range(36)])

        alone = next(run for run in runs_in(tmp_path) if run.who.type == "alone")
        killed = next(worker for worker in fleet if worker.pid == alone.pid)
        name = str(killed.lines("started")[0].facts["worker_id"])
        killed.signal(signal.SIGKILL)
        await killed.ends()
        left = holding([run for run in runs_in(tmp_path) if run.pid == killed.pid])
        blocked = {key for key, count in left.items() if count == FULL[key]}
        await start()
        (tmp_path / OPEN).touch()

        async def only_what_it_holds_waits() -> bool:
            return await pending(owner) <= blocked and set(await running(owner)) == {name}

        await until("all is done but what waits for the killed process", only_what_it_holds_waits)
        assert ("alone", "") in blocked & await pending(owner)
        begun = Counter(key(run.who) for run in runs_in(tmp_path))
        assert {key: begun[key] for key in blocked} == {key: FULL[key] for key in blocked}, (
            "nobody took its places"
        )

        freed = time.monotonic_ns()
        await owner.execute(
            "update jobs set lease_expires_at = clock_now() - interval '1 second'"
            " where worker_id = $1 and status = 'running'",
            name,
        )

        async def all_are_done() -> bool:
            return not await pending(owner) and not await running(owner)

        await until("all jobs have ended", all_are_done)

    runs = runs_in(tmp_path)
    assert {run.pid for run in runs if run.end is None} == {killed.pid}
    runs = [run if run.end is not None else replace(run, end=freed) for run in runs]
    record = await read_record(owner)
    assert disagreements(limits, runs, record) == []
    found = findings(limits, runs, record, since)
    assert [one for one in found if not (one.is_exact and one.is_reached)] == []
    assert {one.limit.type: one.jobs for one in found} == {**dict.fromkeys(KEYS, 50), "paced": 36}


def jobs_of(count: int) -> list[tuple[str, UUID, str, float]]:
    """Of all that hold, in turns."""
    types = list(KEYS)
    return [(types[n % 4], USERS[n // 4 % len(USERS)], f"a{n // 4 % ACCOUNTS}", 0.0) for n in range(count)]


def test_the_records_tell_of_each_way_in_which_a_limit_can_be_passed() -> None:
    """A proof that cannot fail would prove nothing."""
    who = Who("alone", "u", "a")
    paced = Who("paced", "u", "a")
    runs = [Run(who, 1, 1, 7, 0, 100), Run(who, 2, 1, 8, 100, 200), Run(paced, 3, 1, 7, 0, 1)]
    changes = [
        Change(who, 1, 1, 1, 0, 5, "x"),
        Change(who, 1, 1, -1, 99, 101, "y"),
        Change(who, 2, 1, 1, 99, 101, "y"),
        Change(who, 2, 1, -1, 200, 201, "z"),
        Change(paced, 3, 1, 1, 0, 5, "x"),
    ]
    limits = {1: Limit("alone", at_once=1), 2: Limit("paced", per="user", starts=1, per_seconds=1.0)}
    starts = [Start("job_limits/2/u", 2, "x")]

    def says(runs: list[Run], changes: list[Change], starts: list[Start]) -> tuple[list[bool], int]:
        record = Record(changes, starts)
        exact = [one.is_exact for one in findings(limits, runs, record, 0)]
        return exact, len(disagreements(limits, runs, record))

    assert says(runs, changes, starts) == ([True, True], 0)
    assert says([*runs, Run(who, 4, 1, 9, 150, 160)], changes, starts) == ([False, True], 1), "two at once"
    assert says([runs[0], *runs], changes, starts) == ([False, True], 1), "one attempt, run twice"
    assert says(runs, [changes[0], changes[2], changes[1], *changes[3:]], starts)[0] == [False, True]
    early = [*starts, Start("job_limits/2/u", 1_000_001, "v")]
    assert says(runs, changes, early) == ([True, False], 1), "a microsecond too early, and of no claim"
    assert says(runs, changes, [Start("job_limits/2/u", 6, "x")]) == ([True, True], 1), "not in the claim"
    assert says(runs, changes[:4], starts) == ([True, True], 2), "a start and a run without a claim"
