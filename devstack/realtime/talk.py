"""A channel's part in its room: what its broadcasts and its presence are answered, and what the others hear.

What ends the whole channel is returned as a sentence; the channel says it.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Final

from devstack.realtime.broadcasts import Broadcast, Event, Passed
from devstack.realtime.frames import Push
from devstack.realtime.joining import Config, mapping
from devstack.realtime.line import Line
from devstack.realtime.refusals import Refused
from devstack.realtime.rooms import Member, Room
from devstack.realtime.sizes import too_large

LOG: Final = logging.getLogger("devstack.realtime.server")
PRESENCE_CALLS: Final = 5  # of one channel in PRESENCE_SECONDS
PRESENCE_SECONDS: Final = 30.0


class Broken(Exception):
    """A push on which the real server's channel crashes: the client is told `phx_error`."""


@dataclass(eq=False, slots=True)
class Talk:
    """One member's side of a room."""

    line: Line
    config: Config
    room: Room
    member: Member
    _window_ends: float = 0.0
    _calls: int = 0

    async def broadcast(self, push: Push) -> None:
        """Passes a broadcast on; a private room without the right to write answers nothing. Raises Broken."""
        access = self.member.access
        try:
            if access is not None and not await access.may_write("broadcast"):
                return
        except Refused as error:
            LOG.error("broadcast on %s dropped: %s", push.topic, error)
            return
        if too_large(push.payload if push.sent is None else push.sent.payload):
            if self.config.acknowledge:
                self.line.reply(push, "error", "payload_size_exceeded")
            return
        self.room.meter.count()
        self.room.broadcast(_message(push), apart_from=None if self.config.to_self else self.member)
        if self.config.acknowledge:
            self.line.reply(push, "ok", {})

    async def presence(self, push: Push) -> str | None:
        """Tracks or untracks; gives the sentence with which the channel ends, if it does. Raises Broken."""
        event = push.payload.get("event")
        if event is None:
            self.line.reply(push, "ok", {})
            return None
        if not isinstance(event, str):
            raise Broken
        if not self._in_time():
            return "Client presence rate limit exceeded"
        match event.lower():
            case "track":
                return await self._track(push)
            case "untrack":
                self.line.reply(push, "ok", {})
                self.room.differ(self.room.presences.forget(self.member))
            case _:
                self.line.reply(push, "error", {})
        return None

    async def _track(self, push: Push) -> str | None:
        payload = push.payload.get("payload", {})
        tracked = mapping(payload)
        try:
            allowed = await self._may_track()
        except Refused as error:
            LOG.error("presence on %s not tracked: %s", push.topic, error)
            allowed = False
        if not allowed:
            self.line.reply(push, "error", {})
        elif not isinstance(payload, dict):
            self.line.refuse(push, "Presence track payload must be a map")
        elif too_large(tracked):
            return "Track message size exceeded"
        else:
            self.line.reply(push, "ok", {})
            self.room.differ(self.room.presences.track(self.member, self.config.presence_key, tracked))
        return None

    async def _may_track(self) -> bool:
        access = self.member.access
        if access is None:
            return True
        await access.look_at_presence()
        return await access.may_write("presence")

    def _in_time(self) -> bool:
        now = time.monotonic()
        if now > self._window_ends:
            self._window_ends, self._calls = now + PRESENCE_SECONDS, 0
        self._calls += 1
        return self._calls <= PRESENCE_CALLS


def _message(push: Push) -> Broadcast:
    if push.sent is not None:
        return Event(push.sent.event, push.sent.payload, push.sent.is_json)
    if not push.is_object:
        raise Broken
    return Passed(push.payload)
