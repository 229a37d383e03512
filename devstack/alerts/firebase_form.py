"""What FCM's HTTP v1 API looks at in a message, and what it says when it is not as it should be."""

import json
import re
from typing import Any, Final, cast

Json = dict[str, Any]

MOST_BYTES: Final = 4096
"""Of notification and data; and of what Apple gets."""
_TEXT: Final = str
_SHAPE: Final[Json] = {
    "token": _TEXT,
    "fid": _TEXT,
    "data": {"*": _TEXT},
    "notification": {"title": _TEXT, "body": _TEXT, "image": _TEXT},
    "android": {
        "collapse_key": _TEXT,
        "priority": re.compile("(?i)high|normal"),
        "ttl": re.compile(r"\d+(\.\d{1,9})?s"),
        "notification": {"tag": _TEXT, "title": _TEXT, "body": _TEXT},
    },
    "apns": {
        "headers": {
            "apns-collapse-id": re.compile(".{1,64}"),
            "apns-priority": re.compile("10|5|1"),
            "apns-expiration": re.compile(r"\d{1,12}"),
        },
        "payload": {"aps": {"thread-id": _TEXT, "alert": _TEXT}},
    },
    "webpush": {
        "headers": {
            "Topic": re.compile("[A-Za-z0-9_-]{1,32}"),
            "TTL": re.compile(r"\d{1,7}"),
            "Urgency": re.compile("very-low|low|normal|high"),
        },
        "fcm_options": {"link": re.compile("https://.+")},
    },
}
_RESERVED: Final = re.compile(r"from|message_type|gcm.*|google.*")


def fault_of(words: object) -> str | None:
    """The message of the error; None: it is good. Says `message.token` where that is what is wrong."""
    given = cast("Json", words) if isinstance(words, dict) else {}
    if set(given) != {"message"} or not isinstance(given["message"], dict):
        return "Invalid JSON payload received."
    message = cast("Json", given["message"])
    if (wrong := _looked_at(message, _SHAPE, "message")) is not None:
        return wrong
    if ("token" in message) == ("fid" in message):
        return "Exactly one of token, fid, topic or condition is required."
    if any(_RESERVED.fullmatch(name) for name in message.get("data", {})):
        return "Invalid data payload key."
    content: Json = {name: message[name] for name in ("notification", "data") if name in message}
    if len(json.dumps(content, ensure_ascii=False).encode()) > MOST_BYTES:
        return "Android message is too big"
    if "collapse_key" not in message.get("android", {}):
        return "The double wants messages that replace their copies."
    return None


def _looked_at(value: object, shape: object, path: str) -> str | None:
    if isinstance(shape, re.Pattern):
        good = isinstance(value, str) and cast("re.Pattern[str]", shape).fullmatch(value) is not None
        return None if good else f"Invalid value at '{path}'"
    if not isinstance(shape, dict):
        return None if isinstance(value, str) else f"Invalid value at '{path}' (TYPE_STRING)"
    if not isinstance(value, dict):
        return f"Invalid value at '{path}'"
    fields, given = cast("Json", shape), cast("Json", value)
    for name, one in given.items():
        if name not in fields and "*" not in fields:
            return f"Invalid JSON payload received. Unknown name \"{name}\" at '{path}': Cannot find field."
        if (wrong := _looked_at(one, fields.get(name, fields.get("*")), f"{path}.{name}")) is not None:
            return wrong
    return None
