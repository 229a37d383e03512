"""`python -m bench.history`: what a long history and a long backlog cost those who claim and those who look.

Two databases, one almost empty, one with finished and pending jobs by the million, are asked the same in turns, so that
whatever else the machine does weighs on both alike. Told are the lower quartiles, which say what a call takes when
little stands in its way, and how many times the one takes the other.
"""

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import TypeAlias, cast

import asyncpg

from bench.stack import running_database

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Ask: TypeAlias = Callable[[Connection], Awaitable[object]]

_BATCH = 10
_TYPES = "array['email', 'report', 'renewal', 'sync', 'webhook']"
_FINISHED = f"""
    insert into jobs_payment (
        type, data, status, attempt, last_outcome, last_error, worker_id, run_at, created_at, updated_at, finished_at
    )
    select
        ({_TYPES})[1 + n % 5], jsonb_build_object('padding', repeat('x', 180)),
        case when n % 100 = 0 then 'failed' else 'completed' end, 1,
        case when n % 100 = 0 then 'dead' else 'completed' end,
        case when n % 100 = 0 then 'Broken: it broke' end, 'worker-' || n % 7, at, at, at, at
    from generate_series(1, $1::integer) as n, lateral (select now() - make_interval(secs => $1 - n) as at) as t
"""
_LETTERS = """
    insert into failed_jobs (job_id, job_type, job_data, error_class, error_message, attempts, attempt, failed_at)
    select id, queue, jsonb_build_object('type', type, 'data', data), 'Broken', 'it broke', 1, 1, finished_at
    from jobs_payment where status = 'failed'
"""
_PENDING = f"""
    insert into jobs_payment (type, data, priority, user_id)
    select
        ({_TYPES})[1 + n % 5], jsonb_build_object('padding', repeat('x', 180)), n % 3,
        case when n % 2 = 0 then gen_random_uuid() end
    from generate_series(1, $1::integer) as n
"""


async def _fill(dsn: str, finished: int, pending: int) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        for statement, count in ((_FINISHED, finished), (_PENDING, pending)):
            if count:
                await connection.execute(statement, count, timeout=1200)
        await connection.execute(_LETTERS, timeout=600)
        await connection.execute("vacuum analyze jobs_payment", timeout=600)
        await connection.execute("vacuum analyze failed_jobs", timeout=600)
    finally:
        await connection.close()


async def _claim(connection: Connection) -> object:
    """Measured is the claim alone; what it takes was put at the head of the line before."""
    return await connection.fetchval(
        f"select claim('payment', array_cat({_TYPES}, '{{urgent}}'), {_BATCH}, 60, 'bench', 'sweep')"
    )


async def _before_claim(connection: Connection) -> None:
    await connection.execute(
        f"insert into payment_jobs (type, priority) select 'urgent', 100 from generate_series(1, {_BATCH})"
    )


async def _after_claim(connection: Connection, said: object) -> None:
    jobs = cast("list[dict[str, object]]", json.loads(cast("str", said))["jobs"])
    assert len(jobs) == _BATCH
    outcomes = [
        {"queue": "payment", "id": job["id"], "attempt": job["attempt"], "kind": "completed"} for job in jobs
    ]
    await connection.fetchval("select finish($1::jsonb)", json.dumps(outcomes))


def _asks(statement: str) -> Ask:
    async def ask(connection: Connection) -> object:
        return await connection.fetchval(f"select {statement}")

    return ask


async def _measure(finished: int, pending: int, rounds: int) -> Mapping[str, tuple[float, float]]:
    async with AsyncExitStack() as stack:
        places = [await stack.enter_async_context(running_database()) for _ in range(2)]
        _say(f"filling one with {finished:,} finished and {pending:,} pending jobs …")
        began = time.perf_counter()
        await _fill(places[0], 0, 50)
        await _fill(places[1], finished, pending)
        _say(f"filled in {time.perf_counter() - began:.0f} s")
        connections = [await asyncpg.connect(dsn) for dsn in places]
        for one in connections:
            stack.push_async_callback(one.close)
            await one.execute("set role service_role")
        figures: dict[str, tuple[float, float]] = {}
        newest = [
            await one.fetchval("select max(id) from jobs where status = 'pending'") for one in connections
        ]
        for name, asks in {
            "jobs": (_asks("list_jobs()"),) * 2,
            "jobs --queue payment": (_asks("list_jobs('payment')"),) * 2,
            "jobs --status pending": (_asks("list_jobs(status => 'pending')"),) * 2,
            "jobs --status running": (_asks("list_jobs(status => 'running')"),) * 2,
            "stats": (_asks("queue_stats()"),) * 2,
            "show": tuple(_asks(f"job_history({id_})") for id_ in newest),
            "why": tuple(_asks(f"why({id_})") for id_ in newest),
            "claim of 10": (_claim, _claim),
        }.items():
            took: tuple[list[float], list[float]] = ([], [])
            for turn in range(rounds + 10):
                for place in (0, 1) if turn % 2 else (1, 0):
                    spent = await _once(connections[place], asks[place])
                    if turn >= 10:  # the first ones warm up
                        took[place].append(spent)
            figures[name] = (_lower(took[0]), _lower(took[1]))
        return figures


async def _once(connection: Connection, ask: Ask) -> float:
    if ask is _claim:
        await _before_claim(connection)
    began = time.perf_counter()
    said = await ask(connection)
    spent = (time.perf_counter() - began) * 1000
    if ask is _claim:
        await _after_claim(connection, said)
    return spent


def _lower(taken: list[float]) -> float:
    return statistics.quantiles(taken, n=4)[0]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m bench.history", description=__doc__)
    parser.add_argument("--finished", type=int, default=1_000_000, help="finished jobs (default: 1000000)")
    parser.add_argument("--pending", type=int, default=100_000, help="pending jobs (default: 100000)")
    parser.add_argument("--rounds", type=int, default=200, help="of each question (default: 200)")
    arguments = parser.parse_args()
    figures = asyncio.run(_measure(arguments.finished, arguments.pending, arguments.rounds))
    print(f"{'':<24}{'empty, ms':>12}{'full, ms':>12}{'times':>8}")
    for name, (empty, full) in figures.items():
        print(f"{name:<24}{empty:>12.3f}{full:>12.3f}{full / empty:>8.2f}")


if __name__ == "__main__":
    main()
