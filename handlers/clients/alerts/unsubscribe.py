"""Links by which the owner of an address ends our mails, without an account and without a login (RFC 8058).

The link carries the address and what it ends, and a seal over both that only we can make. So it works for as long as
the secret does, whatever became of the mail, the account or our rows; and nobody can make one for somebody else.
"""

import base64
import binascii
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from html import escape
from typing import Final, Literal, Self, get_args
from urllib.parse import urlsplit

from listener import ConfigError, Setting, Settings

PULSE_DOOR_URL = Setting(
    "PULSE_DOOR_URL",
    "where your readers reach `pulse web`, such as https://jobs.example.com",
    required=False,
    secret=False,
)
EMAIL_UNSUBSCRIBE_SECRET = Setting(
    "EMAIL_UNSUBSCRIBE_SECRET",
    "any long random text; the same for `pulse worker` and `pulse web`, and two with a comma while you change it",
    required=False,
)
PATH: Final = "/unsubscribe/"
Scope = Literal["all", "digest"]
_SCOPES: Final[Sequence[Scope]] = get_args(Scope)
_SEAL_BYTES: Final = 16
_SHORTEST_SECRET: Final = 16


@dataclass(frozen=True, slots=True)
class Unsubscribed:
    """Whom a token is about, and what it ends."""

    address: str
    scope: Scope


@dataclass(frozen=True, slots=True)
class Unsubscribing:
    """Makes the links."""

    door_url: str
    secret: str

    @classmethod
    def of(cls, settings: Settings) -> Self | None:
        """None while it is not set up; ConfigError when it is set up badly."""
        url, secrets = settings.get(PULSE_DOOR_URL.name, ""), secrets_of(settings)
        if not url or not secrets:
            return None
        parts = urlsplit(url)
        problems: list[str] = []
        if parts.scheme not in ("https", "http") or not parts.hostname or parts.query or parts.fragment:
            problems.append(f"{PULSE_DOOR_URL.name} has to be a URL: {PULSE_DOOR_URL.where}.")
        if any(len(secret) < _SHORTEST_SECRET for secret in secrets):
            problems.append(
                f"{EMAIL_UNSUBSCRIBE_SECRET.name} is too short: {EMAIL_UNSUBSCRIBE_SECRET.where}."
            )
        if problems:
            raise ConfigError(problems)
        return cls(url.rstrip("/"), secrets[0])

    def url(self, address: str, scope: Scope) -> str:
        """The link for one address."""
        return f"{self.door_url}{PATH}{token(address, scope, self.secret)}"


def secrets_of(settings: Settings) -> list[str]:
    """The first makes links, all of them are good for reading some."""
    return [one.strip() for one in settings.get(EMAIL_UNSUBSCRIBE_SECRET.name, "").split(",") if one.strip()]


def token(address: str, scope: Scope, secret: str) -> str:
    """Letters that may stand in a path."""
    said = bytes([_SCOPES.index(scope)]) + address.lower().encode()
    return base64.urlsafe_b64encode(_seal(said, secret) + said).rstrip(b"=").decode()


def read_token(said: str, secrets: Sequence[str]) -> Unsubscribed | None:
    """What one of our tokens says; None when it is none of ours."""
    try:
        raw = base64.b64decode(said.encode() + b"=" * (-len(said) % 4), altchars=b"-_", validate=True)
        seal, words = raw[:_SEAL_BYTES], raw[_SEAL_BYTES:]
        if not any(hmac.compare_digest(seal, _seal(words, secret)) for secret in secrets):
            return None
        return Unsubscribed(words[1:].decode(), _SCOPES[words[0]])
    except (binascii.Error, UnicodeError, IndexError):
        return None


def unsubscribe_page(asked: Unsubscribed, *, is_done: bool) -> str:
    """What a person sees who followed the link: one button, or that it is done."""
    what = "digests" if asked.scope == "digest" else "alerts and digests"
    name, _, domain = asked.address.rpartition("@")
    masked = escape(f"{name[:1]}…@{domain}")  # links are passed on
    if is_done:
        title, words = "Done", f"<p>No {what} are sent to <b>{masked}</b> any more.</p>"
    else:
        title = "Unsubscribe?"
        button = '<form method="post"><button type="submit">Unsubscribe</button></form>'
        words = f"<p>No more {what} to <b>{masked}</b>.</p>{button}"
    return _PAGE.format(title=title, words=words)


_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<meta name="color-scheme" content="light dark"><meta name="robots" content="noindex"><title>{title}</title>
<style>
body{{font:16px/1.5 system-ui,sans-serif;max-width:30em;margin:15vh auto;padding:0 1.5em;overflow-wrap:anywhere}}
button{{font:inherit;font-weight:600;padding:.6em 1.4em;border:0;border-radius:6px;background:#111827;color:#fff}}
@media (prefers-color-scheme:dark){{button{{background:#e5e7eb;color:#111827}}}}
</style></head><body><h1>{title}</h1>{words}</body></html>
"""


def _seal(said: bytes, secret: str) -> bytes:
    return hmac.new(secret.encode(), b"unsubscribe:" + said, sha256).digest()[:_SEAL_BYTES]
