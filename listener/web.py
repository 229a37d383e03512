"""The door: health, `POST /` to insert a job by hand, and the webhooks that the handler files declare.

Who may insert: with a token, whoever sends it (`Authorization: Bearer …`); without one, only programs on this machine,
and no web page that a browser on this machine has open (an Origin, or another host name, is refused), nor anybody whom
a proxy on this machine lets in.
Webhooks prove themselves by their signatures and need neither.
"""

import errno
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import cast

from aiohttp import web

from listener.config import Config, is_loopback
from listener.errors import ConfigError, DeliveryRefused, PulseError, StoreRefused, StoreUnavailable
from listener.events import Emit, Swallowed
from listener.jobs import QUEUE_OF, NewJob
from listener.producer import NotSure, enqueue_once, read_json
from listener.registry import Delivery, Registry, Webhook
from listener.store import Store
from listener.uncaught import place_of

# How long requests under way may take when the process ends.
_CLOSING_SECONDS = 1.5
_LARGEST_BODY = 2 * 1024 * 1024
# What a proxy says of those for whom it asks.
_PROXIED = ("Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP")
_Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


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
    emit: Emit,
) -> AsyncIterator[str]:
    """Listens until the block ends; gives the URL.

    A port that is taken is a ConfigError that names it when `exact`; otherwise any free one is taken instead.
    """
    door = _Door(config, registry, store, health, emit, open_to_all=not is_loopback(host))
    app = web.Application(client_max_size=_LARGEST_BODY, middlewares=[door.sentences])
    app.add_routes(
        [
            web.get("/health", door.health),
            web.get("/ready", door.ready),
            web.post("/", door.insert),
            *(web.post(one.path, door.webhook(one)) for one in registry.webhooks),
        ]
    )
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_CLOSING_SECONDS)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            if exact or error.errno != errno.EADDRINUSE:
                mend = "Name another with --port and --host, or leave the door out with --no-door."
                raise ConfigError(
                    [f"The door cannot open on {host}:{port} ({error.strerror}). {mend}"]
                ) from error
            await web.TCPSite(runner, host, 0).start()
        yield f"http://{host}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class _Door:
    def __init__(
        self,
        config: Config,
        registry: Registry,
        store: Store,
        health: Callable[[], Health],
        emit: Emit,
        *,
        open_to_all: bool,
    ) -> None:
        self._config = config
        self._queue_of = {**QUEUE_OF, **{type_: queue for queue, type_ in registry.handlers}}
        self._store = store
        self._health = health
        self._emit = emit
        self._open_to_all = open_to_all

    @web.middleware
    async def sentences(self, request: web.Request, handler: _Answer) -> web.StreamResponse:
        """Every answer is JSON, errors included."""
        try:
            return await handler(request)
        except web.HTTPException as error:
            return _says(error.status, error.reason)
        except NotSure as error:
            self._emit(Swallowed("door", error))
            return web.json_response({"error": str(error), "idempotency_key": error.key}, status=503)
        except StoreUnavailable as error:
            self._emit(Swallowed("door", error))
            return _says(
                503, "The database cannot be reached now; nothing was inserted for certain. Send it again."
            )
        except StoreRefused as error:
            if error.status in {401, 403, 404}:
                self._emit(Swallowed("door", error))
                return _says(503, "The database refuses this process; see its log and `pulse check`.")
            return _says(422, error.message)
        except Exception as error:  # noqa: BLE001 - one request that breaks is one answer, not the door
            # Its text may quote what was delivered, so only its place is told.
            self._emit(Swallowed("door", PulseError(place_of(error))))
            return _says(500, "This broke here; the log says where. Nothing was inserted for certain.")

    async def health(self, _: web.Request) -> web.Response:
        """200 as long as the process can answer at all."""
        health = self._health()
        return web.json_response(
            {"ready": not health.problems, "problems": list(health.problems), **health.facts}
        )

    async def ready(self, _: web.Request) -> web.Response:
        """200 when it works as configured, else 503 with the reasons."""
        problems = list(self._health().problems)
        return web.json_response(
            {"ready": not problems, "problems": problems}, status=503 if problems else 200
        )

    async def insert(self, request: web.Request) -> web.Response:
        """One job from `{"type": …, "data": …}`; answers its id."""
        self._admit(request)
        enqueued = await enqueue_once(self._store, self._new_job(await request.read()))
        return web.json_response(
            {"id": enqueued.id, "created": enqueued.created}, status=201 if enqueued.created else 200
        )

    def webhook(self, one: Webhook) -> _Answer:
        """Answers the provider as soon as the row is in."""

        async def receive(request: web.Request) -> web.StreamResponse:
            headers = {name.lower(): value for name, value in request.headers.items()}
            delivery = Delivery(await request.read(), headers, datetime.now(UTC))
            try:
                job = one.receive(delivery, self._config.settings)
            except DeliveryRefused as refusal:
                return _says(refusal.status, str(refusal))
            (enqueued,) = await self._store.enqueue([job])
            return web.json_response({"id": enqueued.id, "created": enqueued.created})

        return receive

    def _admit(self, request: web.Request) -> None:
        token = self._config.door_token
        if token is not None:
            sent = request.headers.get("Authorization", "").removeprefix("Bearer ")
            if not hmac.compare_digest(sent.encode(errors="surrogateescape"), token.encode()):
                raise web.HTTPUnauthorized(
                    reason="Send the door's token: Authorization: Bearer <PULSE_DOOR_TOKEN>."
                )
        elif self._open_to_all:
            raise web.HTTPForbidden(
                reason="This door is open to the network: set PULSE_DOOR_TOKEN to insert jobs here."
            )
        elif any(name in request.headers for name in ("Origin", *_PROXIED)) or not is_loopback(
            _asked_host(request)
        ):
            raise web.HTTPForbidden(
                reason="Without a token only programs on this machine may insert, no web pages and no proxies."
            )

    def _new_job(self, body: bytes) -> NewJob:
        try:
            words = read_json(body)
        except ValueError as error:
            reason = f'Send JSON, such as {{"type": "sync_positions", "data": {{}}}}: {error}.'
            raise web.HTTPBadRequest(reason=" ".join(reason.split())) from None
        if not isinstance(words, dict):
            raise web.HTTPBadRequest(reason='Send a JSON object with "type" and "data".')
        asked = cast("dict[str, object]", words)
        known = {field.name for field in fields(NewJob)}
        if unknown := sorted(set(asked) - known):
            raise web.HTTPBadRequest(
                reason=f"Unknown: {', '.join(map(ascii, unknown))}. Known: {', '.join(sorted(known))}."
            )
        type_ = asked.get("type")
        queue = asked.get("queue") or (self._queue_of.get(type_) if isinstance(type_, str) else None)
        if not isinstance(type_, str) or not isinstance(queue, str):
            raise web.HTTPUnprocessableEntity(
                reason=f'Which queue? Send "queue" too, or one of these types: {", ".join(sorted(self._queue_of))}.'
            )
        # The database checks the rest and answers with a sentence of its own.
        return NewJob(**cast("dict[str, str]", {"data": {}, **asked, "type": type_, "queue": queue}))  # type: ignore[arg-type]


def _asked_host(request: web.Request) -> str:
    """The host name that the client believes to speak to; empty when it is none."""
    try:
        return request.url.host or ""
    except ValueError:
        return ""


def _says(status: int, sentence: str) -> web.Response:
    return web.json_response({"error": sentence}, status=status)
