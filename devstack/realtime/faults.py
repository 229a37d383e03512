"""What the Realtime side is asked to do wrong, as long as it is asked; `acts` has what is done once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge

from devstack.realtime.records import LARGEST_RECORD

Count = Annotated[int, Ge(0)]
Seconds = Annotated[float, Ge(0)]
HANDSHAKE_REFUSALS = {
    401: "Token has expired",
    404: "Tenant not found",
    429: "Too many connected users",
    500: "Error connecting to Realtime",
}
"""What the server says with each status; with 403 it says nothing."""


@dataclass(slots=True)
class RealtimeFaults:
    """Switches stay as they are set; counts speak of the next events or handshakes and come down to 0 by themselves."""

    off: bool = False
    """Handshakes are refused (503) and open sockets are cut."""
    deaf: bool = False
    """Nothing is delivered any more, to anyone; joins, heartbeats and everything else go on."""
    false_subscribed: bool = False
    """A join is told "Subscribed to PostgreSQL", and nothing is behind it."""
    slow_join_seconds: Seconds = 0
    """So long a join waits for its reply, and the whole socket with it."""
    refuse_handshakes: list[Literal[401, 403, 404, 429, 500]] = field(
        default_factory=list[Literal[401, 403, 404, 429, 500]]
    )
    """The statuses of the next handshakes, in this order."""
    lose_events: Count = 0
    """So many events are not sent."""
    double_events: Count = 0
    """So many events are sent twice."""
    late_events: Count = 0
    """So many events are held back for `late_seconds`; what follows them is not."""
    late_seconds: Seconds = 1
    largest_record_bytes: Count = LARGEST_RECORD
    """Of a larger row only the small values are sent, with `Error 413: Payload Too Large`."""

    def lose_event(self) -> bool:
        """Whether this event is not to be sent; counts down."""
        lost = self.lose_events > 0
        self.lose_events -= lost
        return lost

    def double_event(self) -> bool:
        """Whether this event is to be sent twice; counts down."""
        doubled = self.double_events > 0
        self.double_events -= doubled
        return doubled

    def late_event(self) -> bool:
        """Whether this event is to be held back; counts down."""
        late = self.late_events > 0
        self.late_events -= late
        return late

    def handshake(self) -> int | None:
        """The status with which this handshake is to be refused, if it is; counts down."""
        return self.refuse_handshakes.pop(0) if self.refuse_handshakes else None
