"""Turns the database's log into Realtime's events: one poller per database, many subscriptions.

Who races whom: one lock covers the connection, so a subscription begins either before or after a reading,
never inside one. It begins at a position in the log taken under that lock, and hears only of transactions
that commit after it; "rows before `Subscribed` are not delivered" is therefore exact.

What is lost, on purpose: an error anywhere between reading and handing out drops the slot with everything
in it. The poller makes a new one and goes on, and no client is told. So does production.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import asyncpg

from devstack.realtime.bindings import PUBLICATION, Binding, check, published
from devstack.realtime.events import Events, Subscription
from devstack.realtime.faults import RealtimeFaults
from devstack.realtime.limits import Meter
from devstack.realtime.pgoutput import Change, Kind, Relation
from devstack.realtime.slot import Slot, SlotRefused, position
from devstack.realtime.timing import Timing

LOG: Final = logging.getLogger("devstack.realtime.server")
IDLE_SECONDS: Final = 0.5  # between two readings, as in production
LOOK_SECONDS: Final = 0.02  # between two looks at the log's end, when rows are to be delivered at once
QUIET_SECONDS: Final = 2.0  # after which they are
QUIET_LOOK_SECONDS: Final = (
    0.1  # apart, so that idling costs next to nothing; a poke is felt at once all the same
)
UNUSED_SECONDS: Final = 10.0  # after which a slot without subscribers is given up
LONGEST_BACKOFF_SECONDS: Final = 5.0
DATABASE_AWAY: Final = (asyncpg.InterfaceError, asyncpg.PostgresError, OSError)


class Changes:
    """`run` for as long as the server lives; `subscribe` and `unsubscribe` at any time."""

    def __init__(
        self, dsn: str, *, faults: RealtimeFaults, timing: Timing, meter: Meter, at_once: bool
    ) -> None:
        self._dsn = dsn
        self._timing = timing
        self._meter = meter
        self._published: frozenset[int] | None = None
        self._slot = Slot(dsn, PUBLICATION, wants=self._wants, changed=self._forget)
        self._events = Events(self._slot, faults)
        self._faults = faults
        self._at_once = at_once
        self._lock = asyncio.Lock()
        self._subscriptions: set[Subscription] = set()
        self._subscribed = asyncio.Event()
        self._poked = asyncio.Event()
        self._recovered = asyncio.Event()

    def poke(self) -> None:
        """Something was committed: look now. Ignored at production's pace."""
        if self._at_once:
            self._poked.set()

    async def subscribe(
        self,
        bindings: Iterable[Binding],
        role: str,
        claims: str,
        send: Callable[[str], None],
        again: Callable[[], None],
        *,
        instead_of: Subscription | None = None,
    ) -> Subscription:
        """Serves `bindings` from now on; raises BindingRefused. Waits while the database is away.

        `instead_of` is given up in the same moment, and nothing is lost in between. A database that takes no slot
        is no reason to refuse: as in production the subscription stands, and hears nothing.
        """
        wanted = tuple(bindings)
        while True:
            try:
                # On a connection of its own: any error or cancelled statement in a session drops its temporary
                # slots, and with them what the other channels are still to hear.
                connection = await asyncpg.connect(self._dsn)
                try:
                    checked = await check(connection, wanted, role)
                    async with self._lock:
                        await self._open_slot()
                        since = instead_of.since if instead_of is not None else await position(connection)
                        if self._published is None:
                            self._published = await published(connection)
                        return self._add(Subscription(checked, role, claims, since, send, again), instead_of)
                finally:
                    connection.terminate()
            except DATABASE_AWAY as error:
                LOG.warning("cannot subscribe, the database is away: %s: %s", type(error).__name__, error)
                await asyncio.sleep(IDLE_SECONDS)

    async def _open_slot(self) -> None:
        try:
            await self._slot.open()
        except SlotRefused as error:
            LOG.error("%s: nothing is delivered until one can be made", error)

    def _add(self, subscription: Subscription, instead_of: Subscription | None) -> Subscription:
        if instead_of is not None:
            self._subscriptions.discard(instead_of)
        self._subscriptions.add(subscription)
        self._subscribed.set()
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """No further event reaches `subscription`, not even one that was already read."""
        self._subscriptions.discard(subscription)
        if not self._subscriptions:
            self._subscribed.clear()

    def _wants(self, kind: Kind, relation: Relation) -> bool:
        return any(
            binding.wants(kind, relation)
            for subscription in self._subscriptions
            for binding in subscription.bindings
        )

    def _forget(self) -> None:
        """Tables or rights may have changed. The word comes with the answer to the reading that follows the change."""
        self._events.forget()

    @property
    def warm(self) -> bool:
        """Whether changes are being read already, so that a further subscription takes no time."""
        return self._slot.is_open

    async def check_publication(self) -> None:
        """Lets every channel subscribe anew if the published tables are no longer those of the last look."""
        connection = await asyncpg.connect(self._dsn)
        try:
            found = await published(connection)
        finally:
            connection.terminate()
        if self._published not in (None, found):
            for subscription in list(self._subscriptions):
                subscription.again()
        self._published = found

    async def lose(self, seconds: float = 0) -> None:
        """Drops the slot and makes no other for so long: what is committed meanwhile, or was and is not yet read, is
        lost silently."""
        async with self._lock:
            await self._slot.close()
            await asyncio.sleep(seconds)

    def recover(self) -> None:
        """Ends the present wait after a loss: a new slot is tried now."""
        self._recovered.set()

    @property
    def served(self) -> int:
        """How many channels are subscribed."""
        return len(self._subscriptions)

    async def close(self) -> None:
        """Drops the slot for good; `run` must have ended."""
        await self._slot.close()

    async def run(self) -> None:
        """Reads and hands out, and looks at the publication now and then, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._poll())
            group.create_task(self._watch_publication())

    async def _watch_publication(self) -> None:
        while True:
            await self._subscribed.wait()
            await asyncio.sleep(self._timing.publication_seconds)
            if self._subscribed.is_set():
                try:
                    await self.check_publication()
                except DATABASE_AWAY as error:
                    LOG.warning("cannot look at the publication: %s: %s", type(error).__name__, error)

    async def _poll(self) -> None:
        failures = 0
        busy = False
        while True:
            await self._pause(busy)
            try:
                async with self._lock:
                    busy = await self._read() if self._subscriptions else False
                failures = 0
            except Exception as error:  # noqa: BLE001 - whatever it was, production loses the batch and goes on
                busy = False
                LOG.error(
                    "reading changes failed, what was pending is lost: %s: %s", type(error).__name__, error
                )
                await self.lose()
                failures += 1
                backoff = self._timing.recover_seconds * 2.0 ** (failures - 1)
                self._recovered.clear()
                await _wait(self._recovered, min(LONGEST_BACKOFF_SECONDS, backoff))

    async def _pause(self, busy: bool) -> None:
        if not self._subscribed.is_set():
            await self._sleep_unused()
        elif busy:
            await asyncio.sleep(0)
        elif not self._at_once:
            await asyncio.sleep(IDLE_SECONDS)
        else:
            quiet = asyncio.get_running_loop().time() - self._slot.moved_at > QUIET_SECONDS
            await _wait(self._poked, QUIET_LOOK_SECONDS if quiet else LOOK_SECONDS)
        self._poked.clear()

    async def _sleep_unused(self) -> None:
        if not await _wait(self._subscribed, UNUSED_SECONDS):
            async with self._lock:
                if not self._subscriptions:
                    await self._slot.close()
                    self._published = None
            await self._subscribed.wait()

    async def _read(self) -> bool:
        changes = await self._slot.read()
        if changes and not self._faults.deaf:
            await self._hand_out(changes)
        return bool(changes)

    async def _hand_out(self, changes: Sequence[Change]) -> None:
        if self._meter.full():
            LOG.warning("too many events per second, %s rows are passed over", len(changes))
            return
        events = await self._events.of(changes, self._subscriptions)
        for subscription, payload in events:
            self._send(subscription, payload)
        self._meter.count(len(events))

    def _send(self, subscription: Subscription, payload: str) -> None:
        if subscription not in self._subscriptions or self._faults.lose_event():
            return
        if self._faults.late_event():
            loop = asyncio.get_running_loop()
            loop.call_later(self._faults.late_seconds, self._send_late, subscription, payload)
            return
        subscription.send(payload)
        if self._faults.double_event():
            subscription.send(payload)

    def _send_late(self, subscription: Subscription, payload: str) -> None:
        if subscription in self._subscriptions:
            subscription.send(payload)


async def _wait(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
