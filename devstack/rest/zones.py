"""The time zone that a request prefers, and the transaction in which it and other short-lived things hold."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from devstack.rest.request import Wanted
    from devstack.rest.sessions import Connection, Session

KNOWN: Final = "select exists (select from pg_catalog.pg_timezone_names where name = $1)"
SET: Final = "select pg_catalog.set_config('timezone', $1, true)"


async def with_known_zone(session: Session, wanted: Wanted) -> Wanted:
    """The request; a zone that PostgreSQL does not know becomes a preference that is not understood."""
    zone = wanted.prefer.get("timezone")
    if zone is None or await session.connection.fetchval(KNOWN, zone):
        return wanted
    return replace(wanted, prefer=wanted.prefer.without("timezone"))


@contextlib.asynccontextmanager
async def transaction(session: Session, wanted: Wanted, *, is_needed: bool) -> AsyncGenerator[Connection]:
    """The connection, in a transaction only where one is needed: a single statement is one by itself."""
    connection, zone = session.connection, wanted.prefer.get("timezone")
    if not is_needed and zone is None:
        yield connection
        return
    async with connection.transaction():
        if zone is not None:
            await connection.execute(SET, zone)
        yield connection
