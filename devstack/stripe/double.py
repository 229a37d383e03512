"""A double of Stripe: the part of its API that our handlers use, with its refusals, and signed events to feed them.

It holds what a story wrote (`story.py`) and serves it on loopback as the real API would: a key is asked for, a
POST with a known Idempotency-Key is answered from memory, what does not exist is a 404, and an endpoint that is not
doubled is refused by name. Faults are ordered with `fail_next`. Nothing is sent by itself: a test or demo decides
which event is delivered, when, how often and in which order.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from types import TracebackType
from typing import Final, Self

from aiohttp import web

from devstack.stripe.answers import Refused, answer, expanded
from devstack.stripe.books import API_VERSION, Books, Clock, Event, Json, new_id
from devstack.stripe.story import Story, TellsUser

API_KEY: Final = "sk_test_devstack"
WEBHOOK_SECRET: Final = "whsec_devstack"
VERSION: Final = re.compile(r"\d{4}-\d{2}-\d{2}(\.\w+)?")
ERROR_CODES: Final = {402: "card_declined", 429: "rate_limit"}
DROPPED: Final = 0
"""As a status for `fail_next`: no answer, the connection breaks."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came, for tests that ask what was asked."""

    method: str
    path: str
    idempotency_key: str | None


_Asked = tuple[str, str, tuple[tuple[str, str], ...]]
"""Method, path and parameters: what an idempotency key stands for."""


@dataclass(slots=True)
class _Fault:
    path: str
    status: int
    times: int
    headers: Mapping[str, str]
    after: int


class StripeDouble:
    """A running double; async context manager. `url` is known inside the block; each double has books of its own."""

    def __init__(
        self,
        *,
        port: int = 0,
        host: str = "127.0.0.1",
        api_key: str = API_KEY,
        webhook_secret: str = WEBHOOK_SECRET,
        old_shapes: bool = False,
        clock: Clock = time.time,
    ) -> None:
        self.api_key = api_key
        self.webhook_secret = webhook_secret
        self.books = Books(livemode="_live_" in api_key, old_shapes=old_shapes)
        self.requests: list[Request] = []
        self._host, self._port, self._clock = host, port, clock
        self._faults: list[_Fault] = []
        self._slow: dict[str, float] = {}
        self._answers: dict[str, tuple[_Asked, bytes]] = {}
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """What a client takes as the base of the API."""
        return f"http://{self._host}:{self._port}"

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()
        self._port = int(self._runner.addresses[0][1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def story(
        self,
        user_id: object,
        *,
        tells_user: TellsUser = "checkout",
        price: str = "price_pro_monthly",
        amount: int = 2900,
        currency: str = "usd",
    ) -> Story:
        """A new subscriber, who has done nothing yet."""
        return Story(
            self.books,
            int(self._clock()),
            str(user_id),
            tells_user,
            price=price,
            amount=amount,
            currency=currency,
        )

    def signed(
        self, event: Event, *, secret: str | None = None, at: float | None = None
    ) -> tuple[bytes, str]:
        """A delivery of the event: the raw body and the header Stripe-Signature, signed `at` (None: now)."""
        body = json.dumps(event, indent=2).encode()
        moment = int(self._clock() if at is None else at)
        key = (secret or self.webhook_secret).encode()
        digest = hmac.new(key, b"%d.%b" % (moment, body), sha256).hexdigest()
        return body, f"t={moment},v1={digest}"

    def fail_next(
        self,
        path: str,
        status: int,
        times: int = 1,
        *,
        headers: Mapping[str, str] | None = None,
        after: int = 0,
    ) -> None:
        """The next `times` requests whose path begins so are answered with this status (`DROPPED`: with none).

        `after` so many that are answered as ever.
        """
        self._faults.append(_Fault(path, status, times, headers or {}, after))

    def slow(self, path: str, seconds: float) -> None:
        """From now on, requests whose path begins so wait so long for their answer."""
        self._slow[path] = seconds

    def heal(self) -> None:
        """No failure is ordered any more, and nothing is slow."""
        self._faults.clear()
        self._slow.clear()

    # -- the API --

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        key = request.headers.get("Idempotency-Key") if request.method == "POST" else None
        self.requests.append(Request(request.method, request.path, key))
        for path, seconds in self._slow.items():
            if request.path.startswith(path):
                await asyncio.sleep(seconds)
        if (fault := self._next_fault(request.path)) is not None:
            return _broken(request) if fault.status == DROPPED else _failed(fault)
        try:
            self._check(request)
            form = {name: str(value) for name, value in (await request.post()).items()}
            asked: _Asked = (request.method, request.path, tuple(sorted(form.items())))
            if key is None:
                return _answered(self._served(request, form))
            if key not in self._answers:
                self._answers[key] = asked, json.dumps(self._served(request, form)).encode()
                return _answered(self._answers[key][1])
            first, answer = self._answers[key]
            if first != asked:
                raise Refused(
                    400, "Keys for idempotent requests fit one set of parameters only.", "idempotency_error"
                )
            return _answered(answer, {"Idempotent-Replayed": "true"})
        except Refused as refused:
            return _error(refused.status, refused.kind, str(refused), refused.code)

    def _next_fault(self, path: str) -> _Fault | None:
        for fault in self._faults:
            if fault.times > 0 and path.startswith(fault.path):
                fault.after -= 1
                if fault.after < 0:
                    fault.times -= 1
                    return fault
        return None

    def _check(self, request: web.Request) -> None:
        if request.headers.get("Authorization") != f"Bearer {self.api_key}":
            raise Refused(401, "Invalid API key provided.")
        version = request.headers.get("Stripe-Version", API_VERSION)
        if not VERSION.fullmatch(version):
            raise Refused(400, f"Invalid Stripe API version: {version}")

    def _served(self, request: web.Request, form: Mapping[str, str]) -> Json:
        words = {**request.query, **form}
        found = answer(self.books, request.method, request.path, words, int(self._clock()))
        return expanded(self.books, found, _expand(request))


def _expand(request: web.Request) -> list[str]:
    return [value for name, value in request.query.items() if re.fullmatch(r"expand\[\d*\]", name)]


def _answered(answer: Json | bytes, headers: Mapping[str, str] | None = None) -> web.Response:
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return web.Response(
        body=body,
        content_type="application/json",
        headers={"Request-Id": new_id("req"), "Stripe-Version": API_VERSION, **(headers or {})},
    )


def _error(
    status: int, kind: str, message: str, code: str | None, headers: Mapping[str, str] | None = None
) -> web.Response:
    error = {"type": kind, "message": message, "code": code}
    response = _answered({"error": {name: text for name, text in error.items() if text is not None}}, headers)
    response.set_status(status)
    return response


def _failed(fault: _Fault) -> web.Response:
    kind = "invalid_request_error"
    if fault.status == 402:
        kind = "card_error"
    elif fault.status >= 500:
        kind = "api_error"
    return _error(
        fault.status, kind, "This failure was ordered.", ERROR_CODES.get(fault.status), fault.headers
    )


def _broken(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()  # goes nowhere
