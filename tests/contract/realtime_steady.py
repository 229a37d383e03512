"""What changes from run to run in Realtime's frames, and what is compared in its place: the rules, all of them.

* Binding ids differ from server to server. Each recorded id stands for one of ours, the same all through a recording.
* A broadcast's `meta.id` is a uuid, and the `id` in its payload the same one; what it is is not compared.
* Of the rate headers of an HTTP answer the limit is compared, not how much of it is used up.
* A row's `id` (a uuid), `created_at` and `commit_timestamp` are compared by their form, not by their value.
* "Token has expired N seconds ago": N is not compared.
* The time of day in a handshake's headers, its key and the server's name are not compared; nor is `Connection`,
  which the recorder wrote.
* A long frame was cut in the middle when it was recorded: its beginning and end are compared, and its length.
* Numbers are rounded by JSON parsers, so the length of an event's text is compared besides its parsed values.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, cast

Frame = dict[str, Any]
_EXPIRED = re.compile(r"Token has expired \d+ seconds ago")
_COMMITTED = re.compile(r'"commit_timestamp":"[^"]+"')
_IDS = re.compile(r'"ids":\[[^]]*\]')
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_KEPT = slice(0, 2900), slice(-300, None)  # of a long frame: its beginning and its end
_HEADERS = ("cache-control", "content-length", "vary", "x-rate-limit")


def bindings(frame: Frame) -> list[Frame]:
    """The bindings that a join's reply echoes; none for any other frame."""
    response = frame["payload"].get("response", {})
    return cast(list[Frame], response.get("postgres_changes", []))


def frame(sent: Frame, ids: Mapping[int, int]) -> Frame:
    """The frame without what differs from run to run; `ids` renames the recorded binding ids."""
    copy: Frame = json.loads(_EXPIRED.sub("Token has expired N seconds ago", json.dumps(sent)))
    for binding in bindings(copy):
        binding["id"] = ids.get(binding["id"], binding["id"])
    if copy["event"] == "postgres_changes":
        copy["payload"]["ids"] = sorted(ids.get(each, each) for each in copy["payload"]["ids"])
        _blank(copy["payload"]["data"])
    if copy["event"] == "broadcast" and "meta" in copy["payload"]:
        _blank_message(copy["payload"])
    return copy


def length(sent: Frame, size: int) -> int | None:
    """The length of an event's text without the values whose length changes; None for any other frame."""
    if sent["event"] == "broadcast":
        row: Frame = sent["payload"]["payload"].get("record") or {}
        return size - len(f"{row.get('created_at')}")
    if sent["event"] != "postgres_changes":
        return None
    record: Frame = sent["payload"]["data"].get("record", {})
    return size - len(f"{sent['payload']['ids']}{record.get('created_at')}")


def clipped(text: str) -> list[str]:
    """The beginning and the end of a long frame, made comparable."""
    parts = (text[kept] for kept in _KEPT)
    parts = (_UUID.sub("uuid", part) for part in parts)
    return [_IDS.sub('"ids":[]', _COMMITTED.sub('"commit_timestamp":"at"', part)) for part in parts]


def headers(sent: Mapping[str, str]) -> dict[str, str]:
    """The headers of a handshake's answer that are the server's own choice."""
    lower = {name.lower(): value for name, value in sent.items()}
    return {name: lower[name] for name in _HEADERS if name in lower}


def _blank_message(payload: Frame) -> None:
    inner = payload["payload"]
    if inner.get("id") == payload["meta"]["id"]:
        inner["id"] = "the same"
    payload["meta"]["id"] = len(payload["meta"]["id"])
    _blank_records(inner)


def _blank(data: Frame) -> None:
    if data["commit_timestamp"] is not None:
        data["commit_timestamp"] = len(data["commit_timestamp"])
    _blank_records(data)


def _blank_records(data: Frame) -> None:
    for record in (data.get("record"), data.get("old_record")):
        if record and "created_at" in record:
            record["created_at"] = "at"
        if record and isinstance(record.get("id"), str):
            record["id"] = "id"
