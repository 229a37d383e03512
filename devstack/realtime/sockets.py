"""One client's Realtime socket: its channels, and what each push of the client is answered.

A socket reads its pushes one after another, so an error reply that is held back blocks the whole socket,
as in production. Frames go out through one queue and one writer; while the socket is blocked they wait.
Timers and subscriptions belong to a channel and end with it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, cast

from aiohttp import WSMessage, WSMsgType, web

from devstack.keys import Keys
from devstack.realtime import tokens
from devstack.realtime.bindings import Binding, BindingRefused, identity, parse
from devstack.realtime.changes import Changes, Subscription
from devstack.realtime.frames import Frame, Push, Version, decode, decode_binary
from devstack.realtime.tokens import Token, TokenRefused

LOG: Final = logging.getLogger("devstack.realtime.server")
PREFIX: Final = "realtime:"
SUBSCRIBED: Final = "Subscribed to PostgreSQL"
MISSING: Final = "not implemented by this development stack"


@dataclass(slots=True)
class Timing:
    """How long Realtime takes over things, in seconds. The defaults are production's, except that
    `subscribe_seconds`, the time from a join's reply to its subscription, is that of a warm server."""

    refuse_handshake_seconds: float = 2.0
    refuse_join_seconds: float = 5.0
    join_seconds: float = 0.0
    subscribe_seconds: float = 0.05
    resubscribe_seconds: float = 2.0
    idle_seconds: float = 60.0

    @classmethod
    def quick(cls) -> Timing:
        """The same order of events without the waits: for development and tests."""
        return cls(0.1, 0.25, 0.0, 0.01, 0.05)


@dataclass(eq=False, slots=True)
class Channel:
    """A joined topic of one socket."""

    topic: str
    join_ref: str | None
    token: Token
    params: list[dict[str, object]]
    acknowledge: bool
    subscription: Subscription | None = None
    subscribing: asyncio.Task[None] | None = None
    expiry: asyncio.TimerHandle | None = None

    @property
    def name(self) -> str:
        return self.topic.removeprefix(PREFIX)


