"""Reads and writes the frames of a Realtime socket, in both versions of its protocol.

Version 1 is a JSON object without `join_ref` on the way out, version 2 a JSON array. Clients of version 2
push broadcasts as binary frames.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Final, Literal, NoReturn, cast

Version = Literal["1.0.0", "2.0.0"]
VERSIONS: Final[tuple[Version, ...]] = ("1.0.0", "2.0.0")
BROADCAST_PUSH: Final = 3  # first byte of a binary frame
BROADCAST_HEAD: Final = 7  # kind, five lengths, encoding
AS_JSON: Final = 1  # the encoding of a payload that is JSON text
DEEPEST: Final = 500  # levels of arrays and objects in a frame


@dataclass(frozen=True, slots=True)
class Sent:
    """What a binary frame carries: an event of the user's and its payload, not looked at."""

    event: str
    payload: bytes
    is_json: bool


@dataclass(frozen=True, slots=True)
class Push:
    """One frame from a client. `payload` is {} when the client sent something that is not an object.

    `sent` is there instead when the frame was binary.
    """

    join_ref: str | None
    ref: str | None
    topic: str
    event: str
    payload: dict[str, object]
    is_object: bool = True
    sent: Sent | None = None


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
        sent = parse(text)
    except ValueError:
        return None
    if version == "1.0.0":
        return _decode_object(sent)
    return _decode_array(sent)


def parse(text: str) -> object:
    """The value of a JSON text, read as strictly as Realtime reads it; raises ValueError.

    Python's reader lets through what no other JSON parser takes (NaN, half a surrogate pair); and what lies too
    deep could not be written again from somewhere deeper in the stack.
    """
    try:
        value: object = json.loads(text, parse_constant=_no_number, parse_float=_finite)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if "\\u" in text:
        json.dumps(value, ensure_ascii=False).encode()  # UnicodeEncodeError is a ValueError
    if text.count("[") + text.count("{") > DEEPEST and _depth(value) > DEEPEST:
        raise ValueError("nested too deep")
    return value


def decode_binary(data: bytes) -> Push | None:
    """A binary broadcast push, or None for any other binary frame."""
    if len(data) < BROADCAST_HEAD or data[0] != BROADCAST_PUSH:
        return None
    parts: list[bytes] = []
    at = BROADCAST_HEAD
    for length in data[1:6]:  # join_ref, ref, topic, event, metadata
        parts.append(data[at : at + length])
        at += length
    if at > len(data):
        return None
    try:
        join_ref, ref, topic, event, _ = (part.decode() for part in parts)
    except UnicodeDecodeError:
        return None
    sent = Sent(event, data[at:], is_json=data[6] == AS_JSON)
    return Push(join_ref or None, ref or None, topic, "broadcast", {}, sent=sent)


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
    return Push(_ref(join_ref), _ref(ref), topic, event, body, is_object=isinstance(payload, dict))


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _no_number(text)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number in JSON")


def _depth(value: object) -> int:
    """How deep arrays and objects lie in each other."""
    deepest, left = 0, [(value, 1)]
    while left:
        each, level = left.pop()
        deepest = max(deepest, level)
        if isinstance(each, dict):
            left += [(inner, level + 1) for inner in cast("dict[str, object]", each).values()]
        elif isinstance(each, list):
            left += [(inner, level + 1) for inner in cast("list[object]", each)]
    return deepest


def _ref(ref: object) -> str | None:
    return None if ref is None else str(ref)
