"""Rings a queue's bell for each INSERT into its table, and begins again whenever Realtime goes deaf.

Realtime is a hint and the row is the truth: every delivery can be lost in silence. So each "ready" rings all
bells, for whatever was inserted while nobody listened, and the workers' own sweeps find the rest. With Realtime
off altogether jobs are later and never lost; this room then goes on trying for ever, every two seconds or so.

One epoch (`epoch.py`: one throw-away client) after the other, without end:

    connect, join, "Subscribed", first proof ── ready: ring all ── INSERT: ring one … ── anything unusual ── close, wait

What is heard is the only proof of hearing. A server can say "Subscribed", answer heartbeats and stream nothing, so now
and then a row is inserted that only this process listens for, at first right after "Subscribed"; when this canary does
not come back, the epoch is over. So hearing is back within 30 s of the end of a fault that nothing else tells of, and
within 5 s of any other's (`Timings.unknown` and `Timings.known`, and the joining).

Deaf is what lies between the last proof of hearing before a trouble, not its notice, and the first proof after it.

A new epoch begins after the old one is closed. Beginning it before would spare about a second of deafness a day,
at the price of two clients that must agree on who is heard; the look after "ready" makes good for that second.

Races: all on one event loop. "Ready" is told by the first proof itself, so whatever was committed before what proved
it is looked for after it, and all later is heard. An INSERT that was looked for and is then also announced costs an
empty look.
"""

import asyncio
import random
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from functools import partial

from listener.backoff import exponential
from listener.config import Timings
from listener.epoch import Ending, Epoch, Pace, require_supported_client
from listener.errors import StoreUnavailable
from listener.events import Deaf, Emit, Hearing, Swallowed, Unannounced
from listener.jobs import WokenBy
from listener.keyring import Keyring, keyring_of
from listener.redaction import Redactor
from listener.wakeups import Bell

_LONGEST_REASON = 240
_SHORT_GAP = timedelta(seconds=30)
_UNHEARD = "canary not heard: the server streams nothing though all looks well"


