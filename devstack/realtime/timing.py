"""How long Realtime takes over things."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Timing:
    """How long Realtime takes over things, in seconds. The defaults are production's, except that
    `subscribe_seconds`, the time from a join's reply to its subscription, is that of a warm server."""

    refuse_handshake_seconds: float = 2.0
    refuse_join_seconds: float = 5.0
    join_seconds: float = 0.0
    subscribe_seconds: float = 0.05
    resubscribe_seconds: float = 2.0
    idle_seconds: float = 60.0

    @classmethod
    def quick(cls) -> Timing:
        """The same order of events without the waits: for development and tests."""
        return cls(0.1, 0.25, 0.0, 0.01, 0.05)
