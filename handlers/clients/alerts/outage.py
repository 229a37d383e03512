"""Notices that a provider does not answer, and keeps the places of a worker free for those that do.

Jobs of all channels share a worker's places. A provider that hangs would soon have them all, each for as long as its
time-out, and the other channels would stand behind it. So, in each process:

    some sends have been under way for a while    no further one joins them
    so many in a row had no answer                nobody sends for a while; the hold tells all other processes
    that while is over                            one tries; the others wait for what it hears

An answer of any kind, a refusal too, ends it.
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Final

from handlers.clients.alerts.told import Hold, Later, NotSent, Told, Unknown

MISSES: Final = 5
"""So many requests in a row without an answer, and the provider is away."""
AWAY: Final = timedelta(seconds=30)
"""How long nobody sends then."""
TRYING: Final = timedelta(seconds=5)
"""How long the others wait then for the one that tries."""
SLOW: Final = timedelta(seconds=1)
"""A send under way for longer than this one is waiting; most are answered in a tenth."""
WAITING: Final = 10
"""With so many waiting no further one joins. A worker has 50 places, unless it was told otherwise."""


class Outage:
    """One per client of a provider and process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, most_waiting: int = WAITING) -> None:
        self._clock = clock
        self._most_waiting = most_waiting
        self._under_way: dict[object, float] = {}
        self._missed = 0
        self._until: float | None = None
        """Until then nobody sends; then one tries."""

    async def watch(self, send: Callable[[], Awaitable[Told]], *, is_request: bool = True) -> Told:
        """What `send` told, or Later when the provider is better left alone.

        is_request: what it told is all that its request heard. Where many share one, `heard` is called for that.
        """
        if (wait := self._wait()) is not None:
            return Later(wait, "provider_away", Hold(wait, whole_channel=True))
        if self._until is not None:
            self._until = self._clock() + TRYING.total_seconds()  # for the others, while this one tries
        one = object()
        self._under_way[one] = self._clock()
        try:
            told = await send()
        finally:
            del self._under_way[one]
        silent = isinstance(told, NotSent | Unknown)
        if is_request:
            self.heard(answered=not silent)
        if silent and self._until is not None:
            return replace(told, hold=Hold(AWAY, whole_channel=True))
        return told

    def heard(self, *, answered: bool) -> None:
        """A request is over."""
        if answered:
            self._missed, self._until = 0, None
            return
        self._missed += 1
        if self._missed >= MISSES or self._until is not None:
            self._until = self._clock() + AWAY.total_seconds()

    def _wait(self) -> timedelta | None:
        now = self._clock()
        if self._until is not None:
            return timedelta(seconds=self._until - now) if now < self._until else None
        waiting = sum(now - began > SLOW.total_seconds() for began in self._under_way.values())
        return SLOW if waiting >= self._most_waiting else None
