"""Database connections of the REST side: a small pool whose members remember whom they speak for.

PostgREST opens a transaction per request and sets role, claims and request settings in it. Here these
settings live in the session instead and are only sent when they differ from what the connection already
has; a statement then is a transaction of its own. A worker that calls with one key over and over so needs
one round trip per call, with the same rights, settings and visibility.

Race: a connection is used by one request at a time; what it has been told (`told`) is written down only
after PostgreSQL accepted it, and a failed `settle` rolls back as a whole.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import asyncpg

from devstack.rest.errors import RestError, database_away

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

POOL_SIZE: Final = 10
POOL_WAIT_SECONDS: Final = 10.0
SETTLE: Final = """
    select pg_catalog.set_config(name, value, false)
    from unnest($1::text[], $2::text[]) as settings (name, value)
"""
SESSION: Final = {"application_name": "devstack rest", "search_path": '"public", "public", "extensions"'}


@dataclass(slots=True)
class Session:
    """One connection and what it has been told about the current request."""

    connection: Connection
    told: dict[str, str] = field(default_factory=dict[str, str])

    async def settle(self, settings: Mapping[str, str]) -> None:
        """Makes the connection speak under these settings; no round trip when nothing differs."""
        news = {name: value for name, value in settings.items() if self.told.get(name) != value}
        if news:
            await self.connection.fetch(SETTLE, list(news), list(news.values()))
            self.told |= news


class Sessions:
    """The pool. Connections are opened on demand and kept; broken ones are dropped when seen."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._idle: list[Session] = []
        self._slots = asyncio.Semaphore(POOL_SIZE)

    async def connect(self) -> Connection:
        """A new connection with the settings of every session; PGRST002 when there is no database."""
        try:
            return await asyncpg.connect(self._dsn, server_settings=SESSION)
        except (OSError, asyncpg.CannotConnectNowError, asyncpg.ConnectionDoesNotExistError) as error:
            raise database_away() from error

    @contextlib.asynccontextmanager
    async def session(self, settings: Mapping[str, str]) -> AsyncGenerator[Session]:
        """A settled session for one request; PGRST003 when none becomes free in ten seconds."""
        try:
            async with asyncio.timeout(POOL_WAIT_SECONDS):
                await self._slots.acquire()
        except TimeoutError:
            message = "Timed out acquiring connection from connection pool."
            raise RestError(504, "PGRST003", message) from None
        try:
            session = self._take(settings) or Session(await self.connect())
            try:
                await session.settle(settings)
                yield session
            except asyncio.CancelledError:
                session.connection.terminate()  # a statement may still be running in it
                raise
            finally:
                if not session.connection.is_closed():
                    self._idle.append(session)
        finally:
            self._slots.release()

    async def close(self) -> None:
        """Closes all idle connections; call when no request is under way."""
        idle, self._idle = self._idle, []
        for session in idle:
            await session.connection.close()

    def _take(self, settings: Mapping[str, str]) -> Session | None:
        self._idle = [session for session in self._idle if not session.connection.is_closed()]
        for at in range(len(self._idle) - 1, -1, -1):
            if self._idle[at].told.items() >= settings.items():
                return self._idle.pop(at)
        return self._idle.pop() if self._idle else None