class Subscription:
    """Rings `bells` (by queue) when rows are inserted into their tables, for as long as `run` runs.

    `canary` makes the database insert a row with that token into realtime_canary, and answers why it would not be
    broadcast, if so; it may raise what it likes.
    One per process; one event loop.
    """

    def __init__(
        self,
        *,
        url: str,
        key: str | Keyring,
        bells: Mapping[str, Bell],
        canary: Callable[[str], Awaitable[str | None]],
        worker_id: str,
        emit: Emit,
        timings: Timings,
        by_broadcast: bool = False,
        apikey: str | None = None,
    ) -> None:
        """`url` is the project's; `apikey` is for its gateway, where `key` alone would not open it.

        `by_broadcast`: hears what the database announces (see sql/035_announce.sql), not what Realtime reads from the
        tables; bells, proofs and recoveries are the same.
        Raises ConfigError when the installed client is none that can be supervised.
        """
        require_supported_client()
        self._url = "ws" + url.removeprefix("http").rstrip("/") + "/realtime/v1"
        self._keyring = keyring_of(key, apikey)
        self._keyring.follow(self._key_was_replaced)
        self._bells = bells
        self._canary = canary
        # A comma or a dot would have a meaning in the filter of the canary's binding.
        self._token = re.sub(r"[^A-Za-z0-9_-]", "-", worker_id)
        self._by_broadcast = by_broadcast
        self._emit = emit
        self._timings = timings
        self._redactor = Redactor()
        self._wait = exponential(timings.again, cap=timings.again_cap, jitter=0.5)
        self._failed = 0
        self._epochs = 0
        self._epoch: Epoch | None = None
        self._unannounced: str | None = None
        self._since = time.monotonic()
        """The last proof of hearing; or when none could be had, but hearing was promised."""
        self._ready = False
        self._ready_at = self._since
        self._hearings = 0
        self._deaf_in_all = timedelta()

    @property
    def ready(self) -> bool:
        """Whether INSERTs are heard, as far as one can tell between two canaries."""
        return self._ready

    @property
    def problem(self) -> str | None:
        """Why the process cannot be said to hear, in a sentence; a short gap is none. Jobs are found by sweeps."""
        if self._ready:
            return None
        if not self._hearings:
            return "Realtime: nothing has been heard yet"
        if self.deaf_for <= _SHORT_GAP:
            return None
        return f"Realtime: nothing has been heard for {self.deaf_for.total_seconds():.0f} s"

    @property
    def deaf_for(self) -> timedelta:
        """How long nothing has been heard; zero while hearing."""
        return timedelta() if self._ready else timedelta(seconds=time.monotonic() - self._since)

    @property
    def deaf_in_all(self) -> timedelta:
        """How long nothing was heard since the process began, the present silence included."""
        return self._deaf_in_all + self.deaf_for

    @property
    def gaps(self) -> int:
        """How often something may have been missed between two times of hearing."""
        return max(0, self._hearings - 1)

    @property
    def epochs(self) -> int:
        """How many clients there have been, the present one included."""
        return self._epochs

    async def run(self) -> None:
        """Listens until cancelled, then leaves no task and no socket. No failure of Realtime ends it."""
        self._since = time.monotonic()
        while True:
            self._epochs += 1
            epoch = self._epoch = self._new_epoch()
            try:
                ending = await self._live(epoch)
                retry_in = self._turned_deaf(ending)
            finally:
                self._ready = False
                await epoch.close(self._timings.close.total_seconds())
            await asyncio.sleep(retry_in.total_seconds())

    def _new_epoch(self) -> Epoch:
        rings = {queue: partial(bell.ring, WokenBy.REALTIME) for queue, bell in self._bells.items()}
        deadline = self._timings.ready_cold if self._failed else self._timings.ready
        key = self._keyring.proven
        self._redactor = Redactor({key.value, key.apikey})
        return Epoch(
            url=self._url,
            key=key.value,
            apikey=key.apikey,
            inserted={f"jobs_{queue}": ring for queue, ring in rings.items()},
            subscribed=self._subscribed,
            proven=self._turned_ready,
            token=self._token,
            by_broadcast=self._by_broadcast,
            deadline=deadline.total_seconds(),
        )

    def _key_was_replaced(self) -> None:
        """The old one may be withdrawn at any moment, and the server keeps to the one that it was shown at the join."""
        if self._epoch is not None:
            self._epoch.end(Ending("the key was replaced, as planned", Pace.AT_ONCE))

    async def _live(self, epoch: Epoch) -> Ending:
        """From the handshake to the ending."""
        try:
            if await epoch.open():
                await self._listen(epoch)
            return await epoch.over(0)
        except Exception as error:  # noqa: BLE001
            # A mistake in this room or in the client must not silence the process for good.
            self._emit(Swallowed("subscription", error))
            return Ending(f"unexpected {type(error).__name__}")

    async def _listen(self, epoch: Epoch) -> None:
        """From "ready" to the ending."""
        age = _between(0.9, 1, self._timings.recycle).total_seconds()
        old = Ending("recycled, as planned", Pace.AT_ONCE)
        timer = asyncio.get_running_loop().call_later(age, epoch.end, old)
        try:
            async with asyncio.TaskGroup() as tasks:
                canaries = tasks.create_task(self._send_canaries(epoch))
                await epoch.over(self._timings.look.total_seconds())
                canaries.cancel()
        finally:
            timer.cancel()

    async def _send_canaries(self, epoch: Epoch) -> None:
        while True:
            if not await self._canary_comes_back(epoch):
                epoch.end(Ending(f"{_UNHEARD}; {self._unannounced}" if self._unannounced else _UNHEARD))
                return
            self._turned_ready()  # also when none could be sent: no proof then, and none against it
            await asyncio.sleep(_between(0.8, 1.2, self._timings.canary).total_seconds())

    async def _canary_comes_back(self, epoch: Epoch) -> bool:
        """False only for one that was inserted and not heard; when none could be sent, nothing is known."""
        epoch.canary_heard.clear()
        try:
            async with asyncio.timeout(self._timings.canary_back.total_seconds()):
                self._tell_unannounced(await self._canary(self._token))
        except (StoreUnavailable, TimeoutError):
            return True  # The store tells of its own trouble.
        except Exception as error:  # noqa: BLE001  # Hearing goes on without a proof of it.
            self._emit(Swallowed("canary", error))
            return True
        try:
            async with asyncio.timeout(self._timings.canary_back.total_seconds()):
                await epoch.canary_heard.wait()
        except TimeoutError:
            return False
        return True

    def _tell_unannounced(self, problem: str | None) -> None:
        """Told once, with the first canary: before that one has had the time to prove anything."""
        before, self._unannounced = self._unannounced, problem if self._by_broadcast else None
        if self._unannounced is not None and self._unannounced != before:
            self._emit(Unannounced(self._unannounced))

    @property
    def _proven_at(self) -> float:
        """When hearing was last proven, or promised without a proof."""
        heard_at = self._epoch.heard_at if self._epoch is not None else None
        return self._since if heard_at is None else max(self._since, heard_at)

    def _subscribed(self) -> None:
        """The server promises to stream. Once more: it has lost the subscription for a while."""
        if self._ready:
            self._tell_hearing(timedelta(seconds=time.monotonic() - self._proven_at))

    def _turned_ready(self) -> None:
        """Something was heard, or nothing speaks against it."""
        if not self._ready:
            self._ready, self._ready_at = True, time.monotonic()
            self._tell_hearing(timedelta(seconds=self._ready_at - self._since))

    def _tell_hearing(self, deaf_for: timedelta) -> None:
        self._since = time.monotonic()
        self._hearings += 1
        self._deaf_in_all += deaf_for
        self._emit(Hearing(deaf_for))
        for bell in self._bells.values():
            bell.ring(WokenBy.JOINED)

    def _turned_deaf(self, ending: Ending) -> timedelta:
        """Tells of the ending and answers how long to wait before the next beginning."""
        # An epoch that dies young, or hears nothing, does not prove that the trouble is over, even if it was ready.
        proven = self._epoch is not None and self._epoch.heard_at is not None
        lasted = time.monotonic() - self._ready_at if self._ready and proven else 0.0
        self._failed = 1 if lasted >= self._timings.again_cap.total_seconds() else self._failed + 1
        self._since, self._ready = self._proven_at, False
        retry_in = self._wait(self._failed)
        if ending.pace is Pace.AT_ONCE:
            self._failed, retry_in = 0, timedelta()
        elif ending.pace is Pace.PATIENT:
            retry_in = _between(1, 1.5, max(retry_in, self._timings.patience))
        reason = " ".join(self._redactor.text(ending.reason).split())[:_LONGEST_REASON]
        self._emit(Deaf(reason, retry_in))
        return retry_in


def _between(low: float, high: float, delay: timedelta) -> timedelta:
    """Spreads what many processes would otherwise do at the same moment."""
    return delay * random.uniform(low, high)
