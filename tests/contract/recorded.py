"""Recorded conversations with a real server: reads them and says what has to be the same today."""

import base64
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from devstack.keys import Keys

RECORDINGS = Path(__file__).parents[1] / "recordings"
VOLATILE_HEADERS = {"date", "server", "content-length", "transfer-encoding"}
_CLIPPED = " … "
_FEW = 1  # differing headers that are named one by one
NOTHING = "<no body>"
_SINCE_13 = "proxy-status"  # a header that version 12 did not send yet
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:\+00:00|\+00)?")


@dataclass(frozen=True)
class Reply:
    """A reply with everything that changes from run to run taken out."""

    status: int
    headers: dict[str, str]
    body: Any
    server: str = field(default="", compare=False)
    text: str = field(default="", compare=False)

    @property
    def code(self) -> str | None:
        """The error code, if it is an error."""
        return self.said("code")

    def said(self, key: str) -> str | None:
        """One value of the body, if it is an object that has it."""
        try:
            return str(self.body[key])
        except (TypeError, KeyError):
            return None


@dataclass(frozen=True)
class Exchange:
    """One recorded request and, unless the server stayed silent, its reply."""

    case: str
    method: str
    path: str
    headers: dict[str, str]
    body: bytes | None
    reply: Reply | None


def exchanges(name: str) -> Iterator[Exchange]:
    """The conversations of one recording, in order; tokens are renewed so that they are as old as they were then."""
    case, request, began = "", None, 0.0
    for line in (RECORDINGS / name).read_text().splitlines():
        entry: dict[str, Any] = json.loads(line)
        if entry["dir"] == "meta":
            began = datetime.fromisoformat(entry["wall"]).timestamp()
        elif entry.get("kind") == "mark" or entry.get("kind") == "client_error":
            if request is not None:
                yield _exchange(case, request, None, began)
            case, request = entry.get("case", case), None
        elif entry.get("kind") == "http" and entry["dir"] == "c->s":
            request = entry
        elif entry.get("kind") == "http" and request is not None:
            yield _exchange(case, request, entry, began)
            request = None


def unlike(expected: Reply, got: Reply) -> str:
    """The names of the fields that differ, as in `status, body, header retry-after`; empty when none does."""
    if expected.server.startswith("postgrest/12"):
        got = replace(got, headers={k: v for k, v in got.headers.items() if k != _SINCE_13})
    fields = [
        name
        for name in ("status", "body")
        if getattr(expected, name) != getattr(_clipped(got, expected), name)
    ]
    names = sorted(expected.headers.keys() | got.headers.keys())
    headers = [name for name in names if expected.headers.get(name) != got.headers.get(name)]
    if len(headers) > _FEW:
        return ", ".join([*fields, "headers"])
    return ", ".join(fields + [f"header {name}" for name in headers])


def _clipped(got: Reply, expected: Reply) -> Reply:
    """Long bodies were recorded by their length and by how they begin and end."""
    clipped = expected.said("clipped") or ""
    if _CLIPPED not in clipped:
        return got
    begin, end = (len(part) for part in clipped.split(_CLIPPED))
    return replace(got, body={"clipped": got.text[:begin] + _CLIPPED + got.text[-end:], "len": len(got.text)})


def steady(status: int, headers: dict[str, str], text: str) -> Reply:
    """A reply as it can be compared: ids and times are replaced, JSON is parsed."""
    try:
        body = json.loads(text) if text else NOTHING
    except ValueError:
        body = text
    kept = {k.lower(): _constant(v) for k, v in headers.items() if k.lower() not in VOLATILE_HEADERS}
    server = next((v for k, v in headers.items() if k.lower() == "server"), "")
    return Reply(status, kept, json.loads(_constant(json.dumps(body))), server, text)


def _exchange(case: str, request: dict[str, Any], reply: dict[str, Any] | None, began: float) -> Exchange:
    age = time.time() - (began + request["t_ms"] / 1000)
    body = request["body"]
    headers = {k: _renewed(v, age) for k, v in request["headers"].items()}
    if request["method"] == "POST":
        # What the recording proxy put there; PostgREST itself takes a body without a type for JSON.
        headers.setdefault("Content-Type", "application/octet-stream")
    steadied = None
    if reply is not None:
        text = "" if reply["body"] is None and not reply["body_len"] else json.dumps(reply["body"])
        steadied = steady(reply["status"], dict(reply["headers"]), text)
    raw = body.encode() if isinstance(body, str) else json.dumps(body).encode() if body is not None else None
    return Exchange(case, request["method"], request["path"], headers, raw, steadied)


def _renewed(header: str, age: float) -> str:
    """A token signed with the public local secret is signed again with its times moved to today."""
    scheme, _, token = header.rpartition(" ")
    keys, parts = Keys(), token.split(".")
    if len(parts) != 3 or keys.signature(".".join(parts[:2])) != parts[2]:
        return header
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(parts[1] + "=="))
    for name in {"exp", "nbf", "iat"} & claims.keys():
        claims[name] = int(claims[name] + age)
    return f"{scheme} {keys.sign(claims)}".strip()


def _constant(text: str) -> str:
    return _TIME.sub("<time>", _UUID.sub("<uuid>", text))
