"""One HTTP port in front of a database, laid out like `supabase start`: /rest/v1, /realtime/v1, /auth/v1."""

from __future__ import annotations

import logging
from http import HTTPStatus
from ipaddress import ip_address
from types import TracebackType
from typing import Final, Self, cast
from urllib.parse import urlsplit, urlunsplit

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger

from devstack import cors
from devstack.auth.server import PREFIX as AUTH
from devstack.auth.server import Auth
from devstack.config import Config
from devstack.faults import Faults
from devstack.keys import LOCAL, Keys
from devstack.postgres import SUPERUSER
from devstack.realtime.server import Realtime
from devstack.rest.errors import not_implemented
from devstack.rest.server import PREFIX, Rest

LOG: Final = logging.getLogger("devstack.gateway")
MAX_BODY: Final = 64 * 1024 * 1024
REALTIME: Final = "/realtime/v1"
WEBSOCKET: Final = REALTIME + "/websocket"
BROADCAST: Final = REALTIME + "/api/broadcast"
FAULTS: Final = "/_devstack/faults"
ACTS: Final = "/_devstack/realtime"


class Gateway:
    """A running gateway; async context manager. Many may run in one process, each over its own database.

    `dsn` names the database; REST logs in as `authenticator`, Auth as `supabase_auth_admin`, Realtime as the
    superuser, whatever user the address carries. `deliver_at_once` makes Realtime look after each committed
    write instead of at its production cadence. `port` 0 picks a free one; `url` is known after `start`.
    """

    def __init__(
        self,
        dsn: str,
        *,
        port: int = 0,
        host: str = "127.0.0.1",
        deliver_at_once: bool = True,
        faults: Faults | None = None,
        keys: Keys = LOCAL,
        config: Config | None = None,
    ) -> None:
        if not is_loopback(host):
            raise ValueError(
                f"{host} is not loopback: the keys of this stack are public, it may serve nobody else"
            )
        self.config = config if config is not None else Config()
        self.faults = faults if faults is not None else Faults()
        self.keys = keys
        self._host, self._port = host, port
        self.realtime = Realtime(
            _as_user(dsn, SUPERUSER), keys=keys, faults=self.faults.realtime, deliver_at_once=deliver_at_once
        )
        self._rest = Rest(
            _as_user(dsn, "authenticator"),
            keys=keys,
            faults=self.faults.rest,
            poke=self.realtime.poke,
            schemas=self.config.schemas,
            extra_search_path=self.config.extra_search_path,
            max_rows=self.config.max_rows,
        )
        self._auth = Auth(
            _as_user(dsn, "supabase_auth_admin"),
            keys=keys,
            url=lambda: self.url,
            poke=self.realtime.poke,
            config=self.config,
        )
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """What a client takes as SUPABASE_URL."""
        return f"http://{self._host}:{self._port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Connects to the database and opens the port; raises OSError when the port is taken."""
        try:
            await self._rest.start()
            await self.realtime.start()
            self._runner = web.AppRunner(
                self._app(), access_log=LOG, access_log_class=_RefusalLog, shutdown_timeout=1.0
            )
            await self._runner.setup()
            site = web.TCPSite(self._runner, self._host, self._port)
            await site.start()
        except BaseException:
            await self.close()
            raise
        self._port = int(self._runner.addresses[0][1])

    async def close(self) -> None:
        """Closes the port, then every connection; may be called twice."""
        runner, self._runner = self._runner, None
        await self.realtime.stop()
        if runner is not None:
            await runner.cleanup()
        await self._rest.stop()

    def _app(self) -> web.Application:
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_get(FAULTS, self._show_faults)
        app.router.add_post(FAULTS, self._set_faults)
        app.router.add_get(ACTS, self._show_acts)
        app.router.add_post(ACTS + "/{act}", self._act)
        app.router.add_get(WEBSOCKET, self.realtime.handle)
        app.router.add_post(BROADCAST, self.realtime.api.batch)
        app.router.add_post(BROADCAST + "/{topic}/events/{event}", self.realtime.api.single)
        app.router.add_route("*", PREFIX + "/{path:.*}", self._rest.handle)
        app.router.add_route("*", AUTH + "/{path:.*}", self._auth.handle)
        app.router.add_route("*", "/{path:.*}", _elsewhere)
        return app

    async def _show_faults(self, _: web.Request) -> web.Response:
        return web.json_response(self.faults.shown())

    async def _show_acts(self, _: web.Request) -> web.Response:
        return web.json_response(self.realtime.acts.names())

    async def _act(self, request: web.Request) -> web.Response:
        name = request.match_info["act"]
        try:
            arguments: object = dict[str, object]()
            if request.can_read_body:
                arguments = cast(object, await request.json())
            await self.realtime.acts.perform(name, arguments)
        except ValueError as error:  # UnknownAct, or no JSON at all
            return web.json_response({"message": str(error)}, status=400)
        return web.json_response({"done": name})

    async def _set_faults(self, request: web.Request) -> web.Response:
        try:
            self.faults.update(cast(object, await request.json()))
        except ValueError as error:  # UnknownFault, or no JSON at all
            return web.json_response({"message": str(error)}, status=400)
        self.realtime.poke()
        return web.json_response(self.faults.shown())


class _RefusalLog(AbstractAccessLogger):
    """One line for each request that was refused: method, path, status. No query, since it holds values."""

    @property
    def enabled(self) -> bool:
        return LOG.isEnabledFor(logging.INFO)

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        if response.status >= HTTPStatus.BAD_REQUEST:
            LOG.info("%s %s %d, %.0f ms", request.method, request.path, response.status, time * 1000)


async def _elsewhere(request: web.Request) -> web.Response:
    if request.method == "OPTIONS":
        return cors.preflight(request)
    refused = not_implemented(
        f"{request.path} is not served by the development stack: it has {PREFIX}, {REALTIME} and {AUTH}."
    )
    answer = web.Response(status=refused.status, headers=refused.all_headers(), body=refused.body())
    return cors.allow(request, answer)


def is_loopback(host: str) -> bool:
    """Whether an address, or the name `localhost`, can be reached from this machine only."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _as_user(dsn: str, user: str) -> str:
    """The same database for another role of a server of ours, where every role has one password."""
    parts = urlsplit(dsn)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{user}:postgres@{host}"))
