"""The daily partitions of realtime.messages, which Realtime makes when it connects and then every day.

A message for which there is no partition vanishes with a warning, on the real thing as here.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

import asyncpg

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]

KNOWN: Final = "select pg_catalog.to_regprocedure('_realtime.make_partitions()') is not null"


async def ensure(connection: Connection) -> None:
    """Makes those from yesterday to three days ahead that are missing; as a superuser."""
    if await connection.fetchval(KNOWN):
        with contextlib.suppress(
            asyncpg.DuplicateTableError, asyncpg.UniqueViolationError
        ):  # made by another
            await connection.execute("select _realtime.make_partitions()")
