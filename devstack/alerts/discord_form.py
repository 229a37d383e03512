"""What Discord looks at in a message, and the errors it has for it, by field.

Lengths are code points, after the spaces around a text are taken away. A field that Discord has not is an error here
(Discord itself would pass it over), and so is a message that leaves open who is mentioned.
"""

import re
from collections.abc import Callable
from typing import Any, Final, cast

Json = dict[str, Any]
Check = Callable[[Any], str | None]
"""The code of what is wrong with a value; None: nothing."""

MOST_OF_ALL: Final = 6000
_SHOWS_NOTHING: Final = "\u200b\u200c\u200d\u2060\ufeff"


def faults_of(message: Json) -> Json:
    """The errors of a message as Discord nests them; empty if it is good."""
    faults = _fields(message, _MESSAGE)
    mentions = message.get("allowed_mentions")
    if mentions != {"parse": []}:
        faults["allowed_mentions"] = _error("DOUBLE_WANTS_NO_MENTIONS", "Say that nobody is mentioned.")
    embeds = message.get("embeds", [])
    if not faults and sum(_letters(embed) for embed in embeds) > MOST_OF_ALL:
        return {
            "embeds": _error("MAX_EMBED_SIZE_EXCEEDED", f"Embed size exceeds maximum size of {MOST_OF_ALL}")
        }
    return faults


def _text(most: int) -> Check:
    def check(value: Any) -> str | None:
        if not isinstance(value, str):
            return "STRING_TYPE_CONVERT"
        shown = value.strip().strip(_SHOWS_NOTHING)
        return "BASE_TYPE_REQUIRED" if not shown else "BASE_TYPE_MAX_LENGTH" if len(shown) > most else None

    return check


def _colour(value: Any) -> str | None:
    if not isinstance(value, int) or isinstance(value, bool):
        return "NUMBER_TYPE_COERCE"
    return None if 0 <= value <= 0xFFFFFF else "NUMBER_TYPE_MAX"


def _flag(value: Any) -> str | None:
    return None if isinstance(value, bool) else "BOOLEAN_TYPE_CONVERT"


def _url(value: Any) -> str | None:
    is_one = isinstance(value, str) and re.fullmatch(r"https?://[^\s/]+\S*", value) and len(value) <= 2048
    return None if is_one else "URL_TYPE_INVALID_URL"


def _moment(value: Any) -> str | None:
    shape = r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:\d\d)"
    return None if isinstance(value, str) and re.fullmatch(shape, value) else "DATE_TIME_TYPE_PARSE"


def _anything(_: Any) -> str | None:
    return None


class _Object(dict[str, "Check | _Object | _List"]):
    """An object with these fields; those that are needed end with `!`."""


class _List:
    def __init__(self, of: _Object, most: int) -> None:
        self.of, self.most = of, most


_FIELD: Final = _Object({"name!": _text(256), "value!": _text(1024), "inline": _flag})
_EMBED: Final = _Object(
    {
        "title": _text(256),
        "description": _text(4096),
        "url": _url,
        "timestamp": _moment,
        "color": _colour,
        "footer": _Object({"text!": _text(2048), "icon_url": _url}),
        "author": _Object({"name!": _text(256), "url": _url, "icon_url": _url}),
        "fields": _List(_FIELD, 25),
    }
)
_MESSAGE: Final = _Object(
    {
        "content": _text(2000),
        "username": _text(80),
        "tts": _flag,
        "embeds": _List(_EMBED, 10),
        "allowed_mentions": _anything,
    }
)


def _error(code: str, message: str) -> Json:
    return {"_errors": [{"code": code, "message": message}]}


def _fields(value: Any, shape: _Object) -> Json:
    if not isinstance(value, dict):
        return _error("MODEL_TYPE_CONVERT", "Only dictionaries may be used in a ModelType")
    faults: Json = {}
    known: dict[str, Check | _Object | _List] = {name.rstrip("!"): check for name, check in shape.items()}
    given = cast("Json", value)
    for name in (one.rstrip("!") for one in shape if one.endswith("!")):
        if name not in given:
            faults[name] = _error("BASE_TYPE_REQUIRED", "This field is required")
    for name, one in given.items():
        found = _looked_at(one, known[name]) if name in known else _error("DOUBLE_KNOWS_NO_SUCH_FIELD", "?")
        if found:
            faults[name] = found
    return faults


def _looked_at(value: Any, check: "Check | _Object | _List") -> Json:
    if isinstance(check, _Object):
        return _fields(value, check)
    if isinstance(check, _List):
        if not isinstance(value, list):
            return _error("LIST_TYPE_CONVERT", "Only iterables may be used in a ListType")
        ones = cast("list[object]", value)
        if len(ones) > check.most:
            return _error("BASE_TYPE_MAX_LENGTH", f"Must be {check.most} or fewer in length.")
        each = {str(number): _fields(one, check.of) for number, one in enumerate(ones)}
        return {number: faults for number, faults in each.items() if faults}
    code = check(value)
    return {} if code is None else _error(code, "This field is not as it should be.")


def _letters(embed: Json) -> int:
    texts = [embed.get("title"), embed.get("description"), embed.get("footer", {}).get("text")]
    texts.append(embed.get("author", {}).get("name"))
    texts += [text for one in embed.get("fields", []) for text in (one["name"], one["value"])]
    return sum(len(text.strip()) for text in texts if text)
