"""Takes secrets and payload values out of text before it is logged or stored."""

import json
import re
import traceback
from collections.abc import Iterable, Iterator, Mapping
from typing import cast

from listener.outcomes import ErrorText

_SHAPES = re.compile(
    r"""
    \b(?:sk|rk|pk)_(?:live|test)_\w+          # Stripe keys
  | \bwhsec_[\w+/=]+                          # Stripe webhook secrets
  | \bsb_(?:secret|publishable)_\w+           # Supabase keys
  | \bSG\.[\w.-]{16,}                         # SendGrid keys
  | \beyJ[\w-]+\.[\w-]+\.[\w-]*               # JSON Web Tokens
  | /api/(?:v\d+/)?webhooks/\d+/[\w-]+        # Discord webhooks
  | -----BEGIN[ ][A-Z ]*PRIVATE[ ]KEY-----.*?(?:-----END[ ][A-Z ]*PRIVATE[ ]KEY-----|\Z)
  | (?<=://)[^/\s:@]+:[^/\s@]+(?=@)           # user:password in a URL
  | (?i:\b(?:bearer|basic)\s+)[\w.+/=-]{8,}   # Authorization headers
  | (?<![\w.+-])[\w.+-]++@[\w-]+\.[\w.-]+      # e-mail addresses (written so that long words cost no time)
  | (?<=\binput_value=)[^\n]*(?=,[ ]input_type=)  # what pydantic quotes of the data that it refused
    """,
    re.VERBOSE | re.DOTALL,
)
_LONGEST_MESSAGE = 2_000
_LONGEST_STACK = 8_000


class Redactor:
    """Replaces what must not be read: known secrets by value, secret-looking text by shape, payload values by name."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        # The longest first, so that a secret that contains another is replaced whole.
        known = {form for secret in secrets if len(secret) >= 6 for form in _forms(secret)}
        self._secrets = sorted(known, key=len, reverse=True)

    def text(self, text: str, payload: Mapping[str, object] | None = None) -> str:
        """The text without secrets, and fit for the database; values of `payload` become ‹their.path›."""
        text = self._without_secrets(text)
        if payload is not None:
            named = sorted(_leaves(payload), key=lambda leaf: len(leaf[1]), reverse=True)
            for path, value in named:
                text = text.replace(value, f"‹{path}›")
            text = self._without_secrets(text)  # a path may have carried one
        # PostgreSQL stores neither NUL nor half a surrogate pair; an outcome must not be refused for its error text.
        text = text.replace("\0", "␀").encode(errors="backslashreplace").decode()
        return _SHAPES.sub("‹redacted›", text)

    def _without_secrets(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "‹secret›")
        return text

    def error(self, error: BaseException, payload: Mapping[str, object] | None = None) -> ErrorText:
        """The error as it may be stored: its class, its message and its stack, without locals and without secrets.

        The stack names files, lines and functions of the whole chain of causes; the messages in it are redacted too.
        """
        # Cut twice: first roughly, since an error may quote a whole page, then to size when nothing can be torn in two.
        stack = "".join(traceback.format_exception(error))[-10 * _LONGEST_STACK :]
        try:
            message = str(error)[: 10 * _LONGEST_MESSAGE]
        except Exception:  # noqa: BLE001 - an error that cannot be printed is an error all the same
            message = ""
        return ErrorText(
            error_class=type(error).__name__,
            message=self.text(message, payload)[:_LONGEST_MESSAGE] or type(error).__name__,
            stack=self.text(stack, payload)[-_LONGEST_STACK:],
        )


def _leaves(payload: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Each text or number in the payload that is long enough to be recognised, with its path."""
    todo: list[tuple[str, object]] = [("", payload)]  # a list and no recursion: data may be deep
    while todo:
        path, value = todo.pop()
        match value:
            case Mapping():
                for name, inner in cast("Mapping[str, object]", value).items():
                    todo.append((f"{path}.{name}" if path else name, inner))
            case list():
                todo += [(f"{path}[]", inner) for inner in cast("list[object]", value)]
            case None | bool():
                pass
            case _:
                text = str(value)
                if len(text) >= 4:
                    yield from ((path, form) for form in _forms(text))


def _forms(text: str) -> set[str]:
    """The text as it is and as Python and JSON quote it."""
    return {text, repr(text)[1:-1], json.dumps(text)[1:-1]}