@dataclass(eq=False, slots=True)
class Socket:
    """Serves `socket` until either side closes it. `half_open` makes it hear and say nothing any more."""

    socket: web.WebSocketResponse
    version: Version
    token: Token
    keys: Keys
    changes: Changes
    timing: Timing
    half_open: bool = False
    channels: dict[str, Channel] = field(default_factory=dict[str, Channel])
    _outbox: asyncio.Queue[Frame] = field(default_factory=asyncio.Queue[Frame])
    _transport: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def run(self) -> None:
        """Reads and answers until the socket closes, then leaves all channels."""
        async with asyncio.TaskGroup() as group:
            writer = group.create_task(self._write())
            try:
                while (push := await self._next()) is not None:
                    if not self.half_open:
                        await self._handle(push, group)
            finally:
                for topic in list(self.channels):
                    self._forget(topic)
                writer.cancel()

    # -- faults, called from outside --

    def system(
        self, channel: Channel, status: str, message: str, extension: str = "postgres_changes"
    ) -> None:
        """Sends a `system` frame on a joined channel."""
        body = {"channel": channel.name, "extension": extension, "message": message, "status": status}
        self._say(Frame(channel.join_ref, None, channel.topic, "system", json.dumps(body)))

    def expire(self, channel: Channel) -> None:
        """Ends a channel as its token's end does; the socket stays open."""
        self._end(channel, tokens.expired(channel.token.expires))

    # -- frames --

    async def _next(self) -> Push | None:
        """The next push, passing over what is not one; None when the socket is done."""
        while True:
            try:
                message: WSMessage = await self.socket.receive()
            except TimeoutError:
                await self.socket.close(code=1000)
                return None
            match message.type:
                case WSMsgType.TEXT:
                    push = decode(cast("str", message.data), self.version)
                case WSMsgType.BINARY:
                    push = decode_binary(cast("bytes", message.data))
                case _:
                    return None
            if push is not None:
                return push

    async def _write(self) -> None:
        while True:
            frame = await self._outbox.get()
            async with self._transport:
                if self.half_open:
                    continue
                try:
                    await self.socket.send_str(frame.encode(self.version))
                except ConnectionError:
                    return  # the reader hears of it too, and ends the socket

    def _say(self, frame: Frame) -> None:
        self._outbox.put_nowait(frame)

    def _reply(self, push: Push, status: str, response: Mapping[str, object]) -> None:
        body = json.dumps({"response": response, "status": status})
        self._say(Frame(push.join_ref, push.ref, push.topic, "phx_reply", body))

    def _refuse(self, push: Push, reason: str) -> None:
        self._reply(push, "error", {"reason": reason})

    # -- pushes --

    async def _handle(self, push: Push, group: asyncio.TaskGroup) -> None:
        channel = self.channels.get(push.topic)
        match push.event:
            case "heartbeat" if push.topic == "phoenix":
                self._reply(push, "ok", {})
            case "phx_join":
                await self._join(push, group)
            case "phx_leave":
                self._leave(push, channel)
            case _ if channel is None:
                self._refuse(push, "unmatched topic")
            case "access_token":
                self._renew(push, channel, group)
            case "broadcast" | "presence":
                self._not_implemented(push, channel)
            case _:
                pass

    async def _join(self, push: Push, group: asyncio.TaskGroup) -> None:
        if not push.topic.startswith(PREFIX):
            self._refuse(push, "unmatched topic")
            return
        config = _object(push.payload.get("config"))
        try:
            if push.topic == PREFIX:
                raise TokenRefused("TopicNameRequired", "You must provide a topic name")
            token = self._read(push.payload.get("access_token"))
        except TokenRefused as error:
            await self._block(self.timing.refuse_join_seconds)
            self._refuse(push, error.reason)
            return
        if (missing := _missing(config)) is not None:
            LOG.error("join of %s refused: %s is %s", push.topic, missing, MISSING)
            self._refuse(push, f"{missing} is {MISSING}")
            return
        await self._block(self.timing.join_seconds)
        replaced = self._forget(push.topic)
        params = _params(config) if "config" in push.payload else _legacy(push.topic)
        acknowledge = _flag(_object(config.get("broadcast")).get("ack"))
        channel = Channel(push.topic, push.join_ref, token, params, acknowledge)
        self.channels[push.topic] = channel
        self._reply(push, "ok", {"postgres_changes": [{"id": identity(each), **each} for each in params]})
        if replaced is not None:
            self._say(_closing(replaced))
        self._watch_expiry(channel)
        self._subscribe(channel, group, self.timing.subscribe_seconds)

    async def _block(self, seconds: float) -> None:
        if seconds > 0:
            async with self._transport:
                await asyncio.sleep(seconds)

    def _leave(self, push: Push, channel: Channel | None) -> None:
        if channel is not None and channel.join_ref != push.join_ref:
            return  # meant for a channel that this one has replaced
        self._reply(push, "ok", {})
        if channel is not None:
            self._forget(channel.topic)
            self._say(_closing(channel))

    def _renew(self, push: Push, channel: Channel, group: asyncio.TaskGroup) -> None:
        text = push.payload.get("access_token")
        if not isinstance(text, str) or text.startswith("sb_") or text == channel.token.text:
            return
        try:
            channel.token = tokens.read(text, self.keys)
        except TokenRefused as error:
            self._end(channel, error.late)
            return
        self._watch_expiry(channel)
        self._subscribe(channel, group, self.timing.resubscribe_seconds)

    def _not_implemented(self, push: Push, channel: Channel) -> None:
        sentence = f"{push.event} is {MISSING}"
        LOG.error("push on %s refused: %s", push.topic, sentence)
        if channel.acknowledge:
            self._refuse(push, sentence)
        else:  # nobody waits for a reply, so one would go unseen
            self.system(channel, "error", sentence, push.event)

    # -- a channel's life --

    def _read(self, text: object) -> Token:
        if not isinstance(text, str) or text.startswith("sb_"):
            return tokens.read(self.token.text, self.keys)
        return tokens.read(text, self.keys)

    def _subscribe(self, channel: Channel, group: asyncio.TaskGroup, delay: float) -> None:
        if channel.subscribing is not None:
            channel.subscribing.cancel()
        if channel.params:
            channel.subscribing = group.create_task(self._subscribed(channel, delay))

    async def _subscribed(self, channel: Channel, delay: float) -> None:
        await asyncio.sleep(delay)

        def send(payload: str) -> None:
            self._say(Frame(None, None, channel.topic, "postgres_changes", payload))

        token = channel.token
        try:
            bindings: list[Binding] = [parse(each) for each in channel.params]
            channel.subscription = await self.changes.subscribe(
                bindings, token.role, token.claims, send, instead_of=channel.subscription
            )
        except BindingRefused as error:
            self.system(channel, "error", str(error))
            return
        self.system(channel, "ok", SUBSCRIBED)

    def _watch_expiry(self, channel: Channel) -> None:
        if channel.expiry is not None:
            channel.expiry.cancel()
        left = max(0.0, channel.token.expires - time.time())
        channel.expiry = asyncio.get_running_loop().call_later(left, self.expire, channel)

    def _end(self, channel: Channel, message: str) -> None:
        self._forget(channel.topic)
        self.system(channel, "error", message, "system")
        self._say(_closing(channel))

    def _forget(self, topic: str) -> Channel | None:
        channel = self.channels.pop(topic, None)
        if channel is None:
            return None
        if channel.expiry is not None:
            channel.expiry.cancel()
        if channel.subscribing is not None:
            channel.subscribing.cancel()
        if channel.subscription is not None:
            self.changes.unsubscribe(channel.subscription)
        return channel


def _closing(channel: Channel) -> Frame:
    return Frame(channel.join_ref, channel.join_ref, channel.topic, "phx_close", "{}")


def _missing(config: Mapping[str, object]) -> str | None:
    """What a join asks for that is not there; said at the join, where the client still listens."""
    if _flag(config.get("private")):
        return "a private channel"
    if _flag(_object(config.get("presence")).get("enabled")):
        return "presence"
    broadcast = _object(config.get("broadcast"))
    if _flag(broadcast.get("replication_ready")) or broadcast.get("replay") is not None:
        return "broadcast from the database"
    return None


def _params(config: Mapping[str, object]) -> list[dict[str, object]]:
    wanted = config.get("postgres_changes")
    listed = cast("list[object]", wanted) if isinstance(wanted, list) else []
    return [params for each in listed if (params := _object(each))]


def _legacy(topic: str) -> list[dict[str, object]]:
    """A join without any configuration names schema, table and filter in its topic, as the oldest clients did."""
    names = topic.removeprefix(PREFIX).split(":", 2)
    return [dict(zip(("schema", "table", "filter"), names, strict=False))]


def _object(value: object) -> dict[str, object]:
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}


def _flag(value: object) -> bool:
    return value is True or value == "true"
