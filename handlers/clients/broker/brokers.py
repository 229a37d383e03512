"""All accounts at brokers: each opened once per process, kept while it is of use, and asked by two at a time at most.

    async with brokers.at(connection) as adapter:
        told = await adapter.submit(order)

An account is opened when it is first asked for; whoever asks meanwhile waits for the same opening. It is kept by its
connection as the database showed it: new credentials, another version, are another adapter. It is closed when the
broker does not let its credentials in, when too many others are in use, and at the end of the process; never while
somebody still asks it.

Whatever happens before the block begins, nothing was sent: `at` raises Busy, NotOpened, BadCredentials or TooFast.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final
from uuid import UUID

from handlers.clients.broker.account import Account, Connection, NotOpened, Open
from handlers.clients.broker.broker import BadCredentials, BrokerAdapter, BrokerError, NotSent, TooFast
from handlers.clients.broker.guard import Guarded
from handlers.clients.database import Database
from listener import Settings, strike_out

__all__ = ["Account", "Brokers", "Busy", "Connection", "NotOpened", "Open"]

MOST_KEPT: Final = 500
MOST_AT_ONCE: Final = 2
"""Calls of one connection in this process: a broker that hangs must not take all the places of a worker."""
BUSY_FOR: Final = timedelta(seconds=1)
OPENING: Final = timedelta(seconds=20)
CLOSING: Final = timedelta(seconds=5)


class Busy(NotSent):
    """Two calls of this connection are under way in this process; nothing was sent. `after`: when to ask again.

    That is as long again as the older one has taken so far: orders that wait for a broker that hangs are not tried
    every second, at the cost of all others.
    """

    def __init__(self, connection: Connection, older: timedelta) -> None:
        super().__init__(f"{MOST_AT_ONCE} calls of {connection} are under way in this process.")
        self.after = max(BUSY_FOR, older)


@dataclass(eq=False, slots=True)
class _Kept:
    """One account. `adapter` is None until it is open."""

    account: Account
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    adapter: BrokerAdapter | None = None
    users: int = 0
    is_retired: bool = False


class Brokers:
    """Gives adapters. Opened once per process by `open`."""

    def __init__(self, adapters: Mapping[str, Open], settings: Settings, db: Database) -> None:
        self._adapters = adapters
        self._settings = settings
        self._db = db
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._calls: dict[UUID, list[float]] = {}

    @classmethod
    @asynccontextmanager
    async def open(
        cls, adapters: Mapping[str, Open], settings: Settings, db: Database
    ) -> AsyncIterator[Brokers]:
        """`adapters` by the part of `broker` before the colon. All are closed at the end of the block."""
        brokers = cls(adapters, settings, db)
        try:
            yield brokers
        finally:
            async with asyncio.TaskGroup() as group:
                for kept in brokers._kept.values():
                    group.create_task(_close(kept))

    @asynccontextmanager
    async def at(self, connection: Connection) -> AsyncIterator[BrokerAdapter]:
        """The adapter of this account, for a call or a few."""
        with self._place(connection):
            kept = self._keep(connection)
            kept.users += 1
            try:
                adapter = await self._opened(kept)
                strike_out(*kept.account.secrets)
                yield adapter
            except BadCredentials:
                self._retire(kept)
                raise
            finally:
                kept.users -= 1
                await self._let_go(kept)

    @contextmanager
    def _place(self, connection: Connection) -> Iterator[None]:
        now = time.monotonic()
        under_way = self._calls.setdefault(connection.id, [])
        if len(under_way) >= MOST_AT_ONCE:
            raise Busy(connection, timedelta(seconds=now - under_way[0]))
        under_way.append(now)
        try:
            yield
        finally:
            under_way.remove(now)
            if not under_way:
                del self._calls[connection.id]

    def _keep(self, connection: Connection) -> _Kept:
        key = _key(connection)
        kept = self._kept.get(key)
        if kept is None:
            kept = self._kept[key] = _Kept(Account(connection, self._settings, self._db))
        self._kept.move_to_end(key)
        return kept

    def _retire(self, kept: _Kept) -> None:
        """Nobody gets it any more."""
        kept.is_retired = True
        key = _key(kept.account.connection)
        if self._kept.get(key) is kept:
            del self._kept[key]

    async def _let_go(self, kept: _Kept) -> None:
        """Closes what nobody uses any more: this one if it was retired, and the least recently used beyond 500."""
        if kept.is_retired and not kept.users:
            await _close(kept)
        idle = [one for one in self._kept.values() if not one.users]
        over = idle[: max(len(self._kept) - MOST_KEPT, 0)]
        for one in over:
            self._retire(one)  # all of them first: while one is closed, somebody may ask for the next
        for one in over:
            await _close(one)

    async def _opened(self, kept: _Kept) -> BrokerAdapter:
        async with kept.lock:
            if kept.adapter is None:
                kept.adapter = Guarded(await self._open(kept.account), kept.account.secrets)
            return kept.adapter

    async def _open(self, account: Account) -> BrokerAdapter:
        connection = account.connection
        slug = connection.broker.partition(":")[0]
        if slug not in self._adapters:
            known = ", ".join(sorted(self._adapters))
            raise NotOpened(f"There is no adapter for {connection}: it has to be one of {known}.")
        try:
            async with asyncio.timeout(OPENING.total_seconds()):
                return await self._adapters[slug](account)
        except (NotSent, BadCredentials, TooFast):
            raise
        except BrokerError as error:
            raise NotSent(f"{connection} could not be opened: {error}") from None
        except Exception as error:  # noqa: BLE001 - its text is a stranger's, and may hold a secret
            raise NotSent(f"{connection} could not be opened ({type(error).__name__}).") from None


def _key(connection: Connection) -> str:
    settings = json.dumps(connection.settings, sort_keys=True, default=str)
    return "/".join(
        [
            *(str(connection.id), str(connection.credentials_version), connection.broker),
            *(connection.environment, connection.credentials_env or "", settings),
        ]
    )


async def _close(kept: _Kept) -> None:
    """What an adapter says while it is closed is of no use to anybody."""
    if kept.adapter is not None:
        adapter, kept.adapter = kept.adapter, None
        try:
            async with asyncio.timeout(CLOSING.total_seconds()):
                await adapter.close()
        except Exception:  # noqa: BLE001, S110
            pass
