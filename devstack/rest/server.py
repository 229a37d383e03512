"""The REST side: who is asking, what is wanted, in which transaction, and how it is answered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

import asyncpg
from aiohttp import web

from devstack.keys import Claims, Keys, TokenError
from devstack.rest import rpc, tables
from devstack.rest.answer import Answer
from devstack.rest.errors import RestError, bad_token, database_away, from_postgres, not_implemented
from devstack.rest.faults import RestFaults
from devstack.rest.request import Wanted, accepts_single, check_profile, read_preferences
from devstack.rest.schema import Schema, read_schema
from devstack.rest.sessions import Sessions

if TYPE_CHECKING:
    from devstack.rest.sessions import Connection

PREFIX: Final = "/rest/v1"
READS: Final = ("GET", "HEAD")
METHODS: Final = ("GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS")
# After these the catalog is read again and the request tried once more: local comfort, where the real
# server would first want its `notify pgrst`.
STALE: Final = frozenset({"PGRST202", "PGRST204", "PGRST205", "42883"})
RETRIED: Final = frozenset({"40001", "40P01"})
TRIES: Final = 3
PREFLIGHT: Final = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, POST, PATCH, PUT, DELETE, OPTIONS, HEAD",
    "Access-Control-Max-Age": "86400",
}


class Rest:
    """PostgREST's subset over one database. `poke` is called after each committed write."""

    def __init__(self, dsn: str, *, keys: Keys, faults: RestFaults, poke: Callable[[], None]) -> None:
        self._sessions = Sessions(dsn)
        self._keys = keys
        self._faults = faults
        self._poke = poke
        self._schema = Schema({}, {})
        self._listener: Connection | None = None
        self._is_stale = True
        self._reading = asyncio.Lock()

    async def start(self) -> None:
        """Reads the catalog and listens for its changes; raises RestError without a database."""
        await self._fresh_schema()

    async def stop(self) -> None:
        """Closes all connections."""
        if self._listener is not None:
            await self._listener.close()
        await self._sessions.close()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answers one request below /rest/v1."""
        try:
            answer = await self._answer(request)
        except RestError as refused:
            answer = Answer(refused.status, refused.all_headers(), refused.body())
        headers = dict(answer.headers)
        if "Origin" in request.headers:
            headers.setdefault("Access-Control-Allow-Origin", "*")
        return web.Response(status=answer.status, headers=headers, body=answer.body)

    async def _answer(self, request: web.Request) -> Answer:
        if request.method == "OPTIONS":
            return Answer(200, _preflight(request))
        if request.method not in METHODS:
            raise RestError(405, "PGRST117", f"Unsupported HTTP method: {request.method}")
        path = request.path.removeprefix(PREFIX).strip("/")
        is_rpc = path.startswith("rpc/")
        name = path.removeprefix("rpc/")
        if self._faults.refuse_now(request.path, name):
            raise RestError(503, "DEVSTACK", "Refused on purpose: the fault 'refuse' is set.")
        if not name or "/" in name:
            raise not_implemented("Only tables and /rpc/<function> are served below /rest/v1 here.")
        check_profile(request.method, request.headers)
        settings = self._settings(request, path)
        wanted = await _wanted(request, name)
        answer = await self._perform(wanted, settings, is_rpc=is_rpc)
        if request.method not in READS:
            self._poke()
            if self._faults.lose_answer(name) and request.transport is not None:
                request.transport.abort()
        return answer

    def _settings(self, request: web.Request, path: str) -> dict[str, str]:
        """Role, claims and request facts, as the database's functions and policies see them."""
        claims = self._claims(request.headers)
        role = str(claims.get("role", "anon"))
        return {
            "request.jwt.claims": json.dumps({"role": role} | claims, separators=(",", ":")),
            "request.method": request.method,
            "request.path": f"/{path}",
            # Content-Length alone would make each call different from the one before.
            "request.headers": json.dumps(
                {k.lower(): v for k, v in request.headers.items() if k.lower() != "content-length"}
            ),
            "default_transaction_read_only": "on" if request.method in READS else "off",
            "role": role,
        }

    def _claims(self, headers: Mapping[str, str]) -> Claims:
        scheme, _, token = (self._keys.authorization(headers) or "").partition(" ")
        if scheme.lower() != "bearer":
            return {}
        if not token:
            raise bad_token("PGRST301", "Empty JWT is sent in Authorization header", None)
        try:
            return self._keys.verify(token)
        except TokenError as error:
            raise bad_token(error.code, error.message, error.details) from None

    async def _perform(self, wanted: Wanted, settings: dict[str, str], *, is_rpc: bool) -> Answer:
        schema = await self._fresh_schema()
        try:
            return await self._attempt(schema, wanted, settings, is_rpc=is_rpc)
        except RestError as error:
            if error.code not in STALE or error.status == 503:
                raise
        self._is_stale = True
        schema = await self._fresh_schema()
        return await self._attempt(schema, wanted, settings, is_rpc=is_rpc)

    async def _attempt(
        self, schema: Schema, wanted: Wanted, settings: dict[str, str], *, is_rpc: bool
    ) -> Answer:
        serve = rpc.call if is_rpc else tables.serve
        role = settings["role"]
        tries = TRIES
        while True:
            tries -= 1
            try:
                async with self._sessions.session(schema.settings_of(role) | settings) as session:
                    return await serve(session, schema, wanted)
            except asyncpg.PostgresError as error:
                if error.sqlstate not in RETRIED or not tries:
                    raise from_postgres(error, is_anon=role == "anon") from None
            except (OSError, asyncpg.InterfaceError) as error:
                raise database_away() from error

    async def _fresh_schema(self) -> Schema:
        if not self._is_stale and self._listener is not None and not self._listener.is_closed():
            return self._schema
        async with self._reading:
            try:
                await self._read_schema()
            except (OSError, asyncpg.InterfaceError, asyncpg.PostgresError) as error:
                self._is_stale = True
                raise database_away() from error
        return self._schema

    async def _read_schema(self) -> None:
        if self._listener is None or self._listener.is_closed():
            self._listener = await self._sessions.connect()
            await self._listener.add_listener("pgrst", self._on_notify)
            self._is_stale = True
        if self._is_stale:
            self._is_stale = False  # first: a change during the reading must not be missed
            self._schema = await read_schema(self._listener)

    def _on_notify(self, *_: object) -> None:
        self._is_stale = True


async def _wanted(request: web.Request, name: str) -> Wanted:
    content_type = request.headers.get("Content-Type")
    kind = (content_type or "application/json").split(";")[0].strip().lower()
    if kind != "application/json" and request.method not in READS:
        raise not_implemented(
            f"Request bodies of type {kind} are not implemented here; send application/json."
        )
    return Wanted(
        method=request.method,
        name=name,
        params=parse_qsl(request.query_string, keep_blank_values=True),
        prefer=read_preferences(request.headers.getall("Prefer", [])),
        is_single=accepts_single(request.headers.get("Accept", "*/*")),
        body=await request.read(),
        has_content_type=content_type is not None,
        range_header=request.headers.get("Range") if request.method in READS else None,
    )


def _preflight(request: web.Request) -> dict[str, str]:
    asked = request.headers.get("Access-Control-Request-Headers")
    return PREFLIGHT | ({"Access-Control-Allow-Headers": asked} if asked else {})
