"""`./dev bench`: jobs per second over REST, calls per job, latency and CPU, each beside a raw-SQL run of the same work.

Absolute figures belong to one machine in one minute: compare the two columns, not two days.
"""

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TypeAlias, cast

import asyncpg
from supabase import AsyncClient, acreate_client

from bench.stack import Stack, running_stack, running_worker
from devstack.keys import LOCAL

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_BATCH = 100
_PADDING = "x" * 180
"""With its key and braces a payload of about 200 bytes."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured. None where raw SQL has nothing to compare."""

    jobs: int
    rest_jobs_per_second: float
    sql_jobs_per_second: float
    calls_per_job: float
    worker_cpu_seconds_per_1000_jobs: float
    latency_ms_p50: float
    latency_ms_p95: float
    latency_ms_p99: float
    sql_latency_ms_p50: float
    idle_worker_megabytes: float | None
    start_to_ready_seconds: float


async def _measure(jobs: int, pings: int, places: int) -> Figures:
    async with running_stack() as stack:
        connection = await asyncpg.connect(stack.dsn)
        try:
            _say(f"draining {jobs} jobs by raw SQL …")
            sql_rate = await _drain_by_sql(connection, jobs)
            began = time.perf_counter()
            async with running_worker(stack, places) as worker:
                ready_after = time.perf_counter() - began
                memory = worker.resident_megabytes()
                _say(f"draining {jobs} jobs by a worker over REST …")
                before = await worker.health()
                rest_rate = await _drain_by_worker(connection, jobs)
                after = await worker.health()
                _say(f"sending {pings} single jobs …")
                latencies = await _ping(stack, connection, pings)
            _say("the same by raw SQL …")
            sql_latencies = await _ping_by_sql(connection, pings)
        finally:
            await connection.close()
    cuts = statistics.quantiles(latencies, n=100)
    return Figures(
        jobs=jobs,
        rest_jobs_per_second=rest_rate,
        sql_jobs_per_second=sql_rate,
        calls_per_job=(after.calls - before.calls) / jobs,
        worker_cpu_seconds_per_1000_jobs=(after.cpu_seconds - before.cpu_seconds) / jobs * 1000,
        latency_ms_p50=cuts[49],
        latency_ms_p95=cuts[94],
        latency_ms_p99=cuts[98],
        sql_latency_ms_p50=statistics.median(sql_latencies),
        idle_worker_megabytes=memory,
        start_to_ready_seconds=ready_after,
    )


async def _fill(connection: Connection, jobs: int, due_in: float) -> None:
    await connection.execute(
        "insert into maintenance_jobs (type, data, run_at)"
        " select 'noop', jsonb_build_object('padding', $1::text), now() + make_interval(secs => $2)"
        " from generate_series(1, $3)",
        _PADDING,
        due_in,
        jobs,
    )
    await connection.execute("analyze maintenance_jobs")


async def _drain_by_sql(connection: Connection, jobs: int) -> float:
    """The least that a queue must do on this table: lease a hundred rows, then mark them done."""
    await _fill(connection, jobs, 0)
    claim = await connection.prepare(
        "with due as (select id from maintenance_jobs where status = 'pending' and lane is null and run_at <= now()"
        " order by priority desc, run_at, id limit $1 for update skip locked)"
        " update maintenance_jobs as j set status = 'running', attempt = attempt + 1,"
        " lease_expires_at = now() + interval '1 minute' from due where j.id = due.id returning j.id, j.data"
    )
    finish = await connection.prepare(
        "update maintenance_jobs set status = 'completed', lease_expires_at = null, finished_at = now()"
        " where id = any($1)"
    )
    began = time.perf_counter()
    while rows := await claim.fetch(_BATCH):
        await finish.fetch([row["id"] for row in rows])
    return jobs / (time.perf_counter() - began)


