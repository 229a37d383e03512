"""Who may insert at the door, how often, and what of their request's head counts.

With a token, whoever sends it (`Authorization: Bearer …`), as often as its limit allows. Without one, only programs on
this machine, and no web page that a browser on this machine has open (an Origin, or another host name, is refused), nor
anybody whom a proxy on this machine lets in.
"""

import math
import re
from typing import Final

from aiohttp import web

from listener.config import is_loopback
from listener.doorkeeper import Refused
from listener.store import Store
from listener.tokens import Token, Tokens

# What a proxy says of those for whom it asks.
_PROXIED: Final = (
    "Forwarded",
    "Via",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Real-IP",
)
_LOCAL: Final = Token("local", "")
_KEY = re.compile(r"[\x21-\x7e]{1,128}")
# What curl says of a body when nobody tells it otherwise is among them: the body is read as JSON whatever it is called.
_KINDS: Final = (
    "",
    "application/json",
    "application/x-www-form-urlencoded",
    "text/plain",
    "application/octet-stream",
)


class Admission:
    """Of one door."""

    def __init__(self, tokens: Tokens, *, open_to_all: bool) -> None:
        self._tokens = tokens
        self._open_to_all = open_to_all

    def admit(self, request: web.BaseRequest) -> Token:
        """Who it is; raises Refused."""
        if self._tokens:
            found = self._tokens.find(_sent_token(request))
            if found is None:
                sentence = "Send the door's token: Authorization: Bearer <PULSE_DOOR_TOKEN>."
                raise Refused(401, sentence, headers={"WWW-Authenticate": "Bearer"})
            return found
        if self._open_to_all:
            raise Refused(403, "This door is open to the network: set PULSE_DOOR_TOKEN to insert jobs here.")
        if any(name in request.headers for name in ("Origin", *_PROXIED)) or not is_loopback(
            asked_host(request)
        ):
            raise Refused(
                403, "Without a token only programs on this machine may insert, no web pages and no proxies."
            )
        return _LOCAL

    async def count(self, caller: Token, store: Store) -> None:
        """Raises Refused when the caller has called as often as its limit allows, in whatever process."""
        if caller.limit is None:
            return
        wait = await store.take_door_call(caller.name, caller.limit.calls, caller.limit.per)
        if wait:
            seconds = max(1, math.ceil(wait.total_seconds()))
            allowed = f"{caller.limit.calls} calls in {caller.limit.per.total_seconds():.0f} s"
            sentence = f"This token ({caller.name}) allows {allowed}. Send it again in {seconds} s."
            raise Refused(429, sentence, headers={"Retry-After": str(seconds)})


def key_of(request: web.BaseRequest, caller: Token) -> str | None:
    """The caller's Idempotency-Key, as the job carries it: it means something only to who sends it."""
    sent = request.headers.getall("Idempotency-Key", ())
    if not sent:
        return None
    # Some quote it, as its draft standard has it.
    key = sent[0].strip().removeprefix('"').removesuffix('"') if len(sent) == 1 else ""
    if not _KEY.fullmatch(key):
        raise Refused(400, "Idempotency-Key must be one word of 1 to 128 letters, digits and signs of ASCII.")
    return f"door/{caller.name}/{key}"


def check_kind(request: web.BaseRequest) -> None:
    """Raises Refused for a body that surely is no JSON."""
    kind = request.headers.get("Content-Type", "").lower()
    media, _, parameters = (part.strip() for part in kind.partition(";"))
    charset = parameters.replace(" ", "").removeprefix("charset=").strip('"')
    if not (media in _KINDS or media.endswith("+json")) or charset not in {"", "utf-8", "utf8", "us-ascii"}:
        raise Refused(415, "Send JSON in UTF-8: Content-Type: application/json.", hangs_up=True)


def asked_host(request: web.BaseRequest) -> str:
    """The host name that the client believes to speak to; empty when it is none."""
    try:
        return request.url.host or ""
    except ValueError:
        return ""


def _sent_token(request: web.BaseRequest) -> str:
    """The Bearer token; empty when there is none, or more than one."""
    sent = request.headers.getall("Authorization", ())
    scheme, _, token = (sent[0] if len(sent) == 1 else "").partition(" ")
    return token if scheme.lower() == "bearer" else ""
