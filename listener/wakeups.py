"""The bell of a queue: anyone may ring it, one loop waits for it, and ringing twice is ringing once."""

import asyncio

from listener.jobs import WokenBy


class Bell:
    """Coalesces wake-ups: holds at most one, so a burst of a thousand INSERTs costs one look.

    A ring while the waiter is busy is kept for its next wait, so none is lost between looking and waiting.
    The first reason since the last wait is the one reported, except that FREE, which is news only to ourselves, gives
    way to any other. Belongs to one event loop; `ring` is for that loop's thread only and cannot raise, since it is
    called from callbacks of a client that dies of an exception.
    """

    def __init__(self) -> None:
        self._rung = asyncio.Event()
        self._woken_by: WokenBy | None = None

    def ring(self, woken_by: WokenBy) -> None:
        """Wakes the waiter now, or spares it its next wait."""
        if self._woken_by is None or self._woken_by is WokenBy.FREE:
            self._woken_by = woken_by
        self._rung.set()

    async def wait(self, timeout: float | None) -> WokenBy | None:
        """Returns who rang, or None when `timeout` seconds passed in silence (None: waits for ever)."""
        try:
            async with asyncio.timeout(timeout):
                await self._rung.wait()
        except TimeoutError:
            return None
        self._rung.clear()
        woken_by, self._woken_by = self._woken_by, None
        return woken_by
