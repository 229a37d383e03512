"""What the REST side remembers of the database, and when it reads it again: the schema cache.

As on the real server it stays as it was read until `notify pgrst` says otherwise: `reload schema` (or no
words) for tables and functions, `reload config` for the settings of roles. The event triggers that Supabase's
image and bootstrap.sql have say the first after every DDL statement. Nothing reads again by itself.

Race: the notice of a committed DDL statement may still be on its way when the next request begins. A request
that misses something therefore asks whether there is `news`: PostgreSQL hands a session all notices that were
committed before with the answer to its next statement, so that one round trip decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import asyncpg

from devstack.rest.errors import database_away
from devstack.rest.functions import HOISTED, Functions, read_functions
from devstack.rest.schema import Schema, read_schemas

if TYPE_CHECKING:
    from devstack.rest.sessions import Connection, Sessions

CHANNEL: Final = "pgrst"
RELOAD_CONFIG: Final = "reload config"
RELOAD_SCHEMA: Final = ("", "reload schema")
ROLE_SETTINGS: Final = """
    select r.rolname as role, split_part(c, '=', 1) as name, substr(c, strpos(c, '=') + 1) as value
    from pg_db_role_setting as s
    join pg_roles as r on r.oid = s.setrole
    cross join unnest(s.setconfig) as c
    where s.setdatabase = 0 and r.rolname <> session_user and pg_has_role(session_user, r.oid, 'member')
"""
DEFAULTS: Final = "select name, reset_val from pg_settings where name = any ($1::text[])"

Settings = dict[str, str]


@dataclass(frozen=True, slots=True)
class Roles:
    """Settings of roles, such as statement_timeout; `defaults` are those of a role that has none."""

    settings: Mapping[str, Settings] = field(default_factory=dict[str, Settings])
    defaults: Settings = field(default_factory=Settings)

    def settings_of(self, role: str) -> Settings:
        """What a request of this role runs under."""
        return {**self.defaults, **self.settings.get(role, {})}


@dataclass(frozen=True, slots=True)
class Known:
    """One reading of the database, by exposed schema."""

    schemas: Mapping[str, Schema] = field(default_factory=dict[str, Schema])
    functions: Mapping[str, Functions] = field(default_factory=dict[str, Functions])
    roles: Roles = field(default_factory=Roles)


class Cache:
    """The last reading, over a connection of its own that listens; opened when first asked."""

    def __init__(self, sessions: Sessions, schemas: Sequence[str], extra: Sequence[str]) -> None:
        self._sessions = sessions
        self._schemas, self._extra = schemas, extra
        self._known = Known()
        self._listener: Connection | None = None
        self._schema_is_stale = True
        self._roles_are_stale = True
        self._turn = asyncio.Lock()

    async def known(self) -> Known:
        """The last reading, after a new one if it was announced; raises PGRST002 without a database."""
        if self._is_fresh():
            return self._known
        async with self._turn:
            try:
                await self._read()
            except (OSError, asyncpg.InterfaceError, asyncpg.PostgresError) as error:
                await self.close()
                raise database_away() from error
        return self._known

    async def news(self, known: Known) -> bool:
        """Whether something was announced since `known` was read; one round trip."""
        async with self._turn:
            if self._listener is not None and not self._listener.is_closed():
                try:
                    await self._listener.fetchval("select 1")
                except (OSError, asyncpg.InterfaceError, asyncpg.PostgresError):
                    await self.close()
        return self._known is not known or not self._is_fresh()

    async def close(self) -> None:
        """Closes the connection; the next question opens another one and reads everything."""
        listener, self._listener = self._listener, None
        self._schema_is_stale = self._roles_are_stale = True
        if listener is not None and not listener.is_closed():
            await listener.close()

    def _is_fresh(self) -> bool:
        is_listening = self._listener is not None and not self._listener.is_closed()
        return is_listening and not self._schema_is_stale and not self._roles_are_stale

    async def _read(self) -> None:
        listener = self._listener
        if listener is None or listener.is_closed():
            self._listener = listener = await self._sessions.connect()
            await listener.add_listener(CHANNEL, self._on_notify)
            self._schema_is_stale = self._roles_are_stale = True
        known = self._known
        if self._schema_is_stale:
            self._schema_is_stale = False  # first: what is announced during the reading must not be missed
            known = await self._read_all(listener, known.roles)
        if self._roles_are_stale:
            self._roles_are_stale = False
            known = Known(known.schemas, known.functions, await _read_roles(listener))
        self._known = known

    async def _read_all(self, listener: Connection, roles: Roles) -> Known:
        """With no search path every name is read in full, so that it holds under any."""
        async with listener.transaction():
            await listener.execute("set local search_path = ''")
            schemas = await read_schemas(listener, self._schemas, self._extra)
            return Known(schemas, await read_functions(listener, self._schemas), roles)

    def _on_notify(self, _connection: object, _pid: object, _channel: object, words: object) -> None:
        self._schema_is_stale = self._schema_is_stale or words in RELOAD_SCHEMA
        self._roles_are_stale = self._roles_are_stale or words == RELOAD_CONFIG


async def _read_roles(connection: Connection) -> Roles:
    settings: dict[str, Settings] = {}
    for row in await connection.fetch(ROLE_SETTINGS):
        settings.setdefault(row["role"], {})[row["name"]] = row["value"]
    names = sorted({name for each in settings.values() for name in each} | set(HOISTED))
    defaults = {row["name"]: row["reset_val"] for row in await connection.fetch(DEFAULTS, names)}
    return Roles(settings, defaults)
