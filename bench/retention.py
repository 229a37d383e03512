"""`python -m bench.retention`: what claims feel of a prune that throws a million finished jobs away.

Claims go on alone first, then beside a session that only computes (which takes a core and locks nothing), then beside
a prune that never pauses, which is worse than the handler of `prune` does it. Compare the lines, not two days.
"""

import argparse
import asyncio
import itertools
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

import asyncpg

from bench.stack import running_database

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
JOBS = 10
_QUEUES = ("payment", "broker", "alerts", "maintenance")
_FILL = """
    insert into jobs (queue, type, status, data, attempt, run_at, created_at, updated_at, finished_at)
    select $1, 'old', 'completed', jsonb_build_object('n', n), 1,
        now() - interval '9 days', now() - interval '9 days', now() - interval '8 days', now() - interval '8 days'
    from generate_series(1, $2) as n
"""


@dataclass(frozen=True, slots=True)
class Latencies:
    """Of calls, in milliseconds."""

    all: Sequence[float]

    def told(self, whose: str) -> str:
        """A line for a person."""
        return (
            f"{whose:<24}{len(self.all):>7} calls   p50 {self.at(50):6.2f} ms   p99 {self.at(99):6.2f} ms"
            f"   longest {max(self.all):7.2f} ms"
        )

    def at(self, percent: int) -> float:
        return statistics.quantiles(self.all, n=100)[percent - 1]


async def main(rows: int, seconds: float, step: int) -> None:
    async with running_database() as dsn:
        owner = await asyncpg.connect(dsn)
        for queue in _QUEUES:
            await owner.execute(_FILL, queue, rows // len(_QUEUES))
        await owner.execute("vacuum analyze jobs")
        until = time.monotonic() + seconds
        alone = await _claims(dsn, lambda: time.monotonic() < until)
        print(alone.told("claims alone"))
        computing = asyncio.create_task(_compute(owner, seconds))
        busy = await _claims(dsn, lambda: not computing.done())
        await computing
        print(busy.told("claims beside a sum"))
        pruning = asyncio.create_task(_prune(owner, step))
        beside = await _claims(dsn, lambda: not pruning.done())
        steps = await pruning
        print(beside.told("claims beside prune"))
        print(steps.told(f"prune, {step} at once"))
        took = sum(steps.all) / 1000
        print(f"{rows:,} rows gone in {took:.1f} s, {rows / took:,.0f} a second")
        print(
            f"at p99 claims beside prune take {beside.at(99) / alone.at(99):.2f} times as long as alone,"
            f" and {beside.at(99) / busy.at(99):.2f} times as long as beside a sum"
        )
        await owner.close()


async def _claims(dsn: str, goes_on: Callable[[], bool]) -> Latencies:
    """Producer and worker in one: jobs come, are claimed and finished."""
    connection = await asyncpg.connect(dsn)
    found: list[float] = []
    floors: dict[str, str] = {}
    for queue in itertools.cycle(_QUEUES):
        if not goes_on():
            break
        await connection.execute(
            f"insert into {queue}_jobs (type) select 'new' from generate_series(1, {JOBS})"
        )
        began = time.perf_counter()
        text = await connection.fetchval(
            "select claim($1, '{new}', $2, 60, 'bench', 'realtime', $3, false, null)",
            queue,
            JOBS,
            floors.get(queue),
        )
        found.append((time.perf_counter() - began) * 1000)
        said = cast("dict[str, object]", json.loads(text))
        floors[queue] = json.dumps(said["floor"])
        jobs = cast("list[dict[str, object]]", said["jobs"])
        outcomes = [
            {"queue": queue, "id": job["id"], "attempt": job["attempt"], "kind": "completed"} for job in jobs
        ]
        await connection.execute("select finish($1, null)", json.dumps(outcomes))
    await connection.close()
    return Latencies(found)


async def _compute(owner: Connection, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        await owner.fetchval("select sum(n) from generate_series(1, 50000) as n")


async def _prune(owner: Connection, step: int) -> Latencies:
    """Call after call, until nothing is left."""
    found: list[float] = []
    while True:
        began = time.perf_counter()
        text = await owner.fetchval("select prune(7, 90, $1)", step)
        found.append((time.perf_counter() - began) * 1000)
        if not json.loads(text)["more"]:
            return Latencies(found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="finished jobs (default: a million)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of claims alone (default: 20)")
    parser.add_argument("--step", type=int, default=1000, help="rows of a call of prune")
    given = parser.parse_args()
    asyncio.run(main(given.rows, given.seconds, given.step))
