"""Takes secrets and payload values out of text before it is logged or stored.

Known secrets and values are found as they are, as Python, JSON and HTML quote them, and as they stand in a URL; secrets
in Base64 too. A long value is also found in parts: an error may quote the beginning of a page, or a part of it. All
work is bounded, since the event loop waits for it.

The lines that a library logs while it serves a handler carry no payload with them. So the payload of an attempt is at
hand in its context, which tasks and threads of the handler inherit.
"""

import base64
import html
import json
import re
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from functools import cached_property
from itertools import islice
from typing import cast
from urllib.parse import quote, quote_plus

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
_LONGEST_NAME = 200
# Where a text is cut before it is read, what is cut in two is not recognised: so much beside the cut is left out.
_TORN = 512
_MOST_VALUES = 2_000
_MOST_PLACES = 20_000
_MOST_LINES = 50
_SHORTEST_SECRET = 6
_SHORTEST_PART = 12
_SHORTEST_VALUE = 4
_LONG_VALUE = 64
_MOST_OF_LONG_VALUES = 2_000_000
# Of a long value every 16th window of 32 letters is known: a quoted part of 47 letters is found, wherever it begins.
_WINDOW, _STRIDE = 32, 16
_PLAIN_KEY = re.compile(r"[A-Za-z_]{1,30}")
_NAMELESS = "‹data›"
_MARK = re.compile("‹[^‹›]{1,120}›|›[^‹›]{1,120}‹")  # read backwards too
_OF_SHAPES = ("redacted", "redacted"[::-1])  # what has a shape may be part of a value
_PERCENT = re.compile(r"%[0-9A-F]{2}")


