"""Generated requests to a door: jobs that fit, jobs that do not, other paths and methods, odd bytes, broken framing."""

import json
from dataclasses import dataclass
from typing import Any, cast

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy


@dataclass(frozen=True, slots=True)
class Conversation:
    """What one client sends on one connection."""

    data: bytes
    job: dict[str, Any] | None
    """The job that it sends in order, alone; None for everything else, which may be answered in many ways."""
    to_head: bool
    """Whether an answer may come without its body."""


def _one_of(*words: Any) -> SearchStrategy[Any]:
    return st.sampled_from(words)


def _often(usual: SearchStrategy[Any], rare: SearchStrategy[Any], times: int = 9) -> SearchStrategy[Any]:
    return st.integers(0, times).flatmap(lambda n: rare if n == 0 else usual)


_texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
_any_text = _often(_texts, st.text(max_size=8))
_numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
_values = st.recursive(
    st.none() | st.booleans() | _numbers | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=6,
)
_fitting = st.fixed_dictionaries(
    {"type": _one_of("prune", "sync_positions", "email")},
    optional={
        "data": st.dictionaries(_texts, _values, max_size=4),
        "priority": st.integers(0, 100),
        "max_attempts": st.integers(1, 20),
        "run_at": _one_of("2026-01-01T00:00:00Z", "2030-05-05 05:05:05+02"),
        "user_id": st.uuids().map(str),
        "idempotency_key": _one_of("a", "b", "a longer one: é☃"),
    },
)
_KEYS = (
    "type",
    "queue",
    "data",
    "priority",
    "max_attempts",
    "run_at",
    "user_id",
    "idempotency_key",
    "status",
    "id",
)
_odd_values = _values | _any_text | _one_of(
    "maintenance", "nowhere", "now()", "infinity", "1e3", "'; drop table jobs; --", -1, 2**31, 1e300, [], [[]], {}
)  # fmt: skip


def _spoilt_job(job: dict[str, Any], key: str, value: object) -> bytes:
    return _written(job | {key: value})


def _written(job: object) -> bytes:
    return json.dumps(job, allow_nan=False).encode()


_odd = st.builds(_spoilt_job, _fitting, _often(_one_of(*_KEYS), _any_text), _odd_values)
_NO_JSON = (
    b"", b"{", b"null", b"[]", b"[{}]", b'"text"', b"NaN", b'{"type": "prune", "data": {"x": NaN}}', b"\xff\xfe{",
    b'{"type": "prune", "type": "prune"}', b'{"type": "prune"} {}', b'{"type": "prune\x00"}', b"{'type': 'prune'}",
    b"[" * 5000, b'{"data":' * 3000, b'{"type": "prune", "data": {"x": 0.12345678901234567890123}}', b"9" * 5000,
    b'{"type": "prune", "data": {"\\ud800": "\\udfff"}}', b"\xef\xbb\xbf{}", b"type=prune&data=%7B%7D",
)  # fmt: skip


_bodies = _often(_odd, _one_of(*_NO_JSON) | st.binary(max_size=60), 1)
_TARGETS = (
    "/", "/", "/", "/webhooks/mail", "/webhooks/mail", "/health", "/ready", "/?a=b", "//", "/..", "/%2e%2e/", "/%00",
    "/health/", "/webhooks/other", "*", "http://127.0.0.1/", "/é", "/ x", "/" + "a" * 9000, "", "/#x", "/;", "/%zz",
)  # fmt: skip
_METHODS = (
    "POST",
    "POST",
    "POST",
    "GET",
    "HEAD",
    "PUT",
    "DELETE",
    "OPTIONS",
    "PATCH",
    "TRACE",
    "CONNECT",
    "QUERY",
)
_HEADERS = (
    b"X-Signature: signed", b"X-Signature: signed", b"X-Signature: wrong", b"X-Signature: \xff", b"Origin: null",
    b"Host: evil.example", b"Host: [::1", b"Authorization: Bearer x", b"Authorization: \xe9", b"Expect: 100-continue",
    b"Expect: more", b"Content-Encoding: gzip", b"Content-Encoding: identity", b"Connection: close",
    b"Connection: keep-alive", b"Connection: Upgrade\r\nUpgrade: websocket", b"Upgrade: h2c", b"Via: 1.1 x", b"A:",
    b"Accept-Encoding: gzip, br", b"Content-Type: text/plain", b"Transfer-Encoding: chunked", b"Cookie: a=b; c",
    b"Content-Length: 0", b"X: " + b"y" * 9000, b": x", b"Bad Header: x", b" folded", b"X: a\x00b", b"X: \r y",
    b"X-Forwarded-For: 1.2.3.4", b"Range: bytes=0-1", b"If-Match: *", b"Trailer: X", b"Keep-Alive: 5",
)  # fmt: skip


def _framed(method: str, target: str, version: str, headers: list[bytes], body: bytes, framing: str) -> bytes:
    lines = [f"{method} {target} HTTP/{version}".encode(), b"Host: 127.0.0.1", *headers]
    if framing == "chunked":
        lines.append(b"Transfer-Encoding: chunked")
        cut = len(body) // 2
        body = (
            b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:cut], body[cut:]) if part)
            + b"0\r\n\r\n"
        )
    elif framing != "none":
        lines.append(b"Content-Length: %d" % (len(body) + {"length": 0, "short": -1, "long": 1}[framing]))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


_requests = st.builds(
    _framed,
    _one_of(*_METHODS),
    _one_of(*_TARGETS),
    _often(_one_of("1.1"), _one_of("1.0", "1.2", "2.0", "0.9", "x"), 15),
    st.lists(_one_of(*_HEADERS), max_size=2),
    _bodies,
    _often(_one_of("length", "chunked"), _one_of("none", "short", "long"), 15),
)


def _spoiled(data: bytes, start: float, size: int, instead: bytes) -> bytes:
    at = int(start * len(data))
    return data[:at] + instead + data[at + size :]


_broken = st.builds(_spoiled, _requests, st.floats(0, 1), st.integers(0, 12), st.binary(max_size=6))


def _job_in_order(job: dict[str, Any], framing: str) -> Conversation:
    data = _framed("POST", "/", "1.1", [b"Connection: close"], _written(job), framing)
    return Conversation(data, job, to_head=False)


def _to_door(body: bytes) -> bytes:
    return _framed("POST", "/", "1.1", [], body, "length")


def _to_webhook(body: bytes) -> bytes:
    return _framed("POST", "/webhooks/mail", "1.1", [b"X-Signature: signed"], body, "length")


def _one_after_the_other(parts: list[bytes]) -> Conversation:
    data = b"".join(parts)
    return Conversation(data, None, to_head=b"HEAD" in data)


_odd_jobs = st.builds(_to_door, _odd | _one_of(*_NO_JSON))
_odd_mails = st.builds(_to_webhook, st.binary(max_size=20))
_mixed = _odd_jobs | _odd_mails | _requests | _requests | _broken
_out_of_order = st.builds(_one_after_the_other, st.lists(_mixed, min_size=1, max_size=2))
_in_order = st.builds(_job_in_order, _fitting, _one_of("length", "chunked"))
conversations = cast("SearchStrategy[Conversation]", _often(_out_of_order, _in_order, 3))
