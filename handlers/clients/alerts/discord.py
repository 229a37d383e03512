"""Discord's webhooks: how a message is posted, and what each of its answers means.

    answer                                  told as
    --------------------------------------  ---------------------------------------------------------------------
    200 with the message                    Sent; the webhook is held until the reset, if this was its last one
    429                                     Later, when it says; the whole channel waits, when all of us are meant
    404, 401 and 403, with a code for that  Refused: the webhook is gone, and its user is told
    400 and 413                             Refused: by moderation, by a forum's rules, or it is a fault of ours
    403 with another code                   Later: this webhook waits, and no other for it
    403 else, 429 without Discord's words   Later: this address is shut out for a while, and the channel waits
    no connection, and all else below 500   NotSent
    5xx, time-out, a cut connection         Unknown

Nobody's URL is ever called: an id and a token were taken out of it when the webhook was registered, and both are looked
at again before they become a path of `discord.com`. Redirects are not followed. Which calls are free is not known here
but told by Discord, and kept by the database for all processes (`Hold`); only the limit over all webhooks is agreed
beforehand, since its headers come too late.
"""

import json
import math
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final, cast
from urllib.parse import urlsplit

import aiohttp

from handlers.clients.alerts.delivery import Pace
from handlers.clients.alerts.mail import APP_URL
from handlers.clients.alerts.outage import Outage
from handlers.clients.alerts.told import Hold, Later, NotSent, Refused, Sent, Told, Unknown
from listener import ConfigError, Setting, Settings

DISCORD_API_BASE = Setting(
    "DISCORD_API_BASE", "set it only to use a double of Discord: its URL", required=False, secret=False
)
DISCORD: Final = "https://discord.com"
PACE: Final = Pace(
    limit=timedelta(seconds=20),
    one_at_a_time=True,
    allowed=40,
    per=timedelta(seconds=1),
    refusals=2_000,
    refusals_per=timedelta(minutes=10),
    digests=True,
)
"""Discord's limit over all webhooks is 50 in a second; some come closer together than they left. With 10,000 refusals
in ten minutes an address is shut out, and others may share ours."""

TIMEOUT: Final = aiohttp.ClientTimeout(total=10, sock_connect=4)
SHUT_OUT: Final = timedelta(minutes=10)
"""As long as Discord counts refused requests before it shuts an address out."""
LONGEST_HOLD: Final = timedelta(hours=1)
_ID: Final = re.compile(r"\d{5,25}")
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{20,200}")
_SHUTS_OUT: Final = (0, 40333)
"""Of a 403: no code, or the one of Discord's guard. With others it refuses this webhook alone."""
_IS_GONE: Final = (10015, 50027, 10003)
"""No such webhook, not its token, no such channel. Other refusals were said to all webhooks once, and taken back."""
_GONE: Final = "Discord says that this webhook does not exist any more."
_BY_CODE: Final[Mapping[int, Refused]] = {
    200000: Refused("moderated", "The server's moderation rules blocked this message."),
    200001: Refused("moderated", "Discord blocked the title of this message."),
    240000: Refused("moderated", "Discord's filter against harmful links blocked this message."),
    220001: Refused("forum", "This webhook belongs to a forum, which takes no alerts.", target="disable"),
    220003: Refused("forum", "This webhook belongs to a forum, which takes no alerts.", target="disable"),
}
"""Of a 400: what is not a fault of ours."""


class Discord:
    """Posts messages to webhooks. Opened once per process by `open`."""

    def __init__(self, http: aiohttp.ClientSession, base: str) -> None:
        self._http = http
        self._base = base
        self._outage = Outage()

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> "AsyncIterator[Discord]":
        """With connections of its own, closed at the end of the block. Raises ConfigError."""
        base = (settings.get(DISCORD_API_BASE.name) or DISCORD).rstrip("/")
        parts = urlsplit(base)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path or parts.query:
            raise ConfigError(
                [f"{DISCORD_API_BASE.name} has to be a URL without a path; {DISCORD_API_BASE.where}."]
            )
        # Discord wants to know who it is, in this form.
        headers = {
            "User-Agent": f"DiscordBot ({settings.get(APP_URL.name) or 'https://pulseengine.example'}, 1)"
        }
        async with aiohttp.ClientSession(timeout=TIMEOUT, headers=headers) as http:
            yield cls(http, base)

    async def post(self, webhook_id: str | None, token: str | None, message: Mapping[str, object]) -> Told:
        """What became of it. Raises nothing that Discord or the network could cause."""
        if not (webhook_id and token and _ID.fullmatch(webhook_id) and _TOKEN.fullmatch(token)):
            return Refused("no_webhook", "This is no webhook: its URL has to be registered again.", "disable")
        path = f"/api/v10/webhooks/{webhook_id}/{token}"
        return await self._outage.watch(lambda: self._post(path, message))

    async def _post(self, path: str, message: Mapping[str, object]) -> Told:
        try:
            async with self._http.post(
                self._base + path, params={"wait": "true"}, json=message, allow_redirects=False
            ) as answer:
                return understood(answer.status, answer.headers, await answer.read())
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            return NotSent("no_connection", "Discord cannot be reached from here.")
        except TimeoutError:
            return Unknown("timed_out", "Discord did not answer in time.")
        except (aiohttp.ClientError, OSError):
            return Unknown("cut_off", "The connection to Discord broke before its answer.")


