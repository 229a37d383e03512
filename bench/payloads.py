"""`python -m bench.payloads`: what judging payloads costs an INSERT statement, with a schema of the type and without.

Three kinds of blocks take turns on one table, in random order: no trigger at all, the trigger and no schema for the
type, and the trigger and the schema of `notify`, whose payload has ten fields. Told are the medians over all turns.
"""

import argparse
import asyncio
import json
import random
import statistics
import time
from typing import TypeAlias

import asyncpg

from bench.stack import running_database

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_WARM_UP = 5
_KINDS = ("no trigger", "no schema", "a schema")
_DATA = json.dumps(
    {
        "userId": "7b0e5c1e-9d9b-4d0e-8a52-0d0b9a7f0c11",
        "alertType": "order_filled",
        "title": "x" * 40,
        "message": "x" * 80,
        "severity": "info",
        "metadata": {"symbol": "AAPL"},
    }
)
_TEXT = {"type": "string", "minLength": 1, "maxLength": 200}
_ID = {"type": ["string", "null"], "format": "uuid"}
_SCHEMA = {
    "type": "object",
    "properties": {
        "delivery_id": _ID,
        "user_id": _ID,
        "audience": {"type": "string", "enum": ["user", "operators"]},
        "alert_type": _TEXT,
        "title": _TEXT,
        "message": {"type": "string"},
        "severity": {"type": "string", "enum": ["info", "warning", "error", "critical"]},
        "metadata": {"type": "object"},
        "alert_id": _ID,
        "dedupe_key": _TEXT,
    },
    "x-spellings": {"user_id": "userId", "alert_type": "alertType"},
    "additionalProperties": False,
}


async def _measure(turns: int, statements: int, rows: int) -> dict[str, list[float]]:
    """Milliseconds for a statement: the median of each block, by kind."""
    taken: dict[str, list[float]] = {kind: [] for kind in _KINDS}
    schemas = json.dumps([{"queue": "alerts", "type": "notify", "schema": _SCHEMA}])
    async with running_database() as dsn:
        connection = await asyncpg.connect(dsn)
        try:
            await connection.execute("select publish_schemas($1)", schemas)
            for _ in range(turns):
                for kind in random.sample(_KINDS, len(_KINDS)):
                    able = "disable" if kind == "no trigger" else "enable"
                    await connection.execute(f"alter table jobs_alerts {able} trigger check_payloads")
                    type_ = "notify" if kind == "a schema" else "other"
                    taken[kind].append(await _block(connection, type_, statements, rows))
                    await connection.execute("truncate jobs")
        finally:
            await connection.close()
    return taken


async def _block(connection: Connection, type_: str, statements: int, rows: int) -> float:
    insert = await connection.prepare(
        f"insert into alerts_jobs (type, data) select '{type_}', $1::jsonb from generate_series(1, {rows})"
    )
    took: list[float] = []
    for _ in range(statements + _WARM_UP):
        began = time.perf_counter()
        await insert.fetch(_DATA)
        took.append((time.perf_counter() - began) * 1000)
    return statistics.median(took[_WARM_UP:])


def _told(rows: int, taken: dict[str, list[float]]) -> str:
    bare = taken["no trigger"]
    words = [f"{rows:>5} row(s): no trigger {statistics.median(bare):.3f} ms"]
    for kind in _KINDS[1:]:
        ratio = statistics.median(after / before for before, after in zip(bare, taken[kind], strict=True))
        words.append(f"{kind} {statistics.median(taken[kind]):.3f} ms ({ratio:.2f} times)")
    return "; ".join(words)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m bench.payloads", description=__doc__)
    parser.add_argument("--turns", type=int, default=20, help="turns of all three (default: 20)")
    parser.add_argument("--statements", type=int, default=50, help="INSERTs in a block (default: 50)")
    arguments = parser.parse_args()
    for rows in (1, 100):
        taken = asyncio.run(_measure(arguments.turns, arguments.statements, rows))
        print(_told(rows, taken), flush=True)


if __name__ == "__main__":
    main()
