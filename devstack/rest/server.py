"""The REST side: who is asking, what is wanted, in which transaction, and how it is answered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import asyncpg
from aiohttp import web

from devstack.keys import Keys
from devstack.rest import rpc, tables
from devstack.rest.answer import Answer
from devstack.rest.cache import Cache, Known
from devstack.rest.errors import RestError, connection_lost, database_away, from_postgres, not_implemented
from devstack.rest.facts import facts
from devstack.rest.faults import RestFaults
from devstack.rest.mishaps import befall
from devstack.rest.options import (
    EXPOSED,
    allowed,
    allowed_on_function,
    allowed_on_table,
    is_preflight,
    preflight,
)
from devstack.rest.request import READS, Wanted, read_profile, read_wanted
from devstack.rest.sessions import Session, Sessions

PREFIX: Final = "/rest/v1"
METHODS: Final = ("GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS")
# What a stale schema cache may have caused: after these the request asks whether there is news.
STALE: Final = frozenset("PGRST200 PGRST202 PGRST203 PGRST204 PGRST205 42883 42703 42P01".split())
RETRIED: Final = frozenset({"40001", "40P01"})
TRIES: Final = 3


class Rest:
    """PostgREST's subset over one database. `poke` is called after each committed write.

    `schemas` are exposed, the first unless a profile header says otherwise; `extra_search_path` are those
    whose functions and types are found too. `max_rows` cuts every read, None does not.
    """

    def __init__(
        self,
        dsn: str,
        *,
        keys: Keys,
        faults: RestFaults,
        poke: Callable[[], None],
        schemas: Sequence[str] = ("public", "graphql_public"),
        extra_search_path: Sequence[str] = ("public", "extensions"),
        max_rows: int | None = 1000,
    ) -> None:
        self._sessions = Sessions(dsn)
        self._keys = keys
        self._faults = faults
        self._poke = poke
        self._schemas, self._extra, self._max_rows = schemas, extra_search_path, max_rows
        self._cache = Cache(self._sessions, schemas, extra_search_path)

    async def start(self) -> None:
        """Reads the catalog and listens for its changes; raises RestError without a database."""
        await self._cache.known()

    async def stop(self) -> None:
        """Closes all connections."""
        await self._cache.close()
        await self._sessions.close()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answers one request below /rest/v1, or lets the fault happen that is planned for it."""
        fault = self._faults.met(request.path, request.path.rpartition("/")[2])
        return await (self._serve(request) if fault is None else befall(fault, request, self._serve))

    async def _serve(self, request: web.Request) -> web.Response:
        try:
            answer = await self._answer(request)
        except RestError as refused:
            answer = Answer(refused.status, refused.all_headers(), refused.body())
        exposed = EXPOSED if "Origin" in request.headers and request.method != "OPTIONS" else {}
        headers = {**exposed, **answer.headers}
        return web.Response(status=answer.status, headers=headers, body=answer.body)

    async def _answer(self, request: web.Request) -> Answer:
        path = request.path.removeprefix(PREFIX)
        is_rpc, name = _resource(request.method, path)
        if is_preflight(request):
            return Answer(200, preflight(request.headers))
        profile = read_profile(request, self._schemas)
        settings = facts(request, path, profile, self._keys, self._extra)
        if not name and not is_rpc:
            return _root(request.method)
        wanted = await read_wanted(request, name, profile, max_rows=self._max_rows, is_call=is_rpc)
        answer = await self._perform(wanted, settings, is_rpc=is_rpc)
        if request.method not in READS:
            self._poke()
        return answer

    async def _perform(self, wanted: Wanted, settings: dict[str, str], *, is_rpc: bool) -> Answer:
        known = await self._cache.known()
        try:
            return await self._attempt(known, wanted, settings, is_rpc=is_rpc)
        except RestError as error:
            if error.code not in STALE or not await self._cache.news(known):
                raise
        return await self._attempt(await self._cache.known(), wanted, settings, is_rpc=is_rpc)

    async def _attempt(
        self, known: Known, wanted: Wanted, settings: dict[str, str], *, is_rpc: bool
    ) -> Answer:
        role, schema = settings["role"], wanted.profile.schema
        functions = known.functions[schema]
        if wanted.method == "OPTIONS" and is_rpc:
            return allowed_on_function(functions, wanted)
        call = rpc.planned(functions, known.schemas[schema], wanted) if is_rpc else None
        settings = known.roles.settings_of(role) | settings | (call.settings if call is not None else {})
        tries = TRIES
        while True:
            tries -= 1
            try:
                async with self._sessions.session(settings) as session:
                    return await _served(session, known, wanted, call)
            except (
                asyncpg.ConnectionDoesNotExistError
            ) as error:  # asyncpg's word for it, whatever PostgreSQL said
                raise connection_lost() from error
            except asyncpg.PostgresError as error:
                if error.sqlstate not in RETRIED or not tries:
                    raise from_postgres(error, is_anon=role == "anon") from None
            except (OSError, asyncpg.InterfaceError) as error:
                raise database_away() from error


async def _served(session: Session, known: Known, wanted: Wanted, call: rpc.Call | None) -> Answer:
    schema = known.schemas[wanted.profile.schema]
    if call is not None:
        return await call.run(session)
    if wanted.method == "OPTIONS":
        return await allowed_on_table(session, schema.table(wanted.name))
    return await tables.serve(session, schema, wanted)


def _resource(method: str, path: str) -> tuple[bool, str]:
    """Whether a path below the prefix means a function, and the name; the root has none."""
    parts = path.split("/")[1:]
    is_rpc = len(parts) == 2 and parts[0] == "rpc"
    if not is_rpc and len(parts) > 1:
        raise RestError(404, "PGRST125", "Invalid path specified in request URL")
    if not is_rpc and method not in (METHODS if parts[0] else (*READS, "OPTIONS")):
        raise RestError(405, "PGRST117", f"Unsupported HTTP method: {method}")
    return is_rpc, parts[-1]


def _root(method: str) -> Answer:
    if method == "OPTIONS":
        return allowed("OPTIONS,GET,HEAD")
    raise not_implemented("The description of the whole API (OpenAPI) at /rest/v1/ is not implemented here.")
