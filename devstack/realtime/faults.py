"""What the Realtime side is asked to do wrong."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class RealtimeFaults:
    """`off`: handshakes are refused and open sockets dropped. `deaf`: joined, heartbeats fine, no events."""

    off: bool = False
    deaf: bool = False
