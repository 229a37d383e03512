"""A joined topic of one socket: its token, its subscription, and what each push on it is answered.

Timers and subscriptions belong to a channel and end with it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from devstack.keys import Keys
from devstack.realtime import tokens
from devstack.realtime.bindings import Binding, BindingRefused, parse
from devstack.realtime.changes import Changes, Subscription
from devstack.realtime.frames import Frame, Push
from devstack.realtime.joining import PREFIX, Config
from devstack.realtime.line import Line
from devstack.realtime.timing import Timing
from devstack.realtime.tokens import Token, TokenRefused

LOG: Final = logging.getLogger("devstack.realtime.server")
SUBSCRIBED: Final = "Subscribed to PostgreSQL"
MISSING: Final = "not implemented by this development stack"


@dataclass(frozen=True, slots=True)
class Services:
    """What the server shares among all channels of all sockets."""

    keys: Keys
    changes: Changes
    timing: Timing


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
    _subscription: Subscription | None = None
    _subscribing: asyncio.Task[None] | None = None
    _expiry: asyncio.TimerHandle | None = None

    @property
    def name(self) -> str:
        return self.topic.removeprefix(PREFIX)

    def start(self) -> None:
        """Begins what was asked for; the join has just been answered."""
        self._watch_expiry()
        timing = self.services.timing
        self._subscribe(
            timing.subscribe_seconds if self.services.changes.warm else timing.first_subscribe_seconds
        )

    def hear(self, push: Push) -> None:
        """Handles a push of the client on this topic."""
        match push.event:
            case "access_token":
                self._renew(push)
            case "broadcast" | "presence":
                self._not_implemented(push)
            case _:
                pass

    def system(self, status: str, message: str, extension: str = "postgres_changes") -> None:
        """Sends a `system` frame."""
        body = {"channel": self.name, "extension": extension, "message": message, "status": status}
        self.line.say(Frame(self.join_ref, None, self.topic, "system", json.dumps(body)))

    def expire(self) -> None:
        """Ends the channel as its token's end does; the socket stays open."""
        self._end(tokens.expired(self.token.expires))

    def say_closed(self) -> None:
        """Tells the client that this channel, as of its own join, is over."""
        self.line.say(Frame(self.join_ref, self.join_ref, self.topic, "phx_close", "{}"))

    def close(self) -> None:
        """Ends all that belongs to the channel, without a word."""
        self.gone(self)
        if self._expiry is not None:
            self._expiry.cancel()
        if self._subscribing is not None:
            self._subscribing.cancel()
        if self._subscription is not None:
            self.services.changes.unsubscribe(self._subscription)

    # -- tokens --

    def _renew(self, push: Push) -> None:
        text = push.payload.get("access_token")
        if not isinstance(text, str) or text.startswith("sb_") or text == self.token.text:
            return
        try:
            self.token = tokens.read(text, self.services.keys)
        except TokenRefused as error:
            self._end(error.late)
            return
        self._watch_expiry()
        self._subscribe(self.services.timing.resubscribe_seconds)

    def _watch_expiry(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        left = max(0.0, self.token.expires - time.time())
        self._expiry = asyncio.get_running_loop().call_later(left, self.expire)

    def _end(self, message: str) -> None:
        self.close()
        self.system("error", message, "system")
        self.say_closed()

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

    # -- the rest --

    def _not_implemented(self, push: Push) -> None:
        sentence = f"{push.event} is {MISSING}"
        LOG.error("push on %s refused: %s", push.topic, sentence)
        if self.config.acknowledge:
            self.line.refuse(push, sentence)
        else:  # nobody waits for a reply, so one would go unseen
            self.system("error", sentence, push.event)
