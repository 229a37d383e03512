"""The few connections with which Realtime asks the database about private channels and old messages."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Final

import asyncpg

from devstack.realtime import partitions

if TYPE_CHECKING:
    Connection = asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
    Pool = asyncpg.Pool[asyncpg.Record]

CONNECTIONS: Final = 4
UNUSED_SECONDS: Final = 10.0
CLOSE_SECONDS: Final = 2.0
SETTINGS: Final = {"application_name": "devstack realtime", "timezone": "UTC", "statement_timeout": "15s"}


class Database:
    """Connects when it is first asked and lets go when it is not used; `dsn` is a superuser's."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._pool: Pool | None = None
        self._prepared_on: date | None = None

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection for the block, with today's partition of realtime.messages there."""
        if self._pool is None:
            # Connects nobody and so does not wait either: no two are made at once.
            self._pool = await asyncpg.create_pool(
                self._dsn,
                min_size=0,
                max_size=CONNECTIONS,
                max_inactive_connection_lifetime=UNUSED_SECONDS,
                server_settings=SETTINGS,
            )
        async with self._pool.acquire() as connection:
            today = datetime.now(UTC).date()
            if self._prepared_on != today:
                await partitions.ensure(connection)
                self._prepared_on = today
            yield connection

    async def close(self) -> None:
        """Closes every connection; may be repeated."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await pool.close()
        except TimeoutError:
            pool.terminate()
