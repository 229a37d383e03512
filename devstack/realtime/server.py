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
from devstack.realtime.acts import RESTART, Acts
from devstack.realtime.api import Api
from devstack.realtime.changes import Changes
from devstack.realtime.database import Database
from devstack.realtime.faults import HANDSHAKE_REFUSALS, RealtimeFaults
from devstack.realtime.frames import VERSIONS, Version
from devstack.realtime.limits import Limits, Meter, Rate
from devstack.realtime.line import Line
from devstack.realtime.messages import Messages
from devstack.realtime.rooms import Rooms
from devstack.realtime.services import Services
from devstack.realtime.sockets import Socket
from devstack.realtime.timing import Timing
from devstack.realtime.tokens import Token, TokenRefused

LOG: Final = logging.getLogger("devstack.realtime.server")
LARGEST_FRAME: Final = 5_000_000  # bytes
CLOSE_SECONDS: Final = 1.0  # for a client to answer the closing frame
WATCH_SECONDS: Final = 0.05  # how soon open sockets feel `off`
ACCEPTED: Final = {"Cache-Control": "max-age=0, private, must-revalidate"}
REFUSED: Final = ACCEPTED | {"Vary": "accept-encoding"}


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
        self.limits = Limits() if deliver_at_once else Limits.production()
        self._faults = faults
        self._keys = keys
        self.meter = Meter(self.limits)
        self._changes = Changes(
            dsn, faults=faults, timing=self.timing, meter=self.meter, at_once=deliver_at_once
        )
        self._rooms = Rooms(self.meter)
        self._messages = Messages(dsn, self._rooms, faults)
        self._database = Database(dsn)
        self._services = Services(
            keys,
            self.timing,
            self._changes,
            self._rooms,
            self._messages,
            self._database,
            self.limits,
            Rate(self.limits),
            self.meter,
            faults,
        )
        self.api = Api(self._services, faults)
        self._sockets: dict[Socket, asyncio.Transport | None] = {}
        self._task: asyncio.Task[None] | None = None
        self._stopped = False
        self.acts = Acts(self._sockets, self._changes, self.limits)

    async def start(self) -> None:
        """Starts the poller. It touches the database when the first channel subscribes, not before."""
        self._task = asyncio.create_task(self._run(), name="devstack realtime")

    async def stop(self) -> None:
        """Lets nobody in any more, closes every socket as a restart does (1012) and drops the slots; safe to repeat."""
        self._stopped = True
        await self.acts.close_sockets(RESTART)
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
        if self._faults.off or self._stopped:
            return web.Response(status=503, text="realtime.off: this development stack refuses sockets")
        if (status := self._faults.handshake()) is not None:
            return await self._refuse(status, HANDSHAKE_REFUSALS.get(status))
        version = request.query.get("vsn", "1.0.0")
        if version not in VERSIONS:
            return web.Response(status=403, headers=REFUSED)
        if request.headers.get(hdrs.UPGRADE, "").lower() != "websocket":
            return web.Response(status=400, text="this is a WebSocket endpoint")
        try:
            token = self._token(request)
        except TokenRefused as error:
            LOG.warning("handshake refused: %s", error)
            return await self._refuse(403, None)
        if (full := self._full()) is not None:
            LOG.warning("handshake refused: %s", full)
            return await self._refuse(429, full)
        return await self._serve(request, version, token)

    @property
    def listens(self) -> bool:
        """Whether changes are being read and every channel that asked for some is subscribed."""
        channels = [channel for socket in self._sockets for channel in socket.channels.values()]
        wanted = sum(bool(channel.config.changes) for channel in channels)
        return self._changes.warm and self._changes.served == wanted

    @property
    def hears_messages(self) -> bool:
        """Whether what the database broadcasts from now on is delivered."""
        return self._messages.connected.is_set()

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
                self.acts.drop_sockets()

    async def _refuse(self, status: int, error: str | None) -> web.Response:
        await asyncio.sleep(self.timing.refuse_handshake_seconds)
        if error is None:
            return web.Response(status=status, headers=REFUSED)
        return web.json_response({"error": error}, status=status, headers=REFUSED)

    def _full(self) -> str | None:
        """Why one more socket is too many, if it is."""
        if self.limits.users is not None and len(self._sockets) >= self.limits.users:
            return "Too many connected users"
        if self._services.joins.reached(self.limits.joins_per_second):
            return "Too many joins per second"
        return None

    def _token(self, request: web.Request) -> Token:
        key = request.headers.get("x-api-key") or request.query.get("apikey", "")
        return tokens.read(self._keys.key_as_token(key), self._keys)

    async def _serve(self, request: web.Request, version: Version, token: Token) -> web.StreamResponse:
        response = web.WebSocketResponse(
            timeout=CLOSE_SECONDS,
            receive_timeout=self.timing.idle_seconds,
            max_msg_size=LARGEST_FRAME,
            compress=False,
        )
        response.headers.update(ACCEPTED)
        await response.prepare(request)
        if self._stopped:
            await response.close(code=RESTART)
            return response
        headers = json.dumps({name.lower(): value for name, value in request.headers.items()})
        socket = Socket(Line(response, version, request.transport), token, headers, self._services)
        self._sockets[socket] = request.transport
        try:
            await socket.run()
        finally:
            del self._sockets[socket]
        return response
