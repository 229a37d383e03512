"""`python -m bench.announcing`: what announcing by broadcast costs an INSERT statement.

Blocks of plain INSERTs with and without announcing take turns on one table, in pairs of random order, so that whatever
else the machine does weighs on both alike. Told are the medians over all pairs.
"""

import argparse
import asyncio
import random
import statistics
import time
from collections.abc import Sequence
from typing import TypeAlias

import asyncpg

from bench.stack import running_database

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_WARM_UP = 5
_PADDING = "x" * 200


async def _measure(pairs: int, statements: int, rows: int) -> tuple[list[float], list[float]]:
    """Milliseconds for a statement, without and with announcing: the median of each block."""
    taken: dict[bool, list[float]] = {False: [], True: []}
    async with running_database() as dsn:
        connection = await asyncpg.connect(dsn)
        try:
            for _ in range(pairs):
                for announced in random.sample([False, True], 2):
                    await connection.execute("select announce_by_broadcast($1)", announced)
                    taken[announced].append(await _block(connection, statements, rows))
                    await connection.execute("truncate jobs")
            sent = await connection.fetchval("select count(*) from realtime.messages")
            assert sent == pairs * (statements + _WARM_UP), "each statement is announced once"
        finally:
            await connection.close()
    return taken[False], taken[True]


async def _block(connection: Connection, statements: int, rows: int) -> float:
    insert = await connection.prepare(
        "insert into payment_jobs (type, data) select 'noop', jsonb_build_object('padding', $1::text)"
        f" from generate_series(1, {rows})"
    )
    took: list[float] = []
    for _ in range(statements + _WARM_UP):
        began = time.perf_counter()
        await insert.fetch(_PADDING)
        took.append((time.perf_counter() - began) * 1000)
    return statistics.median(took[_WARM_UP:])


def _told(rows: int, without: Sequence[float], announced: Sequence[float]) -> str:
    ratios = [after / before for before, after in zip(without, announced, strict=True)]
    more = [after - before for before, after in zip(without, announced, strict=True)]
    low, middle, high = statistics.quantiles(more, n=4)
    return (
        f"{rows:>5} row(s): {statistics.median(without):.3f} ms, announced {statistics.median(announced):.3f} ms;"
        f" {statistics.median(ratios):.2f} times, {middle:+.3f} ms (quartiles {low:+.3f} … {high:+.3f})"
    )


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m bench.announcing", description=__doc__)
    parser.add_argument("--pairs", type=int, default=40, help="pairs of blocks (default: 40)")
    parser.add_argument("--statements", type=int, default=50, help="INSERTs in a block (default: 50)")
    arguments = parser.parse_args()
    for rows in (1, 100):
        without, announced = asyncio.run(_measure(arguments.pairs, arguments.statements, rows))
        print(_told(rows, without, announced), flush=True)


if __name__ == "__main__":
    main()
