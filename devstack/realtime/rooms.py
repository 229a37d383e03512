"""The rooms of a project: who hears whom. A private and a public topic of one name are two rooms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from devstack.realtime.access import Access
from devstack.realtime.broadcasts import Broadcast, compact
from devstack.realtime.frames import Frame, Version
from devstack.realtime.limits import Meter
from devstack.realtime.line import Line
from devstack.realtime.presence import Diff, Presences


@dataclass(eq=False, slots=True)
class Member:
    """One joined channel in its room. Without `access` the room is public and it hears all."""

    line: Line
    access: Access | None
    over: Callable[[], None]
    """Called when something was delivered and it was too much."""
    replayed: frozenset[str] = frozenset()
    """The ids of messages that it was given at its join and is not to hear again."""

    @property
    def hears_broadcasts(self) -> bool:
        return self.access is None or self.access.reads_broadcasts

    @property
    def hears_presence(self) -> bool:
        return self.access is None or self.access.reads_presence is True


@dataclass(eq=False, slots=True)
class Room:
    """One topic. `topic` is what clients call it, with its prefix."""

    topic: str
    meter: Meter
    members: dict[Member, None] = field(default_factory=dict[Member, None])
    presences: Presences = field(default_factory=Presences)

    def broadcast(self, message: Broadcast, *, apart_from: Member | None = None) -> None:
        """Queues a message for everybody who may hear it; encoded once for each version of the protocol."""
        encoded: dict[Version, str | bytes | None] = {}
        for member in list(self.members):  # some may have to go
            if member is apart_from or not member.hears_broadcasts or message.id in member.replayed:
                continue
            version = member.line.version
            if version not in encoded:
                encoded[version] = message.encode(self.topic, version)
            member.line.put(encoded[version])
            self.meter.count()
            if self.meter.full():
                member.over()

    def differ(self, diff: Diff | None) -> None:
        """Tells everybody who may hear of it who came and who went."""
        if diff is None:
            return
        frame = Frame(None, None, self.topic, "presence_diff", compact(diff.shown()))
        encoded: dict[Version, str] = {}
        for member in self.members:
            if member.hears_presence:
                version = member.line.version
                if version not in encoded:
                    encoded[version] = frame.encode(version)
                member.line.put(encoded[version])


@dataclass(eq=False, slots=True)
class Rooms:
    """All rooms that somebody is in."""

    meter: Meter
    _rooms: dict[tuple[bool, str], Room] = field(default_factory=dict[tuple[bool, str], Room])

    def __bool__(self) -> bool:
        return bool(self._rooms)

    def enter(self, topic: str, *, private: bool, member: Member) -> Room:
        """The room of a topic (with its prefix), with `member` in it."""
        room = self._rooms.setdefault((private, topic), Room(topic, self.meter))
        room.members[member] = None
        return room

    def leave(self, room: Room, *, private: bool, member: Member) -> None:
        """Takes `member` out; the others are told if it was present."""
        room.members.pop(member, None)
        room.differ(room.presences.forget(member))
        if not room.members:
            self._rooms.pop((private, room.topic), None)

    def broadcast(self, topic: str, message: Broadcast, *, private: bool) -> None:
        """Sends a message into a room, if anybody is there."""
        room = self._rooms.get((private, topic))
        if room is not None:
            room.broadcast(message)