async def _drain_by_worker(connection: Connection, jobs: int) -> float:
    """All rows become due at one moment, with the worker up: from then until the last is recorded."""
    due_in = 1.0 + jobs / 50_000
    await _fill(connection, jobs, due_in)
    await _until_idle(connection)
    seconds = await connection.fetchval(
        "select extract(epoch from max(finished_at) - min(run_at))::float8 from maintenance_jobs where type = 'noop'"
        " and id in (select id from maintenance_jobs where type = 'noop' order by id desc limit $1)",
        jobs,
    )
    return jobs / cast("float", seconds)


async def _until_idle(connection: Connection) -> None:
    """Looks twenty times a second, so that the looking is no load of its own."""
    busy = "select exists (select from maintenance_jobs where status in ('pending', 'running'))"
    while await connection.fetchval(busy):  # noqa: ASYNC110 - there is no event: the database is asked
        await asyncio.sleep(0.05)


async def _ping(stack: Stack, connection: Connection, pings: int) -> list[float]:
    """Single inserts by the official client, one by one: from just before each to its handler's first line."""
    client: AsyncClient = await acreate_client(stack.url, LOCAL.secret)
    table = client.table("maintenance_jobs")
    for _ in range(pings):
        await table.insert({"type": "ping", "data": {"sent_at": time.time()}}).execute()
        await asyncio.sleep(0.02)
    await _until_idle(connection)
    rows = await connection.fetch(
        "select (result ->> 'milliseconds')::float8 as ms from jobs where type = 'ping'"
    )
    return [row["ms"] for row in rows]


async def _ping_by_sql(connection: Connection, pings: int) -> list[float]:
    """One insert and one claim of it, on one direct connection: the floor under any latency."""
    took: list[float] = []
    for _ in range(pings):
        began = time.perf_counter()
        id_ = await connection.fetchval("insert into maintenance_jobs (type) values ('raw') returning id")
        await connection.fetchval(
            "update maintenance_jobs set status = 'running', lease_expires_at = now() where id = $1 returning id",
            id_,
        )
        took.append((time.perf_counter() - began) * 1000)
    return took


def _table(figures: Figures) -> str:
    memory = figures.idle_worker_megabytes
    rows: Sequence[tuple[str, str, str]] = [
        ("", "worker over REST", "raw SQL"),
        ("jobs per second", f"{figures.rest_jobs_per_second:,.0f}", f"{figures.sql_jobs_per_second:,.0f}"),
        ("share of raw SQL", f"{figures.rest_jobs_per_second / figures.sql_jobs_per_second:.2f}", "1"),
        ("calls per job", f"{figures.calls_per_job:.4f}", f"{2 / _BATCH:.4f}"),
        ("worker CPU s per 1,000 jobs", f"{figures.worker_cpu_seconds_per_1000_jobs:.3f}", ""),
        ("insert to handler, p50 ms", f"{figures.latency_ms_p50:.1f}", f"{figures.sql_latency_ms_p50:.1f}"),
        ("insert to handler, p95 ms", f"{figures.latency_ms_p95:.1f}", ""),
        ("insert to handler, p99 ms", f"{figures.latency_ms_p99:.1f}", ""),
        ("idle worker, MB", "unknown" if memory is None else f"{memory:.0f}", ""),
        ("process start to hearing, s", f"{figures.start_to_ready_seconds:.2f}", ""),
    ]
    return "\n".join(f"{name:<30}{rest:>18}{sql:>12}" for name, rest, sql in rows)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000, help="backlog to drain (default: 10000)")
    parser.add_argument("--pings", type=int, default=200, help="single jobs for the latency (default: 200)")
    parser.add_argument("--places", type=int, default=100, help="the worker's --concurrency (default: 100)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    figures = asyncio.run(_measure(arguments.jobs, arguments.pings, arguments.places))
    print(json.dumps(asdict(figures), indent=2) if arguments.json else _table(figures))


if __name__ == "__main__":
    main()
