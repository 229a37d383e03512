"""Messages that the database itself broadcasts: rows of realtime.messages, read from the log and kept for replay.

A reader of its own, apart from that of the changes as in production: neither's failure loses anything of the
other's. What was committed while the slot was not there is not delivered, and nobody is told.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, cast

import asyncpg

from devstack.realtime import partitions
from devstack.realtime.broadcasts import Event
from devstack.realtime.database import Database
from devstack.realtime.faults import RealtimeFaults
from devstack.realtime.joining import PREFIX, Replay
from devstack.realtime.pgoutput import Change, Kind, Relation
from devstack.realtime.refusals import Refused
from devstack.realtime.rooms import Rooms
from devstack.realtime.sizes import too_large
from devstack.realtime.slot import Slot

LOG: Final = logging.getLogger("devstack.realtime.server")
PUBLICATION: Final = "supabase_realtime_messages_publication"
LOOK_SECONDS: Final = 0.02  # between two looks at the log's end; production streams
QUIET_SECONDS: Final = 1.0  # after which they are
QUIET_LOOK_SECONDS: Final = (
    0.1  # apart, so that idling costs next to nothing; what came by REST is heard at once
)
UNUSED_SECONDS: Final = 10.0  # after which a slot without listeners is given up
FIRST_BACKOFF_SECONDS: Final = 0.1
LONGEST_BACKOFF_SECONDS: Final = 5.0
MOST_REPLAYED: Final = 25
REPLAY: Final = """
    select id::text, event, payload::text, binary_payload from realtime.messages
    where topic = $1 and private and extension = 'broadcast' and inserted_at >= $2 and inserted_at < $3
    order by inserted_at desc limit $4
"""


class Messages:
    """`run` for as long as the server lives; it reads while somebody is in one of the `rooms`.

    `connected` is set while what is committed will be delivered.
    """

    def __init__(self, dsn: str, rooms: Rooms, faults: RealtimeFaults) -> None:
        self._slot = Slot(dsn, PUBLICATION, wants=_wants, changed=lambda: None)
        self._rooms = rooms
        self._faults = faults
        self._woken = asyncio.Event()
        self._poked = asyncio.Event()
        self.connected = asyncio.Event()

    def wake(self) -> None:
        """Somebody is about to listen."""
        self._woken.set()

    def poke(self) -> None:
        """Something was committed: look now."""
        self._poked.set()

    async def close(self) -> None:
        """Drops the slot for good; `run` must have ended."""
        await self._slot.close()

    async def run(self) -> None:
        """Reads and hands out until cancelled."""
        failures = 0
        while True:
            await self._woken.wait()
            try:
                await self._connect()
                failures = 0
                await self._read_on()
            except Exception as error:  # noqa: BLE001 - whatever it was, production loses the slot and goes on
                LOG.error(
                    "reading messages failed, what was pending is lost: %s: %s", type(error).__name__, error
                )
                failures += 1
                self.connected.clear()
                await self._slot.close()
                await asyncio.sleep(min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2 ** (failures - 1)))

    async def _connect(self) -> None:
        connection = await self._slot.open()
        await partitions.ensure(connection)
        self.connected.set()

    async def _read_on(self) -> None:
        """Reads until nobody has listened for a while; then gives the slot up."""
        loop = asyncio.get_running_loop()
        unused_since = quiet_since = loop.time()
        while True:
            if self._rooms:
                unused_since = loop.time()
            elif loop.time() - unused_since > UNUSED_SECONDS:
                self._woken.clear()
                self.connected.clear()
                await self._slot.close()
                return
            changes = await self._slot.read()
            for change in changes:
                self._hand_out_or_not(change)
            if changes:
                quiet_since = loop.time()
            quiet = loop.time() - quiet_since > QUIET_SECONDS
            await self._pause(QUIET_LOOK_SECONDS if quiet else LOOK_SECONDS)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._poked.wait()
        except TimeoutError:
            pass
        self._poked.clear()

    def _hand_out_or_not(self, change: Change) -> None:
        if self._faults.deaf or self._faults.lose_event():
            return
        if self._faults.late_event():
            asyncio.get_running_loop().call_later(self._faults.late_seconds, self._hand_out, change)
            return
        self._hand_out(change)
        if self._faults.double_event():
            self._hand_out(change)

    def _hand_out(self, change: Change) -> None:
        row = _row(change)
        topic, event, private = row.get("topic"), row.get("event"), row.get("private")
        payload, binary = row.get("payload"), row.get("binary_payload")
        if topic is None or event is None or private is None or (payload is None and binary is None):
            LOG.warning("a message without topic, event, private or payload is not delivered")
            return
        is_json = binary is None
        body = (payload or "").encode() if binary is None else bytes.fromhex(binary.removeprefix("\\x"))
        if too_large(body):
            LOG.error("a message on %s is over the limit and is not delivered", topic)
            return
        if self._rooms.meter.full():
            LOG.warning("too many messages per second, one on %s is passed over", topic)
            return
        self._rooms.meter.count()
        message = Event(event, body, is_json, row["id"])
        self._rooms.broadcast(PREFIX + topic, message, private=private == "t")


async def kept(database: Database, topic: str, asked: Replay) -> list[Event]:
    """The messages to replay on a private topic (without its prefix), oldest first; raises Refused."""
    since, limit = asked.since, MOST_REPLAYED if asked.limit in (None, False) else asked.limit
    if not _is_integer(since) or not _is_integer(limit):
        raise _invalid()
    try:
        begins = datetime.fromtimestamp(cast(int, since) / 1000, UTC).replace(tzinfo=None)
    except (ValueError, OverflowError, OSError) as error:
        raise _invalid() from error
    ends = datetime.now(UTC).replace(tzinfo=None) + timedelta(minutes=1)
    try:
        async with database.connection() as connection:
            rows = await connection.fetch(
                REPLAY, topic, begins, ends, max(1, min(cast(int, limit), MOST_REPLAYED))
            )
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        LOG.warning("messages of %s cannot be replayed: %s", topic, error)
        raise Refused("UnableToReplayMessages", "Realtime was unable to replay messages") from error
    return [_again(row) for row in reversed(rows)]


def _again(row: asyncpg.Record) -> Event:
    binary: bytes | None = row["binary_payload"]
    payload = str(row["payload"] or "null").encode() if binary is None else binary
    return Event(row["event"], payload, binary is None, row["id"], replayed=True)


def _invalid() -> Refused:
    return Refused("UnableToReplayMessages", "Replay params are not valid")


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _wants(kind: Kind, relation: Relation) -> bool:
    return kind == "INSERT" and relation.schema == "realtime" and relation.table.startswith("messages")


def _row(change: Change) -> Mapping[str, str | None]:
    values = change.new or ()
    return {
        column.name: value if isinstance(value, str) else None
        for column, value in zip(change.relation.columns, values, strict=True)
    }
