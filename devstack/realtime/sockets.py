"""One client's Realtime socket: reads its pushes, lets channels in and out, and hands them what is theirs.

A socket reads its pushes one after another, so an error reply that is held back blocks the whole socket,
as in production.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final, cast

from aiohttp import WSMessage, WSMsgType

from devstack.realtime import joining
from devstack.realtime.admission import admit
from devstack.realtime.bindings import identity
from devstack.realtime.channel import Channel, open_channel
from devstack.realtime.frames import Push, decode, decode_binary
from devstack.realtime.joining import PREFIX
from devstack.realtime.line import Line
from devstack.realtime.refusals import Refused
from devstack.realtime.services import Services
from devstack.realtime.tokens import Token

GOING_AWAY: Final = 1001


@dataclass(eq=False, slots=True)
class Socket:
    """Serves the client at the other end of `line` until either side closes it.

    `token` and `headers` (JSON text) are those of its handshake.
    """

    line: Line
    token: Token
    headers: str
    services: Services
    channels: dict[str, Channel] = field(default_factory=dict[str, Channel])

    async def run(self) -> None:
        """Reads and answers until the socket closes, then leaves all channels."""
        async with asyncio.TaskGroup() as group:
            writer = group.create_task(self.line.run())
            try:
                while (push := await self._next()) is not None:
                    if not self.line.half_open:
                        await self._handle(push, group)
            finally:
                for channel in list(self.channels.values()):
                    channel.close()
                writer.cancel()

    async def close(self, code: int) -> None:
        """Ends the socket with a closing frame, behind what was said before."""
        await self.line.close(code)

    async def _next(self) -> Push | None:
        """The next push, passing over what is not one; None when the socket is done."""
        while True:
            try:
                message: WSMessage = await self.line.socket.receive()
            except TimeoutError:
                if self.line.half_open:
                    continue
                await self.line.socket.close(code=1000)
                return None
            match message.type:
                case WSMsgType.TEXT:
                    push = decode(cast("str", message.data), self.line.version)
                case WSMsgType.BINARY:
                    push = decode_binary(cast("bytes", message.data))
                case _:
                    return None
            if push is not None:
                return push

    async def _handle(self, push: Push, group: asyncio.TaskGroup) -> None:
        channel = self.channels.get(push.topic)
        match push.event:
            case "heartbeat" if push.topic == "phoenix":
                self.line.reply(push, "ok", {})
            case "phx_join":
                await self._join(push, group)
            case "phx_leave":
                self._leave(push, channel)
            case _ if channel is None:
                self.line.refuse(push, "unmatched topic")
            case _:
                await channel.hear(push)

    async def _join(self, push: Push, group: asyncio.TaskGroup) -> None:
        if not push.topic.startswith(PREFIX):
            self.line.refuse(push, "unmatched topic")
            return
        config = joining.read(push)
        self.services.joins.count()
        if self.services.joins.reached(self.services.limits.joins_per_second):
            self.line.refuse(push, "ClientJoinRateLimitReached: Too many joins per second")
            await self.close(GOING_AWAY)
            return
        try:
            self._count_channels(push)
            admission = await admit(
                push, config, self.services, connected_with=self.token, headers=self.headers
            )
        except Refused as error:
            await self.line.block(self.services.timing.refuse_join_seconds)
            self.line.refuse(push, error.reason)
            return
        await self.line.block(self.services.faults.slow_join_seconds)
        replaced = self.channels.get(push.topic)
        if replaced is not None:
            replaced.close()
        channel = open_channel(push, config, admission, self.line, self.services, group, self._remove)
        self.channels[push.topic] = channel
        bindings = [{"id": identity(each), **each} for each in config.changes]
        self.line.reply(push, "ok", {"postgres_changes": bindings})
        if replaced is not None:
            replaced.say_closed()
        channel.start(admission.replayed)

    def _count_channels(self, push: Push) -> None:
        limit = self.services.limits.channels_per_socket
        if limit is not None and push.topic not in self.channels and len(self.channels) >= limit:
            raise Refused("ChannelRateLimitReached", "Too many channels")

    def _leave(self, push: Push, channel: Channel | None) -> None:
        if channel is not None and channel.join_ref != push.join_ref:
            return  # meant for a channel that this one has replaced
        self.line.reply(push, "ok", {})
        if channel is not None:
            channel.close()
            channel.say_closed()

    def _remove(self, channel: Channel) -> None:
        del self.channels[channel.topic]
