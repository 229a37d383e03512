"""A double of Discord: its webhooks, with the limits, the buckets and the errors that its documentation tells of.

A message is looked at as Discord looks at it (`discord_form.py`), kept when it is good, and counted against the bucket
of its webhook and the one over all. What never happens with the real one happens here only when it is ordered: a
webhook is deleted, answers fail, connections break, nobody answers. A double serves one test or one demo.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self, cast

from aiohttp import web

from devstack.alerts.discord_form import faults_of

Json = dict[str, Any]
DROPPED: Final = 0
"""As a status for `fail_next`: no answer, the connection breaks."""
DROPPED_AFTERWARDS: Final = 1
"""The same, but the message was kept."""
HANGS: Final = 2
"""No answer, ever; the message is not kept."""


@dataclass(slots=True)
class Webhook:
    """One webhook of a channel."""

    id: str
    token: str
    is_deleted: bool = False
    is_forum: bool = False
    taken: int = 0
    """Calls of the current window …"""
    resets_at: float = 0.0
    """… which ends then."""
    messages: list[Json] = field(default_factory=list[Json])
    """What was posted, the oldest first, as it came."""

    @property
    def url(self) -> str:
        """As users copy it from Discord."""
        return f"https://discord.com/api/webhooks/{self.id}/{self.token}"


@dataclass(slots=True)
class _Fault:
    status: int
    times: int
    headers: Mapping[str, str]
    body: Json | str


class DiscordDouble:
    """A running double; async context manager. `url` is known inside the block."""

    def __init__(
        self,
        *,
        port: int = 0,
        host: str = "127.0.0.1",
        calls: int = 5,
        per_seconds: float = 2.0,
        calls_per_second: int = 50,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.webhooks: dict[str, Webhook] = {}
        self.answers: Counter[int] = Counter()
        """How often each status was answered."""
        self.exceeded = 0
        """How often a limit was exceeded: each is a 429 that nobody had ordered."""
        self.most_at_once: Counter[str] = Counter()
        """By webhook: how many requests were under way together."""
        self.calls, self.per_seconds, self.calls_per_second = calls, per_seconds, calls_per_second
        self._host, self._port, self._clock = host, port, clock
        self._under_way: Counter[str] = Counter()
        self._recent: deque[float] = deque()
        self._faults: list[_Fault] = []
        self._let_go = asyncio.Event()
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """What takes the place of https://discord.com."""
        return f"http://{self._host}:{self._port}"

    @property
    def messages(self) -> list[Json]:
        """All that was posted, by webhook."""
        return [message for webhook in self.webhooks.values() for message in webhook.messages]

    def webhook(self, *, is_forum: bool = False) -> Webhook:
        """A new one."""
        made = Webhook(
            str(secrets.randbelow(10**18) + 10**18), secrets.token_urlsafe(51)[:68], is_forum=is_forum
        )
        self.webhooks[made.id] = made
        return made

    def fail_next(
        self,
        status: int,
        times: int = 1,
        *,
        headers: Mapping[str, str] | None = None,
        body: Json | str | None = None,
    ) -> None:
        """The next so many requests are answered so (`DROPPED`, `DROPPED_AFTERWARDS`, `HANGS`: not at all)."""
        said = {"message": f"{status}: ordered", "code": 0} if body is None else body
        self._faults.append(_Fault(status, times, headers or {}, said))

    def heal(self) -> None:
        """No failure is ordered any more; the connections of those that hang break."""
        self._faults.clear()
        self._let_go.set()
        self._let_go = asyncio.Event()

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/api/v10/webhooks/{id}/{token}", self._execute)
        app.router.add_route("*", "/{path:.*}", self._nothing)
        # Who does not wait any more is not under way any more.
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()
        self._port = int(self._runner.addresses[0][1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._let_go.set()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _nothing(self, _: web.Request) -> web.StreamResponse:
        return self._answer(404, {"message": "404: Not Found", "code": 0})

    async def _execute(self, request: web.Request) -> web.StreamResponse:
        id_ = request.match_info["id"]
        self._under_way[id_] += 1
        self.most_at_once[id_] = max(self.most_at_once[id_], self._under_way[id_])
        try:
            return await self._executed(request, id_)
        finally:
            self._under_way[id_] -= 1

    async def _executed(self, request: web.Request, id_: str) -> web.StreamResponse:
        fault = next((one for one in self._faults if one.times > 0), None)
        if fault is not None:
            fault.times -= 1
            if fault.status == HANGS:
                await self._let_go.wait()
            if fault.status > HANGS:
                return self._answer(fault.status, fault.body, fault.headers)
            if fault.status != DROPPED_AFTERWARDS:
                return _broken(request)
        if (waits := self._take_of_all()) is not None:
            return self._too_fast(waits, {"X-RateLimit-Global": "true"})
        webhook = self.webhooks.get(id_)
        if webhook is None or webhook.is_deleted:
            return self._answer(404, {"message": "Unknown Webhook", "code": 10015})
        if not secrets.compare_digest(webhook.token, request.match_info["token"]):
            return self._answer(401, {"message": "Invalid Webhook Token", "code": 50027})
        headers, waits = self._take(webhook)
        if waits is not None:
            return self._too_fast(waits, headers)
        answer = self._kept(webhook, await self._read(request), request, headers)
        return _broken(request) if fault is not None else answer

    async def _read(self, request: web.Request) -> object:
        try:
            return await request.json() if request.content_type == "application/json" else None
        except ValueError:
            return None

    def _kept(
        self, webhook: Webhook, words: object, request: web.Request, headers: Mapping[str, str]
    ) -> web.StreamResponse:
        if not isinstance(words, dict):
            return self._answer(
                400, {"message": "The request body contains invalid JSON.", "code": 50109}, headers
            )
        message = cast("Json", words)
        if webhook.is_forum and "thread_name" not in message:
            text = "Webhooks posted to forum channels must have a thread_name or thread_id"
            return self._answer(400, {"message": text, "code": 220001}, headers)
        if not message.get("content") and not message.get("embeds"):
            return self._answer(400, {"message": "Cannot send an empty message", "code": 50006}, headers)
        if faults := faults_of(message):
            refusal = {"message": "Invalid Form Body", "code": 50035, "errors": faults}
            return self._answer(400, refusal, headers)
        webhook.messages.append(message)
        if request.query.get("wait") != "true":
            return self._answer(204, "", headers)
        said = {
            "id": str(secrets.randbelow(10**18) + 10**18),
            "type": 0,
            "channel_id": webhook.id,
            "webhook_id": webhook.id,
            "timestamp": datetime.now(UTC).isoformat(),
            **message,
        }
        return self._answer(200, said, headers)

    # -- how fast --

    def _take_of_all(self) -> float | None:
        """How long to wait, if there were too many calls of any webhook in the last second."""
        now = self._clock()
        while self._recent and self._recent[0] <= now - 1:
            self._recent.popleft()
        if len(self._recent) >= self.calls_per_second:
            return self._recent[0] + 1 - now
        self._recent.append(now)
        return None

    def _take(self, webhook: Webhook) -> tuple[dict[str, str], float | None]:
        """The headers, and how long to wait if this webhook was called too often."""
        now = self._clock()
        if now >= webhook.resets_at:
            webhook.taken, webhook.resets_at = 0, now + self.per_seconds
        is_over = webhook.taken >= self.calls
        webhook.taken += not is_over
        after = webhook.resets_at - now
        headers = {
            "X-RateLimit-Limit": str(self.calls),
            "X-RateLimit-Remaining": str(self.calls - webhook.taken),
            "X-RateLimit-Reset": f"{time.time() + after:.3f}",
            "X-RateLimit-Reset-After": f"{after:.3f}",
            "X-RateLimit-Bucket": "devstack-webhooks",
        }
        return headers, after if is_over else None

    def _too_fast(self, waits: float, headers: Mapping[str, str]) -> web.StreamResponse:
        self.exceeded += 1
        is_global = "X-RateLimit-Global" in headers
        scope = {"Retry-After": str(int(waits) + 1), "X-RateLimit-Scope": "global" if is_global else "user"}
        words = {
            "message": "You are being rate limited.",
            "retry_after": round(waits, 3),
            "global": is_global,
        }
        return self._answer(429, words, {**headers, **scope})

    def _answer(
        self, status: int, words: Json | str, headers: Mapping[str, str] | None = None
    ) -> web.StreamResponse:
        self.answers[status] += 1
        if isinstance(words, str):
            return web.Response(status=status, text=words, headers=dict(headers or {}))
        return web.Response(
            status=status,
            body=json.dumps(words).encode(),
            content_type="application/json",
            headers=dict(headers or {}),
        )


def _broken(request: web.Request) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()  # goes nowhere
