"""Takes secrets and payload values out of text before it is logged or stored.

Known secrets and values are found as they are and as Python and JSON quote them. A long value is also found in parts:
an error may quote the beginning of a page, or a part of it. All work is bounded, since the event loop waits for it.
"""

import json
import re
import traceback
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import cast

from listener.outcomes import ErrorText

_SHAPES = re.compile(
    r"""
    \b(?:sk|rk|pk)_(?:live|test)_\w+          # Stripe keys
  | \bwhsec_[\w+/=]+                          # Stripe webhook secrets
  | \bsb_(?:secret|publishable)_\w+           # Supabase keys
  | \bSG\.[\w.-]{16,}                         # SendGrid keys
  | (?<![\w-])eyJ[\w-]++\.[\w-]++\.[\w-]*      # JSON Web Tokens
  | /api/(?:v\d+/)?webhooks/\d+/[\w-]+        # Discord webhooks
  | -----BEGIN[ ][A-Z ]*PRIVATE[ ]KEY-----.*?(?:-----END[ ][A-Z ]*PRIVATE[ ]KEY-----|\Z)
  | (?<=://)[^/\s:@]+:[^/\s@]+(?=@)           # user:password in a URL
  | (?i:\b(?:bearer|basic)\s+)[\w.+/=-]{8,}   # Authorization headers
  | (?<![\w.+-])[\w.+-]++@[\w-]+\.[\w.-]+      # e-mail addresses (written so that long words cost no time)
  | (?i:\bapi[_-]?key["']?\s{0,3}[=:]\s{0,3}["']?)[\w.-]{8,}  # keys in URLs, headers and JSON
  | (?<=\binput_value=)[^\n]{0,300}(?=,[ ]input_type=)  # what pydantic quotes of the data that it refused
    """,
    re.VERBOSE | re.DOTALL,
)
_LONGEST_TEXT = 100_000
_LONGEST_MESSAGE = 2_000
_LONGEST_STACK = 8_000
_MOST_VALUES = 2_000
_SHORTEST_VALUE = 4
_LONG_VALUE = 64
_MOST_OF_LONG_VALUES = 2_000_000
# Of a long value every 16th window of 32 letters is known: a quoted part of 47 letters is found, wherever it begins.
_WINDOW, _STRIDE = 32, 16
_PLAIN_KEY = re.compile(r"[A-Za-z_]{1,30}")
_NAMELESS = "‹data›"


class Redactor:
    """Replaces what must not be read: known secrets by value, secret-looking text by shape, payload values by name."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        # The longest first, so that a secret that contains another is replaced whole.
        known = {form for secret in secrets if len(secret) >= 6 for form in _forms(secret)}
        self._secrets = sorted(known, key=len, reverse=True)

    def text(self, text: str, payload: Mapping[str, object] | None = None) -> str:
        """The text without secrets, and fit for the database; values of `payload` become ‹their.path›."""
        text = self._without_secrets(text[:_LONGEST_TEXT])
        if payload is not None:
            text = self._without_secrets(_without_values(text, payload))  # a path may have carried one
        return _SHAPES.sub("‹redacted›", _storable_text(text))

    def _without_secrets(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "‹secret›")
        return text

    def error(self, error: BaseException, payload: Mapping[str, object] | None = None) -> ErrorText:
        """The error as it may be stored: its class, its message and its stack, without locals and without secrets.

        The stack names files, lines and functions of the whole chain of causes; the messages in it are redacted too.
        """
        # Cut twice: first roughly, since an error may quote a whole page, then to size when nothing can be torn in two.
        try:
            stack = "".join(traceback.format_exception(error))[-10 * _LONGEST_STACK :]
            message = str(error)[: 10 * _LONGEST_MESSAGE]
        except Exception:  # noqa: BLE001 - an error that cannot be printed is an error all the same
            stack = message = ""
        return ErrorText(
            error_class=type(error).__name__,
            message=self.text(message, payload)[:_LONGEST_MESSAGE] or type(error).__name__,
            stack=self.text(stack, payload)[-_LONGEST_STACK:],
        )


def is_plain(key: str) -> bool:
    """Whether a key of a payload is surely only a name: keys can be values too, such as account numbers."""
    return _PLAIN_KEY.fullmatch(key) is not None


def storable(value: object) -> object:
    """The JSON value with texts that PostgreSQL can store: neither NUL nor half a surrogate pair."""
    match value:
        case str():
            return _storable_text(value)
        case dict():
            words = cast("dict[str, object]", value)
            return {_storable_text(name): storable(inner) for name, inner in words.items()}
        case list():
            return [storable(inner) for inner in cast("list[object]", value)]
        case _:
            return value


def _storable_text(text: str) -> str:
    return text.replace("\0", "␀").encode(errors="backslashreplace").decode()


def _without_values(text: str, payload: Mapping[str, object]) -> str:
    """The text with each value of the payload replaced by its path, all in one pass: no replacement is looked at."""
    leaves = list(islice(_leaves(payload), _MOST_VALUES + 1))
    size = sum(len(value) for _, value in leaves if len(value) >= _LONG_VALUE)
    if len(leaves) > _MOST_VALUES or size > _MOST_OF_LONG_VALUES:
        return "‹withheld: the payload is too large to tell its values from this text›" if text else text
    found: dict[str, str] = {}
    windows: dict[str, tuple[str, int]] = {}
    for path, value in leaves:
        for form in _forms(value):
            if form in text:
                found.setdefault(form, f"‹{path}›" if path else _NAMELESS)
            if len(form) >= _LONG_VALUE:
                for at in range(0, len(form) - _WINDOW + 1, _STRIDE):
                    windows[form[at : at + _WINDOW]] = form, at
    if found:
        longest_first = sorted(found, key=len, reverse=True)
        pattern = re.compile("|".join(map(re.escape, longest_first)))
        text = pattern.sub(lambda match: found[match[0]], text)
    return _without_windows(text, windows) if windows else text


def _without_windows(text: str, windows: Mapping[str, tuple[str, int]]) -> str:
    """The text without the parts of long values that it quotes, each to its very ends."""
    kept: list[str] = []
    done = at = 0
    while at <= len(text) - _WINDOW:
        if (known := windows.get(text[at : at + _WINDOW])) is None:
            at += 1
            continue
        value, place = known
        start, end = at, at + _WINDOW
        while start > done and place > 0 and text[start - 1] == value[place - 1]:
            start, place = start - 1, place - 1
        place += end - start
        while end < len(text) and place < len(value) and text[end] == value[place]:
            end, place = end + 1, place + 1
        kept += [text[done:start], _NAMELESS]
        done = at = end
    return "".join([*kept, text[done:]])


def _leaves(payload: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Each text or number in the payload that is long enough to be recognised, with its path."""
    todo: list[tuple[str, object]] = [("", payload)]  # a list and no recursion: data may be deep
    while todo:
        path, value = todo.pop()
        match value:
            case Mapping():
                for name, inner in cast("Mapping[str, object]", value).items():
                    step = name if is_plain(name) else "*"
                    todo.append((f"{path}.{step}" if path else step, inner))
            case list():
                todo += [(f"{path}[]", inner) for inner in cast("list[object]", value)]
            case None | bool():
                pass
            case _:
                text = str(value)
                if len(text) >= _SHORTEST_VALUE:
                    yield path[-100:], text


def _forms(text: str) -> set[str]:
    """The text as it is and as Python and JSON quote it."""
    return {text, repr(text)[1:-1], json.dumps(text)[1:-1]}