class Redactor:
    """Replaces what must not be read: known secrets by value, secret-looking text by shape, payload values by name."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._known: set[str] = set()
        self.learn(secrets)

    def learn(self, secrets: Iterable[str]) -> None:
        """From now on these too."""
        # The longest first, so that a secret that contains another is replaced whole.
        self._known |= {form for secret in secrets for form in _forms_of_secret(secret)}
        self._secrets = sorted(self._known, key=len, reverse=True)
        self._torn = max([_TORN, *map(len, self._known)])

    def text(self, text: str, payload: Mapping[str, object] | None = None) -> str:
        """The text without secrets, and fit for the database; values of `payload` become ‹their.path›.

        Without a payload: those of the attempt in whose context this is called, if there is one.
        """
        values = _at_hand.get() if payload is None else _Values(payload)
        is_cut = len(text) > _LONGEST_TEXT
        clean = self._clean(text[:_LONGEST_TEXT], values)
        return self._without_torn_end(clean) if is_cut else clean

    def _clean(self, text: str, values: "_Values | None") -> str:
        text = self._without_secrets(text)
        if values is not None:
            text = self._without_secrets(values.left_out_of(text))  # a path may have carried one
        return _SHAPES.sub("‹redacted›", _storable_text(text))

    def _without_torn_end(self, text: str) -> str:
        """Without what stands behind the last thing that was recognised, as far as it may be part of another."""
        marks = [match for match in _MARK.finditer(text) if match[0].strip("‹›") not in _OF_SHAPES]
        return text[: max(marks[-1].end() if marks else 0, len(text) - self._torn)]

    def _without_secrets(self, text: str) -> str:
        looked_up = {form for secret in _looked_up.get() or () for form in _forms_of_secret(secret)}
        for secret in [*sorted(looked_up, key=len, reverse=True), *self._secrets]:
            text = text.replace(secret, "‹secret›")
        return text

    def error(self, error: BaseException, payload: Mapping[str, object] | None = None) -> ErrorText:
        """The error as it may be stored: its class, its message and its stack, without locals and without secrets.

        The stack names files, lines and functions of the whole chain of causes; the messages in it are redacted too.
        """
        # Cut twice: first roughly, since an error may quote a whole page, then to size when nothing can be torn in two.
        try:
            whole_stack = "".join(traceback.format_exception(error))
            whole_message = str(error)
        except Exception:  # noqa: BLE001 - an error that cannot be printed is an error all the same
            whole_stack = whole_message = ""
        values = _at_hand.get() if payload is None else _Values(payload)
        name = self._clean(type(error).__name__, values)[:_LONGEST_NAME]
        message = self._clean(whole_message[: 10 * _LONGEST_MESSAGE], values)
        if len(whole_message) > 10 * _LONGEST_MESSAGE:
            message = self._without_torn_end(message)
        stack = self._clean(whole_stack[-5 * _LONGEST_STACK :], values)
        if len(whole_stack) > 5 * _LONGEST_STACK:
            stack = self._without_torn_end(stack[::-1])[::-1]
        return ErrorText(
            error_class=name, message=message[:_LONGEST_MESSAGE] or name, stack=stack[-_LONGEST_STACK:]
        )


def keep_at_hand(payload: Mapping[str, object]) -> None:
    """From now on whatever is redacted in this context, by any Redactor, is without the values of this payload."""
    _at_hand.set(_Values(payload))
    _looked_up.set(set())


def strike_out(*secrets: str) -> None:
    """Secrets that a handler has looked up: what is redacted in its attempt from now on is without them too."""
    if (looked_up := _looked_up.get()) is not None:
        looked_up.update(secrets)


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


class _Values:
    """The values of a payload, made ready once to be looked for in many texts."""

    def __init__(self, payload: Mapping[str, object]) -> None:
        self._payload = payload

    @cached_property
    def _known(self) -> "tuple[dict[str, str], dict[str, tuple[str, int]]] | None":
        """Each form of each value with what is written instead, and windows of the long ones; None: too many."""
        leaves = list(islice(_leaves(self._payload), _MOST_VALUES + 1))
        size = sum(len(value) for _, value in leaves if len(value) >= _LONG_VALUE)
        if len(leaves) > _MOST_VALUES or size > _MOST_OF_LONG_VALUES:
            return None
        forms: dict[str, str] = {}
        windows: dict[str, tuple[str, int]] = {}
        for path, value in leaves:
            for form in _forms(value):
                forms.setdefault(form, f"‹{path}›" if path else _NAMELESS)
                if len(form) >= _LONG_VALUE:
                    for at in range(0, len(form) - _WINDOW + 1, _STRIDE):
                        windows[form[at : at + _WINDOW]] = form, at
        return forms, windows

    def left_out_of(self, text: str) -> str:
        """The text with each value replaced by its path, all in one pass: no replacement is looked at."""
        if not text:
            return text
        if self._known is None:
            return "‹withheld: the payload is too large to tell its values from this text›"
        forms, windows = self._known
        places: list[tuple[int, int, str]] = []
        for form, instead in forms.items():
            at = text.find(form)
            while at >= 0:
                places.append((at, -len(form), instead))
                at = text.find(form, at + len(form))
            if len(places) > _MOST_PLACES:
                return "‹withheld: this text consists of values of the payload›"
        text = _replaced(text, places)
        return _without_windows(text, windows) if windows else text


_at_hand: ContextVar[_Values | None] = ContextVar("payload of the attempt", default=None)
_looked_up: ContextVar[set[str] | None] = ContextVar("secrets of the attempt", default=None)


def _replaced(text: str, places: list[tuple[int, int, str]]) -> str:
    """The text with (start, minus length, instead) carried out; where places overlap, all of them go as one."""
    kept: list[str] = []
    done = 0
    for start, minus_length, instead in sorted(places):
        end = start - minus_length
        if start >= done:
            kept += [text[done:start], instead]
        done = max(done, end)
    return "".join([*kept, text[done:]])


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
                    below = f"{path}.{step}" if path else step
                    todo.append((below, inner))
                    if step == "*" and len(name) >= _SHORTEST_VALUE:
                        yield below[-100:], name
            case list():
                todo += [(f"{path}[]", inner) for inner in cast("list[object]", value)]
            case None | bool():
                pass
            case _:
                text = str(value)
                if len(text) >= _SHORTEST_VALUE:
                    yield path[-100:], text
                if "\n" in text:  # the stack of an exception group indents each line
                    for line in islice(text.splitlines(), _MOST_LINES):
                        if len(line.strip()) >= _SHORTEST_VALUE:
                            yield path[-100:], line.strip()


def _forms(text: str) -> set[str]:
    """The text as it is, as Python, JSON and HTML quote it, and as it stands in a URL."""
    if text.isascii() and text.isalnum():
        return {text}
    in_json = json.dumps(text)
    in_url = {quote(text, errors="replace"), quote(text, safe="", errors="replace")}
    in_url.add(quote_plus(text, errors="replace"))
    return {
        text,
        repr(text)[1:-1],
        repr("'\"" + text)[4:-1],  # within a longer text that has both quotes in it
        repr(text.encode(errors="surrogatepass"))[2:-1],
        in_json[1:-1],
        json.dumps(in_json)[3:-3],
        json.dumps(text, ensure_ascii=False)[1:-1],
        html.escape(text, quote=False),
        html.escape(text),
        *in_url,
        *(_PERCENT.sub(lambda match: match[0].lower(), one) for one in in_url),
    }


def _forms_of_secret(secret: str) -> Iterator[str]:
    """The secret, and its parts where it has lines, in all forms; in Base64 whatever it begins within."""
    parts = [part.strip() for part in secret.splitlines()] if len(secret.splitlines()) > 1 else []
    for one in [secret, *(part for part in parts if len(part) >= _SHORTEST_PART)]:
        if len(one) < _SHORTEST_SECRET:
            continue
        yield from _forms(one)
        data = one.encode(errors="surrogatepass")
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            for before in range(3):
                # The first and the last letter of it share bits with what stands around it.
                text = encode(bytes(before) + data).decode()
                inner = text[(0, 2, 3)[before] : -1 - text.count("=") if text.endswith("=") else None]
                if len(inner) >= _SHORTEST_PART:
                    yield inner
