"""A joined topic of one socket: its token, its subscription, its room, and what each push on it is answered.

Timers and subscriptions belong to a channel and end with it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from devstack.realtime import tokens
from devstack.realtime.access import Access
from devstack.realtime.admission import Admission
from devstack.realtime.bindings import Binding, BindingRefused, parse
from devstack.realtime.broadcasts import Event, compact
from devstack.realtime.events import Subscription
from devstack.realtime.frames import Frame, Push
from devstack.realtime.joining import PREFIX, Config
from devstack.realtime.line import Line
from devstack.realtime.refusals import Refused
from devstack.realtime.rooms import Member
from devstack.realtime.services import Services
from devstack.realtime.talk import Broken, Talk
from devstack.realtime.tokens import Token

SUBSCRIBED: Final = "Subscribed to PostgreSQL"
CONNECTED: Final = "Replication connection established"
CONNECTED_SECONDS: Final = 60.0  # after which a channel that waits for that is given up


@dataclass(eq=False, slots=True)
class Channel:
    """Lives from its join's reply until `close`, which takes it from the socket's list by calling `gone`."""

    topic: str
    join_ref: str | None
    token: Token
    config: Config
    line: Line
    services: Services
    group: asyncio.TaskGroup
    gone: Callable[[Channel], None]
    _talk: Talk
    _subscription: Subscription | None = None
    _subscribing: asyncio.Task[None] | None = None
    _connecting: asyncio.Task[None] | None = None
    _expiry: asyncio.TimerHandle | None = None

    @property
    def name(self) -> str:
        return self.topic.removeprefix(PREFIX)

    def start(self, replayed: list[Event]) -> None:
        """Begins what was asked for; the join has just been answered."""
        self._watch_expiry()
        for message in replayed:
            self._replay(message)
        timing = self.services.timing
        self._subscribe(
            timing.subscribe_seconds if self.services.changes.warm else timing.first_subscribe_seconds
        )
        if self.config.replication_ready:
            self._connecting = self.group.create_task(self._connected())
        if self.config.presence and self._talk.member.hears_presence:
            state = compact(self._talk.room.presences.state())
            self.line.say(Frame(self.join_ref, None, self.topic, "presence_state", state))

    async def hear(self, push: Push) -> None:
        """Handles a push of the client on this topic."""
        try:
            match push.event:
                case "access_token":
                    await self._renew(push)
                case "broadcast":
                    await self._talk.broadcast(push)
                case "presence":
                    if (over := await self._talk.presence(push)) is not None:
                        self.end(over)
                case _:
                    pass
        except Broken:
            self.crash()

    def system(self, status: str, message: str, extension: str = "postgres_changes") -> None:
        """Sends a `system` frame."""
        body = {"channel": self.name, "extension": extension, "message": message, "status": status}
        self.line.say(Frame(self.join_ref, None, self.topic, "system", json.dumps(body)))

    def expire(self) -> None:
        """Ends the channel as its token's end does; the socket stays open."""
        self.end(tokens.expired(self.token.expires))

    def end(self, message: str) -> None:
        """Ends the channel with an error of the server's."""
        self.close()
        self.system("error", message, "system")
        self.say_closed()

    def crash(self) -> None:
        """Ends the channel as a crash of the server's does."""
        self.close()
        self.line.say(Frame(self.join_ref, self.join_ref, self.topic, "phx_error", "{}"))

    def say_disconnected(self) -> None:
        """Tells the client what an operator's disconnect tells it, which names no channel."""
        body = {"extension": "system", "message": "Server requested disconnect", "status": "ok"}
        self.line.say(Frame(self.join_ref, None, self.topic, "system", json.dumps(body)))

    def say_closed(self) -> None:
        """Tells the client that this channel, as of its own join, is over."""
        self.line.say(Frame(self.join_ref, self.join_ref, self.topic, "phx_close", "{}"))

    def close(self) -> None:
        """Ends all that belongs to the channel, without a word."""
        self.gone(self)
        self.services.rooms.leave(self._talk.room, private=self.config.private, member=self._talk.member)
        if self._connecting is not None:
            self._connecting.cancel()
        if self._expiry is not None:
            self._expiry.cancel()
        if self._subscribing is not None:
            self._subscribing.cancel()
        if self._subscription is not None:
            self.services.changes.unsubscribe(self._subscription)

    # -- tokens --

    async def _renew(self, push: Push) -> None:
        text = push.payload.get("access_token")
        if not isinstance(text, str) or text.startswith("sb_") or text == self.token.text:
            return
        try:
            token = tokens.read(text, self.services.keys)
            await self._renew_access(token)
        except Refused as error:
            self.end(error.late)
            return
        self.token = token
        self._watch_expiry()
        self._subscribe(self.services.timing.resubscribe_seconds)

    async def _renew_access(self, token: Token) -> None:
        """Asks the policies again; raises Refused, also when something may no longer be read that could be."""
        before = self._talk.member.access
        if before is None:
            return
        now = Access(before.database, before.topic, token, before.headers)
        await now.look(presence=self.config.presence)
        if (before.reads_broadcasts and not now.reads_broadcasts) or (
            before.reads_presence and now.reads_presence is False
        ):
            message = f"You no longer have permission to read from this Channel topic: {self.name}"
            raise Refused("Unauthorized", message)
        self._talk.member.access = now

    def _watch_expiry(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        left = max(0.0, self.token.expires - time.time())
        self._expiry = asyncio.get_running_loop().call_later(left, self.expire)

    # -- changes --

    def _subscribe(self, delay: float) -> None:
        if self._subscribing is not None:
            self._subscribing.cancel()
        if self.config.changes:
            self._subscribing = self.group.create_task(self._subscribed(delay))

    async def _subscribed(self, delay: float) -> None:
        await asyncio.sleep(delay)

        def send(payload: str) -> None:
            self.line.say(Frame(None, None, self.topic, "postgres_changes", payload))

        def again() -> None:
            self._subscribe(0)

        if self.services.faults.false_subscribed:
            self.system("ok", SUBSCRIBED)
            return
        token = self.token
        try:
            bindings: list[Binding] = [parse(each) for each in self.config.changes]
            self._subscription = await self.services.changes.subscribe(
                bindings, token.role, token.claims, send, again, instead_of=self._subscription
            )
        except BindingRefused as error:
            if self._subscription is not None:
                self.services.changes.unsubscribe(self._subscription)
                self._subscription = None
            self.system("error", str(error))
            return
        self.system("ok", SUBSCRIBED)

    # -- messages of the database --

    def _replay(self, message: Event) -> None:
        if message.is_json:
            self.line.say(Frame(self.join_ref, None, self.topic, "broadcast", message.body()))
        else:
            self.line.put(message.encode(self.topic, self.line.version))

    async def _connected(self) -> None:
        try:
            async with asyncio.timeout(CONNECTED_SECONDS):
                await self.services.messages.connected.wait()
        except TimeoutError:
            self.end("Replication connection was not established in time")
        else:
            self.system("ok", CONNECTED, "system")


def open_channel(
    push: Push,
    config: Config,
    admission: Admission,
    line: Line,
    services: Services,
    group: asyncio.TaskGroup,
    gone: Callable[[Channel], None],
) -> Channel:
    """The channel of an admitted join, in its room already but not started."""
    replayed = frozenset(each.id for each in admission.replayed if each.id is not None)
    member = Member(line, admission.access, lambda: channel.end("Too many messages per second"), replayed)
    room = services.rooms.enter(push.topic, private=config.private, member=member)
    talk = Talk(line, config, room, member)
    channel = Channel(push.topic, push.join_ref, admission.token, config, line, services, group, gone, talk)
    return channel
