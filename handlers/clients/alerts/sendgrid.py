"""SendGrid: mails of one moment leave as one request, each recipient alone in its own part of it.

The library's `Mail` builds the JSON (`sendgrid_body.py`) and our HTTP client sends it: the library's own knows no
time-out and would block the loop.

How it answers: 202 for all of a request, with one id. 400 for all of it too, although one bad address is the reason:
then its parts are sent, as the answer names them or else as halves, until the bad one is alone. There is no key that
makes a request idempotent, so what is not answered, or answered by 5xx, may have been taken: Unknown.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Final

import aiohttp

from handlers.clients.alerts.gathering import Gathering
from handlers.clients.alerts.mail import Mail, Sender, gathered
from handlers.clients.alerts.sendgrid_body import MOST, Batch, batches_of, body_of
from handlers.clients.alerts.sendgrid_errors import Errors, errors_in
from handlers.clients.alerts.told import Hold, Later, NotSent, Sent, Told, Unknown

BASE: Final = "https://api.sendgrid.com"
TIMEOUT_SECONDS: Final = 20.0
AT_ONCE: Final = 4
"""Requests under way."""
PATIENCE_SECONDS: Final = 60.0
"""For finding bad addresses among good ones; what was not tried by then comes again."""
_LONGEST_HOLD: Final = timedelta(hours=1)
_USUAL_HOLD: Final = timedelta(seconds=60)
_SOON: Final = timedelta(seconds=30)
"""After a time-out no mail waits for the same one: who came behind it is told so, and comes again."""


class SendGrid:
    """Opened once per process by `open`."""

    def __init__(self, session: aiohttp.ClientSession, url: str, sender: Sender) -> None:
        self._session = session
        self._url = url
        self._sender = sender
        self._places = asyncio.Semaphore(AT_ONCE)
        self._held_until = 0.0
        self._silent_until = 0.0
        self._gathering: Gathering[Mail, Told]

    @classmethod
    @asynccontextmanager
    async def open(cls, key: str, sender: Sender, base: str | None = None) -> AsyncIterator[SendGrid]:
        """Closed at the end of the block, after what was begun."""
        async with AsyncExitStack() as stack:
            session = aiohttp.ClientSession(
                # A connection that was kept may be gone by the time it is used, and then nobody knows what arrived.
                connector=aiohttp.TCPConnector(force_close=True),
                timeout=aiohttp.ClientTimeout(TIMEOUT_SECONDS, sock_connect=TIMEOUT_SECONDS / 2),
                headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
            )
            await stack.enter_async_context(session)
            client = cls(session, f"{(base or BASE).rstrip('/')}/v3/mail/send", sender)
            client._gathering = await stack.enter_async_context(
                Gathering[Mail, Told].open(client._send_all, most=MOST, at_once=AT_ONCE)
            )
            yield client

    async def send(self, mail: Mail) -> Told:
        """What became of this one."""
        return await gathered(self._gathering, mail)

    async def _send_all(self, mails: Sequence[Mail]) -> Sequence[Told]:
        told: dict[int, Told] = {}

        async def send(batch: Batch) -> None:
            places = [letter.place for letter in batch.letters]
            told.update(zip(places, await self._send_batch(batch), strict=True))

        async with asyncio.TaskGroup() as group:
            for batch in batches_of(mails):
                group.create_task(send(batch))
        return [told[place] for place in range(len(mails))]

    async def _send_batch(self, batch: Batch) -> Sequence[Told]:
        """One outcome each, in the order of the letters: of the whole, and when that is refused, of its parts."""
        told: dict[int, Told] = {}
        waiting = [list(range(len(batch.letters)))]
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        while waiting:
            part = waiting.pop()
            if time.monotonic() > give_up_at:
                told |= dict.fromkeys(part, Later(timedelta(seconds=5), "too_many_parts"))
                continue
            answer = await self._post(batch.of([batch.letters[at] for at in part]))
            if isinstance(answer, Errors) and len(part) > 1 and not answer.about_all:
                waiting += _parts(part, answer.named)
            else:
                told |= dict.fromkeys(part, answer.told() if isinstance(answer, Errors) else answer)
        return [told[at] for at in range(len(batch.letters))]

    async def _post(self, batch: Batch) -> Told | Errors:
        """One request: what became of all in it, or why it was refused."""
        body = await asyncio.to_thread(body_of, batch, self._sender)
        async with self._places:
            if (left := self._held_until - time.monotonic()) > 0:
                return _too_fast(timedelta(seconds=left))
            if time.monotonic() < self._silent_until:
                return Later(_SOON, "provider_away")
            try:
                async with self._session.post(self._url, data=body, allow_redirects=False) as answer:
                    return self._read(answer, await answer.read())
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
                self._note_silence(error)
                return NotSent("no_connection", f"SendGrid cannot be reached ({type(error).__name__}).")
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                self._note_silence(error)
                return Unknown("no_answer", f"SendGrid did not answer ({type(error).__name__}).")

    def _note_silence(self, error: Exception) -> None:
        if isinstance(error, TimeoutError):
            self._silent_until = time.monotonic() + _SOON.total_seconds()

    def _read(self, answer: aiohttp.ClientResponse, body: bytes) -> Told | Errors:
        match answer.status:
            case 200 | 202:  # 200: checked and thrown away, in the sandbox
                hold = None
                if answer.headers.get("X-RateLimit-Remaining") == "0":
                    hold = Hold(self._hold(answer.headers), whole_channel=True)
                return Sent(answer.headers.get("X-Message-Id"), hold)
            case 400 | 413:
                return errors_in(answer.status, body)
            case 401 | 403:
                return NotSent(
                    "key_refused",
                    f"SendGrid refuses our key or our sender (HTTP {answer.status}): see SENDGRID_API_KEY and "
                    "EMAIL_FROM. Mend them, then replay this job.",
                    is_ours=True,
                )
            case 429:
                return _too_fast(self._hold(answer.headers))
            case status if status < 500:
                return NotSent("refused", f"SendGrid refused the request (HTTP {status}).")
            case status:
                return Unknown("no_answer", f"SendGrid failed (HTTP {status}); the mail may be on its way.")

    def _hold(self, headers: Mapping[str, str]) -> timedelta:
        """How long to ask nothing more; noted for this process at once."""
        after = hold_of(headers)
        self._held_until = max(self._held_until, time.monotonic() + after.total_seconds())
        return after


def hold_of(headers: Mapping[str, str]) -> timedelta:
    """Until when SendGrid wants no more requests, by its own clock where it says what that shows."""
    try:
        reset = float(headers["X-RateLimit-Reset"])
        sent = headers.get("Date")
        after = timedelta(seconds=reset - (parsedate_to_datetime(sent).timestamp() if sent else time.time()))
    except (KeyError, ValueError, OverflowError):
        return _USUAL_HOLD
    return min(max(after, timedelta(seconds=1)), _LONGEST_HOLD)


def _too_fast(after: timedelta) -> Later:
    return Later(after, "too_fast", Hold(after, whole_channel=True))


def _parts(part: list[int], named: AbstractSet[int]) -> list[list[int]]:
    """Two smaller ones: those that the refusal names and the others, or else halves."""
    first = [at for place, at in enumerate(part) if place in named]
    if not first or len(first) == len(part):
        first = part[: len(part) // 2]
    chosen = set(first)
    return [[at for at in part if at not in chosen], first]
