"""What the server shares among all channels of all sockets."""

from __future__ import annotations

from dataclasses import dataclass

from devstack.keys import Keys
from devstack.realtime.changes import Changes
from devstack.realtime.database import Database
from devstack.realtime.faults import RealtimeFaults
from devstack.realtime.limits import Limits, Meter, Rate
from devstack.realtime.messages import Messages
from devstack.realtime.rooms import Rooms
from devstack.realtime.timing import Timing


@dataclass(frozen=True, slots=True)
class Services:
    """Owned and ended by the server."""

    keys: Keys
    timing: Timing
    changes: Changes
    rooms: Rooms
    messages: Messages
    database: Database
    limits: Limits
    joins: Rate
    meter: Meter
    faults: RealtimeFaults
