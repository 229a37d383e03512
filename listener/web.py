"""The door: health, `POST /` to insert a job by hand, and the webhooks that the handler files declare.

Who may insert says `admission.py`. Webhooks prove themselves by their signatures and need no admission.
"""

import asyncio
import errno
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import cast

from aiohttp import web

from listener.admission import Admission, check_kind, key_of
from listener.config import Config, is_loopback
from listener.doorkeeper import Doorkeeper, Patience, Refused, says
from listener.errors import (
    ConfigError,
    DeliveryRefused,
    PulseError,
    StoreError,
    StoreRefused,
    StoreUnavailable,
)
from listener.events import Emit, Swallowed
from listener.inbox import Inbox
from listener.jobs import QUEUE_OF, NewJob
from listener.openapi import described
from listener.paths import filled_in
from listener.producer import NotSure, enqueue_once, read_json
from listener.redaction import is_plain
from listener.registry import Delivery, Registry, Webhook
from listener.store import Store
from listener.telemetry.counts import Numbers
from listener.tokens import Tokens
from listener.traces import carry
from listener.uncaught import place_of

# How long /ready waits for the database, and how long what it heard serves for all who ask.
_ASKING_SECONDS = 2.0
_KNOWN_SECONDS = 3.0
_ALONE = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
_Answer = Callable[[web.BaseRequest], Awaitable[web.Response]]


@dataclass(frozen=True, slots=True)
class Health:
    """What the process knows about itself."""

    problems: Sequence[str]
    """Why it is not ready, in sentences; empty when it is."""
    facts: Mapping[str, object]


@asynccontextmanager
async def open_door(
    host: str,
    port: int,
    *,
    exact: bool,
    config: Config,
    registry: Registry,
    store: Store,
    health: Callable[[], Health],
    numbers: Callable[[], Awaitable[Numbers]],
    emit: Emit,
    tokens: Tokens | None = None,
    patience: Patience | None = None,
) -> AsyncIterator[str]:
    """Listens until the block ends; gives the URL.

    A port that is taken is a ConfigError that names it when `exact`; otherwise any free one is taken instead.
    """
    keeper = Doorkeeper(patience or Patience(), emit)
    admission = Admission(tokens or Tokens(config.door_tokens), open_to_all=not is_loopback(host))
    door = _Door(config, registry, store, health, keeper, admission, numbers)
    async with AsyncExitStack() as stack:
        try:
            got = await stack.enter_async_context(keeper.receives(door.answer, host, port))
        except OSError as error:
            if exact or error.errno != errno.EADDRINUSE:
                mend = "Name another with --port and --host, or leave the door out with --no-door."
                raise ConfigError(
                    [f"The door cannot open on {host}:{port} ({error.strerror}). {mend}"]
                ) from error
            got = await stack.enter_async_context(keeper.receives(door.answer, host, 0))
        yield f"http://{host}:{got}"


