"""How much Realtime takes on for one project, and the counter behind its limits per second."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Final

BUCKETS: Final = 12


@dataclass(slots=True)
class Limits:
    """None means as much as you like. `bucket_seconds` is how long the counter counts before it judges."""

    users: int | None = None
    """Open sockets."""
    joins_per_second: float | None = None
    channels_per_socket: int | None = None
    events_per_second: float | None = None
    """Broadcasts sent, broadcasts and events of postgres_changes handed out. Above it rows and messages of the database
    are passed over and nobody is told, HTTP is refused, and a channel that a broadcast reaches ends."""
    bucket_seconds: float = 5.0

    @classmethod
    def production(cls) -> Limits:
        """Those of a new project, and of `supabase start`."""
        return cls(users=200, joins_per_second=100, channels_per_socket=100, events_per_second=100)


class Rate:
    """Counts per second as Realtime does: in buckets, of which the last twelve make the average. It changes only when
    a bucket is full, so a burst is felt late and for long."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._buckets: deque[int] = deque(maxlen=BUCKETS)
        self._count = 0
        self._ends: float | None = None

    def count(self, number: int = 1) -> None:
        """Adds what happened now."""
        self._turn()
        self._count += number

    def average(self) -> float:
        """How much it is in a second."""
        self._turn()
        return sum(self._buckets) / len(self._buckets) / self._limits.bucket_seconds if self._buckets else 0.0

    def reached(self, limit: float | None) -> bool:
        """Whether the average is at `limit` or above."""
        return limit is not None and self.average() >= limit

    def _turn(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._ends is None:
            self._ends = now + self._limits.bucket_seconds
        for _ in range(BUCKETS):
            if now < self._ends:
                return
            self._buckets.append(self._count)
            self._count = 0
            self._ends += self._limits.bucket_seconds
        self._ends = now + self._limits.bucket_seconds


class Meter(Rate):
    """The one counter of all events of a project."""

    def full(self) -> bool:
        """Whether there are too many."""
        return self.reached(self._limits.events_per_second)
