"""The Realtime server: takes sockets at its handshake, owns them and the poller, and offers its faults.

Protocol versions 1 and 2, with postgres_changes, broadcast, presence and private channels.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from typing import Final

from aiohttp import hdrs, web

from devstack.keys import LOCAL, Keys
from devstack.realtime import tokens
from devstack.realtime.api import Api
from devstack.realtime.changes import Changes
from devstack.realtime.channel import SUBSCRIBED
from devstack.realtime.database import Database
from devstack.realtime.faults import RealtimeFaults
from devstack.realtime.frames import VERSIONS, Version
from devstack.realtime.line import Line
from devstack.realtime.messages import Messages
from devstack.realtime.rooms import Rooms
from devstack.realtime.services import Services
from devstack.realtime.sockets import Socket
from devstack.realtime.timing import Timing
from devstack.realtime.tokens import Token, TokenRefused

LOG: Final = logging.getLogger("devstack.realtime.server")
LARGEST_FRAME: Final = 5_000_000  # bytes
WATCH_SECONDS: Final = 0.05  # how soon open sockets feel `off`
ACCEPTED: Final = {"Cache-Control": "max-age=0, private, must-revalidate"}
REFUSED: Final = ACCEPTED | {"Vary": "accept-encoding"}
RESTART: Final = 1012  # close code of a server that goes away and comes back


class Realtime:
    """Serves one database. `dsn` must be for a superuser: a replication slot and every API role are used.

    `deliver_at_once` hears of rows within milliseconds (`poke()` makes it sooner still) and answers refusals
    without production's waits; without it the pace is production's. Start it, mount `handle`, stop it.
    """

    def __init__(
        self,
        dsn: str,
        *,
        faults: RealtimeFaults,
        deliver_at_once: bool = True,
        keys: Keys = LOCAL,
        timing: Timing | None = None,
    ) -> None:
        quickly = Timing.quick() if deliver_at_once else Timing()
        self.timing = timing if timing is not None else quickly
        self._faults = faults
        self._keys = keys
        self._changes = Changes(dsn, faults=faults, timing=self.timing, at_once=deliver_at_once)
        self._rooms = Rooms()
        self._messages = Messages(dsn, self._rooms)
        self._database = Database(dsn)
        self._services = Services(
            keys, self.timing, self._changes, self._rooms, self._messages, self._database
        )
        self.api = Api(self._services, faults)
        self._sockets: dict[Socket, asyncio.Transport | None] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Starts the poller. It touches the database when the first channel subscribes, not before."""
        self._task = asyncio.create_task(self._run(), name="devstack realtime")

    async def stop(self) -> None:
        """Closes every socket as a restart does (1012) and drops the slot; safe to repeat."""
        await self.close_sockets(RESTART)
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self._changes.close()
        await self._messages.close()
        await self._database.close()

    def poke(self) -> None:
        """A write was committed: look at once instead of a few milliseconds later."""
        self._changes.poke()
        self._messages.poke()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """The WebSocket endpoint; returns when the socket is closed, or the answer that refuses it."""
        if self._faults.off:
            return web.Response(status=503, text="realtime.off: this development stack refuses sockets")
        version = request.query.get("vsn", "1.0.0")
        if version not in VERSIONS:
            return web.Response(status=403, headers=REFUSED)
        if request.headers.get(hdrs.UPGRADE, "").lower() != "websocket":
            return web.Response(status=400, text="this is a WebSocket endpoint")
        try:
            token = self._token(request)
        except TokenRefused as error:
            LOG.warning("handshake refused: %s", error)
            await asyncio.sleep(self.timing.refuse_handshake_seconds)
            return web.Response(status=403, headers=REFUSED)
        return await self._serve(request, version, token)

    # -- faults: what can go wrong with sockets, for tests; `RealtimeFaults` has the lasting switches --

    async def close_sockets(self, code: int = RESTART) -> None:
        """Closes every open socket with `code`."""
        for socket in list(self._sockets):
            await socket.line.socket.close(code=code)

    def drop_sockets(self) -> None:
        """Cuts every connection without a closing frame: clients see 1006."""
        for transport in list(self._sockets.values()):
            if transport is not None:
                transport.abort()

    def mute_sockets(self) -> None:
        """Makes the open sockets half-open: connected, but nothing is heard or answered any more."""
        for socket in self._sockets:
            socket.line.half_open = True

    def system_error(self, message: str = '{:error, "Too many database timeouts"}') -> None:
        """Sends a postgres_changes error on every channel; the channels stay open and go on hearing."""
        for socket in self._sockets:
            for channel in socket.channels.values():
                channel.system("error", message)

    def announce_again(self) -> None:
        """Sends a second "Subscribed to PostgreSQL" on every channel: in production it means there was a gap."""
        for socket in self._sockets:
            for channel in socket.channels.values():
                channel.system("ok", SUBSCRIBED)

    def expire_tokens(self) -> None:
        """Ends every channel as if its token's time had run out; the sockets stay open."""
        for socket in self._sockets:
            for channel in list(socket.channels.values()):
                channel.expire()

    async def lose_changes(self) -> None:
        """Drops the slot, and with it silently what was committed and not yet delivered."""
        await self._changes.lose()

    def recover(self) -> None:
        """Ends the wait that follows the loss of the slot: a new one is tried now, or as soon as it can be."""
        self._changes.recover()

    async def check_publication(self) -> None:
        """Looks at the publication now, as the server does once a minute: if its tables are no longer the same, every
        channel subscribes anew."""
        await self._changes.check_publication()

    @property
    def listens(self) -> bool:
        """Whether changes are being read and every channel that asked for some is subscribed."""
        channels = [channel for socket in self._sockets for channel in socket.channels.values()]
        wanted = sum(bool(channel.config.changes) for channel in channels)
        return self._changes.warm and self._changes.served == wanted

    @property
    def joined(self) -> int:
        """How many channels are joined on all sockets together."""
        return sum(len(socket.channels) for socket in self._sockets)

    # -- the rest --

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._changes.run())
            group.create_task(self._messages.run())
            group.create_task(self._watch())

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            if self._faults.off:
                self.drop_sockets()

    def _token(self, request: web.Request) -> Token:
        key = request.headers.get("x-api-key") or request.query.get("apikey", "")
        return tokens.read(self._keys.key_as_token(key), self._keys)

    async def _serve(self, request: web.Request, version: Version, token: Token) -> web.StreamResponse:
        response = web.WebSocketResponse(
            receive_timeout=self.timing.idle_seconds, max_msg_size=LARGEST_FRAME, compress=False
        )
        response.headers.update(ACCEPTED)
        await response.prepare(request)
        headers = json.dumps({name.lower(): value for name, value in request.headers.items()})
        socket = Socket(Line(response, version), token, headers, self._services)
        self._sockets[socket] = request.transport
        try:
            await socket.run()
        finally:
            del self._sockets[socket]
        return response
