"""One connection to the database and the temporary replication slot that lives and dies with it.

Reading consumes. The slot is temporary, as in production, so whatever breaks the connection, and any error in
any statement on it, loses all changes that were committed but not yet read, and nothing announces it.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import asyncpg

from devstack.bindings import PUBLICATION
from devstack.pgoutput import Change, Decoder

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

CLOSE_SECONDS: Final = 2.0
FLUSHED: Final = "select pg_catalog.pg_current_wal_flush_lsn() - '0/0'::pg_catalog.pg_lsn"
INSERTED: Final = "select pg_catalog.pg_current_wal_insert_lsn() - '0/0'::pg_catalog.pg_lsn"
READ: Final = """select data from pg_catalog.pg_logical_slot_get_binary_changes(
    $1, null, null, 'proto_version', '1', 'publication_names', $2)"""


class Slot:
    """Not safe for concurrent use: the owner holds a lock around every call."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._name = ""
        self._connection: Connection | None = None
        self._decoder = Decoder()
        self._read_to = -1

    async def open(self) -> Connection:
        """The connection, with its slot made if there is none. Making one waits for the transactions that are
        writing in the whole server at that moment; changes committed before are not in it."""
        if self._connection is not None and not self._connection.is_closed():
            return self._connection
        settings = {"application_name": "devstack realtime", "timezone": "UTC"}
        connection = await asyncpg.connect(self._dsn, server_settings=settings)
        try:
            self._name = f"devstack_realtime_{uuid4().hex}"
            create = "select pg_catalog.pg_create_logical_replication_slot($1, 'pgoutput', true)"
            await connection.execute(create.replace("$1", f"'{self._name}'"))
        except BaseException:
            connection.terminate()
            raise
        self._connection, self._decoder, self._read_to = connection, Decoder(), -1
        return connection

    async def read(self) -> list[Change]:
        """All changes committed since the last reading, in commit order. Cheap when nothing was written."""
        connection = await self.open()
        flushed = int(await connection.fetchval(FLUSHED))
        if flushed == self._read_to:
            return []
        messages = await connection.fetch(READ, self._name, PUBLICATION)
        self._read_to = flushed  # what was flushed in the meantime is looked at again: no harm
        decoded = (self._decoder.feed(message["data"]) for message in messages)
        return [change for change in decoded if change is not None]

    async def close(self) -> None:
        """Drops the slot and the connection. The slot goes first and by name: a database cannot be dropped
        while a slot in it is in use, and a closed connection lingers for a moment."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
            await connection.execute(
                f"select pg_catalog.pg_drop_replication_slot('{self._name}')", timeout=CLOSE_SECONDS
            )
            await connection.close(timeout=CLOSE_SECONDS)
        connection.terminate()


async def position(connection: Connection) -> int:
    """Where the log ends now: a transaction that commits later has a `commit_lsn` at or after it."""
    return int(await connection.fetchval(INSERTED))


@contextlib.asynccontextmanager
async def acting_as(connection: Connection, role: str, claims: str) -> AsyncIterator[None]:
    """Runs the block as an API role with its claims, as PostgREST and Realtime do; nothing it writes stays."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute(
            "select pg_catalog.set_config('role', $1, true), "
            "pg_catalog.set_config('request.jwt.claims', $2, true)",
            role,
            claims,
        )
        yield
    finally:
        await transaction.rollback()
