"""One connection to the database and the temporary replication slot that lives and dies with it.

Reading consumes. The slot is temporary, as in production, so whatever breaks the connection, and any error in
any statement on it, loses all changes that were committed but not yet read, and nothing announces it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import asyncpg

from devstack.realtime.pgoutput import Change, Decoder, Kind, Relation

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

CLOSE_SECONDS: Final = 2.0
FLUSHED: Final = "select pg_catalog.pg_current_wal_flush_lsn() - '0/0'::pg_catalog.pg_lsn"
INSERTED: Final = "select pg_catalog.pg_current_wal_insert_lsn() - '0/0'::pg_catalog.pg_lsn"
READ: Final = """select data from pg_catalog.pg_logical_slot_get_binary_changes(
    $1, null, null, 'proto_version', '1', 'publication_names', $2)"""

# Every reading goes through the log again from the last mark of the running transactions, 1 ms for each MB here. The
# server writes one every 15 seconds, which a busy queue fills with tens of MB: a mark per half MB keeps readings short.
MARK: Final = "select pg_catalog.pg_log_standby_snapshot()"
MARK_BYTES: Final = 512 * 1024
MARKS_SINCE: Final = 16  # the major version that has this function


class SlotRefused(Exception):
    """The database is there and takes no slot: all are in use, or its log is not a logical one."""


class Slot:
    """Not safe for concurrent use: the owner holds a lock around every call.

    Only changes of `publication` that someone `wants` are read. `changed` is called when tables or rights may have
    changed: at every opening, and when the database says so (as it does to the REST side).
    """

    def __init__(
        self,
        dsn: str,
        publication: str,
        *,
        wants: Callable[[Kind, Relation], bool],
        changed: Callable[[], None],
    ) -> None:
        self._dsn = dsn
        self._publication = publication
        self._name = ""
        self._wants = wants
        self._changed = changed
        self._connection: Connection | None = None
        self._decoder = Decoder(wants)
        self._read_to = -1
        self.moved_at = 0.0
        """When the log was last seen to have grown, in the loop's time."""
        self._marked_at = 0

    async def open(self) -> Connection:
        """The connection, with its slot made if there is none; raises SlotRefused. Making one waits for the
        transactions that are writing in the whole server at that moment; changes committed before are not in it."""
        if self.is_open and self._connection is not None:
            return self._connection
        settings = {
            "application_name": "devstack realtime",
            "timezone": "UTC",
            "plan_cache_mode": "force_generic_plan",
        }
        connection = await asyncpg.connect(self._dsn, server_settings=settings)
        try:
            self._name = f"devstack_realtime_{uuid4().hex}"
            create = "select pg_catalog.pg_create_logical_replication_slot($1, 'pgoutput', true)"
            try:
                await connection.execute(create.replace("$1", f"'{self._name}'"))
            except (
                asyncpg.ConfigurationLimitExceededError,
                asyncpg.ObjectNotInPrerequisiteStateError,
            ) as error:
                raise SlotRefused(f"no replication slot can be made: {error}") from error
            await connection.add_listener("pgrst", self._on_notify)
        except BaseException:
            await self._give_back(connection)
            raise
        self._connection, self._decoder, self._read_to = connection, Decoder(self._wants), -1
        self._changed()
        return connection

    def _on_notify(self, *_: object) -> None:
        self._changed()

    async def read(self) -> list[Change]:
        """All wanted changes committed since the last reading, in commit order. Cheap when nothing was written."""
        connection = await self.open()
        flushed = int(await connection.fetchval(FLUSHED))
        if flushed == self._read_to:
            return []
        self.moved_at = asyncio.get_running_loop().time()
        messages = await connection.fetch(READ, self._name, self._publication)
        self._read_to = flushed  # what was flushed in the meantime is looked at again: no harm
        if flushed - self._marked_at > MARK_BYTES and connection.get_server_version().major >= MARKS_SINCE:
            await connection.execute(MARK)
            self._marked_at = flushed
        decoded = (self._decoder.feed(message["data"]) for message in messages)
        return [change for change in decoded if change is not None]

    @property
    def is_open(self) -> bool:
        """Whether there is a slot to read from."""
        return self._connection is not None and not self._connection.is_closed()

    async def close(self) -> None:
        """Drops the slot and the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await self._give_back(connection)

    async def _give_back(self, connection: Connection) -> None:
        """The slot goes first and by name: a database cannot be dropped while a slot in it is in use, and a closed
        connection lingers for a moment. A cancelled making of one may have made it all the same."""
        drop = "select pg_catalog.pg_drop_replication_slot(slot_name) from pg_catalog.pg_replication_slots"
        try:
            with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
                await connection.execute(f"{drop} where slot_name = '{self._name}'", timeout=CLOSE_SECONDS)
                await connection.close(timeout=CLOSE_SECONDS)
        finally:  # also when the giving back is cancelled
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
