"""How long Realtime takes over things."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Timing:
    """How long Realtime takes over things, in seconds; the defaults are production's.

    From a join's reply to its subscription it is `subscribe_seconds` while changes are being read already, and
    `first_subscribe_seconds` when nobody has listened before. `recover_seconds` pass between the loss of the
    slot and the next try, then twice as long up to 5. `publication_seconds` lie between two looks at the
    publication, after which the subscriptions follow its tables.
    """

    refuse_handshake_seconds: float = 2.0
    refuse_join_seconds: float = 5.0
    subscribe_seconds: float = 0.05
    resubscribe_seconds: float = 2.0
    idle_seconds: float = 60.0
    first_subscribe_seconds: float = 1.5
    recover_seconds: float = 0.1
    publication_seconds: float = 60.0

    @classmethod
    def quick(cls) -> Timing:
        """The same order of events without the waits: for development and tests."""
        return cls(0.1, 0.25, 0.01, 0.05, first_subscribe_seconds=0.01)
