"""Reads and writes the frames of a Realtime socket, in both versions of its protocol.

Version 1 is a JSON object without `join_ref` on the way out, version 2 a JSON array. Clients of version 2
push broadcasts as binary frames; only their head is read here, enough to answer them by topic.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final, Literal, cast

Version = Literal["1.0.0", "2.0.0"]
VERSIONS: Final[tuple[Version, ...]] = ("1.0.0", "2.0.0")
BROADCAST_PUSH: Final = 3  # first byte of a binary frame
BROADCAST_HEAD: Final = 7  # kind, five lengths, encoding


@dataclass(frozen=True, slots=True)
class Push:
    """One frame from a client. `payload` is {} when the client sent something that is not an object."""

    join_ref: str | None
    ref: str | None
    topic: str
    event: str
    payload: dict[str, object]


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame to a client. `payload` is JSON text, so that numbers pass through with all their digits."""

    join_ref: str | None
    ref: str | None
    topic: str
    event: str
    payload: str

    def encode(self, version: Version) -> str:
        """The text to send to a client that speaks `version`."""
        topic, event, ref = json.dumps(self.topic), json.dumps(self.event), json.dumps(self.ref)
        if version == "1.0.0":
            return f'{{"event":{event},"payload":{self.payload},"ref":{ref},"topic":{topic}}}'
        return f"[{json.dumps(self.join_ref)},{ref},{topic},{event},{self.payload}]"


def decode(text: str, version: Version) -> Push | None:
    """What the client sent, or None for a frame that the server passes over without a word."""
    try:
        sent: object = json.loads(text)
    except ValueError:
        return None
    if version == "1.0.0":
        return _decode_object(sent)
    return _decode_array(sent)


def decode_binary(data: bytes) -> Push | None:
    """The head of a binary broadcast push, or None for any other binary frame."""
    if len(data) < BROADCAST_HEAD or data[0] != BROADCAST_PUSH:
        return None
    parts: list[str] = []
    at = BROADCAST_HEAD
    for length in data[1:4]:  # join_ref, ref, topic; the rest of the frame is not looked at
        parts.append(data[at : at + length].decode("utf-8", "replace"))
        at += length
    join_ref, ref, topic = parts
    return Push(join_ref or None, ref or None, topic, "broadcast", {})


def _decode_object(sent: object) -> Push | None:
    if not isinstance(sent, dict):
        return None
    fields = cast("dict[str, object]", sent)
    if not {"topic", "event", "payload", "ref"} <= fields.keys():
        return None
    return _push(fields.get("join_ref"), fields["ref"], fields["topic"], fields["event"], fields["payload"])


def _decode_array(sent: object) -> Push | None:
    if not isinstance(sent, list):
        return None
    fields = cast("list[object]", sent)
    if len(fields) != 5:
        return None
    join_ref, ref, topic, event, payload = fields
    return _push(join_ref, ref, topic, event, payload)


def _push(join_ref: object, ref: object, topic: object, event: object, payload: object) -> Push | None:
    if not isinstance(topic, str) or not isinstance(event, str):
        return None
    body = cast("dict[str, object]", payload) if isinstance(payload, dict) else {}
    return Push(_ref(join_ref), _ref(ref), topic, event, body)


def _ref(ref: object) -> str | None:
    return None if ref is None else str(ref)
