"""Who may join what: the token, the policies of a private topic, and what is replayed to those who ask."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Final

from devstack.realtime import messages, tokens
from devstack.realtime.access import Access
from devstack.realtime.broadcasts import Event
from devstack.realtime.frames import Push
from devstack.realtime.joining import PREFIX, Config
from devstack.realtime.refusals import Refused
from devstack.realtime.services import Services
from devstack.realtime.tokens import Token

CONNECTED_SECONDS: Final = 1.0  # a private join waits so long for the reader of messages


@dataclass(frozen=True, slots=True)
class Admission:
    """A join that is allowed. Without `access` the topic is public."""

    token: Token
    access: Access | None
    replayed: list[Event]


async def admit(
    push: Push, config: Config, services: Services, *, connected_with: Token, headers: str
) -> Admission:
    """Decides on a join; raises Refused. `headers` are those of the handshake, as JSON text for the policies."""
    if push.topic == PREFIX:
        raise Refused("TopicNameRequired", "You must provide a topic name")
    text = push.payload.get("access_token")
    if not isinstance(text, str) or text.startswith("sb_"):
        text = connected_with.text
    token = tokens.read(text, services.keys)
    services.messages.wake()
    if not config.private:
        if config.replays:
            raise Refused("UnableToReplayMessages", "Replay is not allowed for public channels")
        return Admission(token, None, [])
    topic = push.topic.removeprefix(PREFIX)
    access = Access(services.database, topic, token, headers)
    await access.look(presence=config.presence)
    if config.replays and not access.reads_broadcasts:
        raise access.unreadable()
    replayed = [] if config.replay is None else await messages.kept(services.database, topic, config.replay)
    with contextlib.suppress(TimeoutError):  # so that what is sent right after the join is heard
        async with asyncio.timeout(CONNECTED_SECONDS):
            await services.messages.connected.wait()
    return Admission(token, access, replayed)