class _Door:
    def __init__(
        self,
        config: Config,
        registry: Registry,
        store: Store,
        health: Callable[[], Health],
        keeper: Doorkeeper,
        admission: Admission,
        numbers: Callable[[], Awaitable[Numbers]],
    ) -> None:
        self._config = config
        self._queue_of = {**QUEUE_OF, **{type_: queue for queue, type_ in registry.handlers}}
        self._store = store
        self._inbox = Inbox(store)
        self._health = health
        self._keeper = keeper
        self._emit = keeper.emit
        self._admission = admission
        self._description: dict[str, object] | None = None
        self._registry = registry
        self._numbers = numbers
        self._writing = asyncio.Lock()
        self._database = _Database(store)
        self._routes: dict[str, dict[str, _Answer]] = {
            "/health": {"GET": self.health, "HEAD": self.health},
            "/ready": {"GET": self.ready, "HEAD": self.ready},
            "/openapi.json": {"GET": self.described},
            "/metrics": {"GET": self.metrics, "HEAD": self.metrics},
            "/": {"POST": self.insert},
        }
        self._webhooks: list[tuple[str, dict[str, _Answer]]] = [
            (one.path, {"POST": self.webhook(one)} | self.pages(one)) for one in registry.webhooks
        ]

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """Every answer is JSON, errors included, but for the pages of webhooks that have some."""
        carry(None)  # one connection may serve many requests; a stranger's trace is none of ours
        try:
            return await self._route(request)(request)
        except Refused as refusal:
            answer = says(refusal.status, refusal.sentence)
            answer.headers.update(refusal.headers)
            if refusal.hangs_up:
                answer.force_close()
            return answer
        except NotSure as error:
            # Whoever sent it gets the key; for the log it is a word of theirs.
            self._emit(Swallowed("door", error.__cause__ or PulseError("the database cannot be reached")))
            return web.json_response({"error": str(error), "idempotency_key": error.key}, status=503)
        except StoreUnavailable as error:
            self._emit(Swallowed("door", error))
            return says(
                503, "The database cannot be reached now; nothing was inserted for certain. Send it again."
            )
        except StoreRefused as error:
            if error.status in {401, 403, 404}:
                self._emit(Swallowed("door", error))
                return says(503, "The database refuses this process; see its log and `pulse check`.")
            return says(422, error.message)
        except ConnectionError:
            raise  # the client has gone: nobody is there to be answered
        except Exception as error:  # noqa: BLE001 - one request that breaks is one answer, not the door
            # Its text may quote what was delivered, so only its place is told.
            self._emit(Swallowed("door", PulseError(place_of(error))))
            return says(500, "This broke here; the log says where. Nothing was inserted for certain.")

    def _route(self, request: web.BaseRequest) -> _Answer:
        """By the path as it was sent: one path, one spelling."""
        path = _asked_path(request)
        methods = self._routes.get(path)
        if methods is None:
            methods = next((found for one, found in self._webhooks if filled_in(one, path) is not None), None)
        if methods is None:
            raise Refused(404, "There is nothing at this path.")
        if (found := methods.get(request.method)) is None:
            allowed = ", ".join(methods)
            raise Refused(405, f"This path takes {allowed}.", headers={"Allow": allowed})
        return found

    async def health(self, _: web.BaseRequest) -> web.Response:
        """200 as long as the process can answer at all."""
        health = self._health()
        return web.json_response(
            {"ready": not health.problems, "problems": list(health.problems), **health.facts}
        )

    async def ready(self, _: web.BaseRequest) -> web.Response:
        """200 when it works as configured, else 503 with the reasons."""
        problems = list(self._health().problems)
        if not problems and (problem := await self._database.problem()) is not None:
            problems.append(problem)
        return web.json_response(
            {"ready": not problems, "problems": problems}, status=503 if problems else 200
        )

    async def metrics(self, request: web.BaseRequest) -> web.Response:
        """The numbers, for Prometheus. Whoever may insert may read them."""
        self._admission.admit(request)
        from listener.telemetry.prometheus import render  # which takes a while to load, and many need not

        async with self._writing:  # one at a time, however many ask
            accept = request.headers.get("Accept", "")
            content_type, page = await asyncio.to_thread(render, await self._numbers(), accept)
        return web.Response(body=page, headers={"Content-Type": content_type, "Cache-Control": "no-store"})

    async def insert(self, request: web.BaseRequest) -> web.Response:
        """One job from `{"type": …, "data": …}`; answers its id."""
        caller = self._admission.admit(request)
        carry(request.headers.get("traceparent"))
        check_kind(request)
        key = key_of(request, caller)
        await self._admission.count(caller, self._store)
        job = self._new_job(await self._keeper.body(request))
        if key is not None and job.idempotency_key is not None:
            raise Refused(400, 'Say the key once: with Idempotency-Key, or as "idempotency_key".')
        enqueued = await enqueue_once(self._store, replace(job, idempotency_key=key or job.idempotency_key))
        if key is not None and enqueued.differs:
            raise Refused(
                422,
                "This Idempotency-Key came with another job before: its type, data or user_id was not the same."
                " Nothing was inserted. Take a new key for a new job.",
            )
        return web.json_response(
            {"id": enqueued.id, "created": enqueued.created}, status=201 if enqueued.created else 200
        )

    async def described(self, request: web.BaseRequest) -> web.Response:
        """The door in the words of OpenAPI, for those who may insert."""
        self._admission.admit(request)
        if self._description is None:
            self._description = described(self._registry, version("pulseengine-workers"))
        return web.json_response(self._description)

    def webhook(self, one: Webhook) -> _Answer:
        """Answers the provider as soon as the row is in."""

        async def receive(request: web.BaseRequest) -> web.Response:
            delivery = _delivery(one, request, await self._keeper.body(request))
            try:
                job = one.receive(delivery, self._config.settings)
            except DeliveryRefused as refusal:
                return says(refusal.status, str(refusal))
            enqueued = await self._inbox.enqueue(job)
            if one.page is not None and "text/html" in delivery.headers.get("accept", ""):
                return _page(one.page(delivery, self._config.settings, True))
            return web.json_response({"id": enqueued.id, "created": enqueued.created})

        return receive

    def pages(self, one: Webhook) -> dict[str, _Answer]:
        """What a webhook shows people, if anything."""
        show = one.page
        if show is None:
            return {}

        async def visit(request: web.BaseRequest) -> web.Response:
            try:
                return _page(show(_delivery(one, request, b""), self._config.settings, False))
            except DeliveryRefused as refusal:
                return says(refusal.status, str(refusal))

        return {"GET": visit, "HEAD": visit}

    def _new_job(self, body: bytes) -> NewJob:
        try:
            words = read_json(body)
        except ValueError as error:
            reason = f'Send JSON, such as {{"type": "sync_positions", "data": {{}}}}: {error}.'
            raise Refused(400, " ".join(reason.split())) from None
        if not isinstance(words, dict):
            raise Refused(400, 'Send a JSON object with "type" and "data".')
        asked = cast("dict[str, object]", words)
        known = {field.name for field in fields(NewJob)}
        if unknown := sorted(set(asked) - known):
            named = ", ".join(one if is_plain(one) else "‹key›" for one in unknown)
            raise Refused(400, f"Unknown: {named}. Known: {', '.join(sorted(known))}.")
        type_ = asked.get("type")
        queue = asked.get("queue") or (self._queue_of.get(type_) if isinstance(type_, str) else None)
        if not isinstance(type_, str) or not isinstance(queue, str):
            raise Refused(
                422,
                f'Which queue? Send "queue" too, or one of these types: {", ".join(sorted(self._queue_of))}.',
            )
        # The database checks the rest and answers with a sentence of its own.
        return NewJob(**cast("dict[str, str]", {"data": {}, **asked, "type": type_, "queue": queue}))  # type: ignore[arg-type]


