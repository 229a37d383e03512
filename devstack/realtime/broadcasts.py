"""Broadcast messages in their two forms, as each version of the protocol hears them.

A client of version 1 and a batch over HTTP send a JSON object that is passed on as it is. Everything else (a
binary frame of version 2, the database, a single message over HTTP) is an event with bytes: version 2 gets those
in a binary frame, version 1 as JSON text, and nothing when they are no JSON.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from devstack.realtime.frames import Frame, Version

LOG: Final = logging.getLogger("devstack.realtime.server")
USER_BROADCAST: Final = 4  # first byte of the binary frame
LONGEST_NAME: Final = 255  # bytes of topic, event and meta in a binary frame


@dataclass(frozen=True, slots=True)
class Passed:
    """A whole payload, passed on as a client made it."""

    payload: Mapping[str, object]
    id: None = None

    def encode(self, topic: str, version: Version) -> str | bytes | None:
        """The frame for a client that speaks `version`."""
        return Frame(None, None, topic, "broadcast", compact(self.payload)).encode(version)


@dataclass(frozen=True, slots=True)
class Event:
    """An event and its payload: JSON text, unchanged to the last space, unless `is_json` says otherwise.

    `id` is that of the row for a message from the database; such a message may be a replayed one.
    """

    event: str | None
    payload: bytes
    is_json: bool = True
    id: str | None = None
    replayed: bool = False

    def encode(self, topic: str, version: Version) -> str | bytes | None:
        """The frame for a client that speaks `version`, or None when it cannot be said in it."""
        if version == "2.0.0":
            return self._as_bytes(topic)
        if not self.is_json:
            return None
        try:
            body = self.body()
        except UnicodeDecodeError:
            return None
        return Frame(None, None, topic, "broadcast", body).encode(version)

    def body(self) -> str:
        """The payload of a text frame; raises UnicodeDecodeError for bytes that are no text."""
        meta = f'"meta":{self._meta()},' if self.id is not None else ""
        return f'{{"event":{compact(self.event)},{meta}"payload":{self.payload.decode()},"type":"broadcast"}}'

    def _meta(self) -> str:
        if self.id is None:
            return ""
        return compact({"id": self.id} | ({"replayed": True} if self.replayed else {}))

    def _as_bytes(self, topic: str) -> bytes | None:
        names = [topic.encode(), (self.event or "").encode(), self._meta().encode()]
        if max(map(len, names)) > LONGEST_NAME:
            LOG.error("a broadcast with a name of over %d bytes has no binary frame", LONGEST_NAME)
            return None
        head = bytes([USER_BROADCAST, *map(len, names), self.is_json])
        return b"".join([head, *names, self.payload])


Broadcast = Passed | Event


def compact(value: object) -> str:
    """JSON text as Realtime writes it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
