"""Moves the clock of a queue's database, so that nobody has to wait for a retry: the only shortcut there is."""

from datetime import timedelta
from typing import TypeAlias

import asyncpg

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


async def move_clock(owner: Connection, ahead: timedelta) -> None:
    """From now on `clock_now()` is so far ahead of the real time, for every session. Zero puts it right again."""
    await owner.execute(
        "create or replace function public.clock_now() returns timestamptz language sql stable parallel safe"
        f" as $$ select pg_catalog.now() + interval '{ahead.total_seconds()} seconds' $$"
    )
