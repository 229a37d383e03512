"""What can happen once to a Realtime server's sockets, channels and slot: for tests, also over the admin door."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, cast

from devstack.realtime.changes import Changes
from devstack.realtime.channel import SUBSCRIBED, Channel
from devstack.realtime.limits import Limits
from devstack.realtime.sockets import Socket

if TYPE_CHECKING:
    from collections.abc import Iterator

RESTART: Final = 1012  # close code of a server that goes away and comes back


class UnknownAct(ValueError):
    """An act that does not exist or arguments it does not take; the message says what does."""


class Acts:
    """Acts on all that is open now. A method is an act of its name; its arguments may be sent as a JSON object."""

    def __init__(
        self, sockets: Mapping[Socket, asyncio.Transport | None], changes: Changes, limits: Limits
    ) -> None:
        self._sockets = sockets
        self._changes = changes
        self._limits = limits

    # -- sockets --

    async def close_sockets(self, code: int = RESTART) -> None:
        """Closes every open socket with `code`; 1012 is what a restart or a deployment sends."""
        async with asyncio.TaskGroup() as group:
            for socket, transport in self._sockets.items():
                if socket.line.half_open and transport is not None:
                    transport.abort()
                else:
                    group.create_task(socket.close(code))

    def drop_sockets(self) -> None:
        """Cuts every connection without a closing frame: clients see 1006."""
        for transport in list(self._sockets.values()):
            if transport is not None:
                transport.abort()

    def mute_sockets(self) -> None:
        """Makes the open sockets half-open: connected, but nothing is heard or answered any more, pings included."""
        for socket, transport in self._sockets.items():
            socket.line.half_open = True
            if transport is not None:
                transport.pause_reading()

    async def disconnect(self) -> None:
        """Ends every socket as an operator does: a message that names no channel, then 1012."""
        for channel in self._channels():
            channel.say_disconnected()
        await self.close_sockets(RESTART)

    # -- channels --

    def announce_again(self) -> None:
        """Sends a second "Subscribed to PostgreSQL" on every channel: in production it means there was a gap."""
        for channel in self._channels():
            channel.system("ok", SUBSCRIBED)

    def system_error(
        self, message: str = '{:error, "Too many database timeouts"}', extension: str = "postgres_changes"
    ) -> None:
        """Sends an error on every channel; the channels stay open and go on hearing."""
        for channel in self._channels():
            channel.system("error", message, extension)

    def expire_tokens(self) -> None:
        """Ends every channel as if its token's time had run out; the sockets stay open."""
        for channel in self._channels():
            channel.expire()

    def end_channels(self, message: str = "Too many messages per second") -> None:
        """Ends every channel with an error of the server's; the sockets stay open."""
        for channel in self._channels():
            channel.end(message)

    def crash_channels(self) -> None:
        """Ends every channel as a crash does, with `phx_error`; the sockets stay open."""
        for channel in self._channels():
            channel.crash()

    # -- changes --

    async def lose_changes(self, seconds: float = 0) -> None:
        """Drops the slot, and with it silently what was committed and not yet delivered, or is for `seconds` more."""
        await self._changes.lose(seconds)

    def recover(self) -> None:
        """Ends the wait that follows the loss of the slot: a new one is tried now, or as soon as it can be."""
        self._changes.recover()

    async def check_publication(self) -> None:
        """Looks at the publication now, as the server does once a minute: if its tables are no longer the same, every
        channel subscribes anew."""
        await self._changes.check_publication()

    def limit(
        self,
        users: int | None = None,
        joins_per_second: float | None = None,
        channels_per_socket: int | None = None,
        events_per_second: float | None = None,
        bucket_seconds: float = 5.0,
    ) -> None:
        """Sets the limits; what is not named has none."""
        self._limits.users = users
        self._limits.joins_per_second = joins_per_second
        self._limits.channels_per_socket = channels_per_socket
        self._limits.events_per_second = events_per_second
        self._limits.bucket_seconds = bucket_seconds

    # -- the admin door --

    @classmethod
    def names(cls) -> dict[str, str]:
        """Every act with the first line of what it does."""
        return {
            name: (inspect.getdoc(method) or "").partition("\n")[0]
            for name, method in inspect.getmembers(cls, inspect.isfunction)
            if not name.startswith("_") and name != "perform"
        }

    async def perform(self, name: str, arguments: object) -> None:
        """Does the act of this name with the arguments in a JSON object; raises UnknownAct."""
        from pydantic import ValidationError, validate_call  # slow to import, and only needed here

        if name not in self.names():
            raise UnknownAct(f"there is no act {name!r}; there are {', '.join(self.names())}")
        if not isinstance(arguments, dict):
            raise UnknownAct('the arguments of an act are a JSON object, for example {"code": 1012}')
        act = validate_call(config={"strict": True})(getattr(self, name))
        try:
            done = act(**cast("dict[str, object]", arguments))
            if inspect.isawaitable(done):
                await done
        except ValidationError as error:
            wrong = error.errors()[0]
            raise UnknownAct(f"{name}: {'.'.join(map(str, wrong['loc']))}: {wrong['msg']}") from error

    def _channels(self) -> Iterator[Channel]:
        for socket in list(self._sockets):
            yield from list(socket.channels.values())