def _delivery(one: Webhook, request: web.BaseRequest, body: bytes) -> Delivery:
    # A header that came twice is one with a comma, as the standard has it: none of them is chosen.
    names = dict.fromkeys(map(str.lower, request.headers))
    headers = {name: ", ".join(request.headers.getall(name)) for name in names}
    return Delivery(body, headers, datetime.now(UTC), filled_in(one.path, _asked_path(request)) or {})


def _page(html: str) -> web.Response:
    """Shown alone, with nothing from elsewhere, and kept by nobody: its address may be a secret."""
    headers = {
        "Content-Security-Policy": _ALONE,
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",
    }
    return web.Response(text=html, content_type="text/html", headers=headers)


class _Database:
    """Whether it answers: asked when somebody wants to know, rarely and by one at a time."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._asking = asyncio.Lock()
        self._asked_at = -_KNOWN_SECONDS
        self._problem: str | None = None

    async def problem(self) -> str | None:
        """Why it does not, as far as was known some seconds ago, or None."""
        async with self._asking:
            if time.monotonic() - self._asked_at >= _KNOWN_SECONDS:
                self._problem = await self._ask()
                self._asked_at = time.monotonic()
            return self._problem

    async def _ask(self) -> str | None:
        try:
            async with asyncio.timeout(_ASKING_SECONDS):
                await self._store.heartbeat([], timedelta(seconds=1))
        except TimeoutError:
            return f"the REST API does not answer within {_ASKING_SECONDS:g} s"
        except StoreUnavailable:
            return "the REST API does not answer"
        except StoreError:
            return "the REST API refuses this process; see `pulse check`"
        return None


def _asked_path(request: web.BaseRequest) -> str:
    return request.raw_path.partition("?")[0]