def understood(status: int, headers: Mapping[str, str], body: bytes) -> Told:
    """What an answer means."""
    words = _json(body)
    code = words.get("code")
    if status == 200 and isinstance(words.get("id"), str):
        return Sent(str(words["id"])[:40], _until_reset(headers))
    if status == 429:
        return _too_fast(headers, words)
    if status in (401, 403, 404) and code in _IS_GONE:
        return Refused("webhook_gone", _GONE, target="disable", hold=_until_reset(headers), counts=True)
    if status == 403:
        is_guard = not isinstance(code, int) or code in _SHUTS_OUT
        return Later(SHUT_OUT, "shut_out", Hold(SHUT_OUT, whole_channel=is_guard), counts=True)
    if status in (400, 413):
        known = _BY_CODE.get(code) if isinstance(code, int) else None
        return known or Refused("bad_request", _faults(code, words), hold=_until_reset(headers))
    if status < 500 and status not in (200, 204, 408):
        said = f"What answers in Discord's place answered {status}."
        return NotSent("not_discord", said, counts=status == 401)
    return Unknown("failed" if status >= 500 else "odd_answer", f"Discord answered {status}.")


def _until_reset(headers: Mapping[str, str]) -> Hold | None:
    """Nothing more to this webhook until the reset, if this was the last one."""
    after = _seconds(headers.get("X-RateLimit-Reset-After"))
    return Hold(after) if after is not None and headers.get("X-RateLimit-Remaining") == "0" else None


def _too_fast(headers: Mapping[str, str], words: Mapping[str, object]) -> Told:
    """The longest wait that the answer names. An answer without Discord's own words is from the guard before it."""
    named = (words.get("retry_after"), headers.get("Retry-After"), headers.get("X-RateLimit-Reset-After"))
    after = max((one for one in map(_seconds, named) if one is not None), default=timedelta(minutes=1))
    is_guard = "retry_after" not in words
    meant = words.get("global") is True or "X-RateLimit-Global" in headers or is_guard
    return Later(after, "shut_out" if is_guard else "too_fast", Hold(after, whole_channel=meant), counts=True)


def _seconds(value: object) -> timedelta | None:
    try:
        seconds = float(str(value))
    except ValueError:
        return None
    if math.isnan(seconds):
        return None
    return timedelta(seconds=min(max(seconds, 0.0), LONGEST_HOLD.total_seconds()))


def _faults(code: object, words: Mapping[str, object]) -> str:
    """Which fields Discord refused and why, by its names for them and without any value."""
    found: list[str] = []

    def look(at: object, path: tuple[str, ...]) -> None:
        if not isinstance(at, dict) or len(found) >= 5 or len(path) > 8:
            return
        for name, below in cast("Mapping[str, object]", at).items():
            if name == "_errors" and isinstance(below, list):
                codes = [
                    str(cast("Mapping[str, object]", one).get("code"))
                    for one in cast("list[object]", below)
                    if isinstance(one, dict)
                ]
                found.extend(
                    f"{'.'.join(path)}: {one}" for one in codes if re.fullmatch(r"[A-Z_]{3,60}", one)
                )
            elif re.fullmatch(r"[a-z_]{1,30}|\d{1,3}", name):
                look(below, (*path, name))

    look(words.get("errors"), ())
    where = f" ({'; '.join(found)})" if found else ""
    return f"Discord refused the message, error {code if isinstance(code, int) else 'unknown'}{where}."


def _json(body: bytes) -> Mapping[str, object]:
    try:
        words: object = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return cast("Mapping[str, object]", words) if isinstance(words, dict) else {}
