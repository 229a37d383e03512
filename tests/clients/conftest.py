"""The project that the stories of the official clients are about: ours, or a real one that the environment names.

With SUPABASE_URL, SUPABASE_ANON_KEY, SUPABASE_SERVICE_KEY and DATABASE_URL all set, it is theirs: `supabase start`
or a hosted project in which people need not confirm their address. All that the stories make there carries a prefix
of its own and is taken away again.
"""

import contextlib
import os
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import httpx
import pytest

from devstack.gateway import Gateway
from devstack.keys import LOCAL
from tests.waiting import PATIENCE, until

MADE = Path(__file__).with_name("project.sql").read_text()
NAMED = ("SUPABASE_URL", "SUPABASE_ANON_KEY", "SUPABASE_SERVICE_KEY", "DATABASE_URL")
CLEARED = """
    drop table if exists PREFIX_notes, PREFIX_books, PREFIX_authors cascade;
    drop function if exists PREFIX_add, PREFIX_refuse, PREFIX_me, PREFIX_shout;
    drop policy if exists PREFIX_hear on realtime.messages;
    drop policy if exists PREFIX_speak on realtime.messages;
    delete from auth.users where starts_with(email, 'PREFIX.');
"""


@dataclass(frozen=True)
class Project:
    """A Supabase project with the tables of the stories, whose names begin with `prefix`."""

    url: str
    key: str
    secret: str
    prefix: str


@pytest.fixture
async def project(database: str) -> AsyncIterator[Project]:
    named = [os.environ.get(name, "") for name in NAMED]
    if all(named):
        async with _prepared(*named) as theirs:
            yield theirs
    else:
        async with (
            Gateway(database) as gateway,
            _prepared(gateway.url, LOCAL.publishable, LOCAL.secret, database) as ours,
        ):
            yield ours


@contextlib.asynccontextmanager
async def _prepared(url: str, key: str, secret: str, dsn: str) -> AsyncIterator[Project]:
    prefix = f"story_{secrets.token_hex(4)}"
    owner = await asyncpg.connect(dsn)
    try:
        await owner.execute(MADE.replace("PREFIX", prefix))
        try:
            headers = {"apikey": secret, "Authorization": f"Bearer {secret}"}
            async with httpx.AsyncClient(headers=headers, timeout=PATIENCE) as http:

                async def knows() -> bool:
                    return (await http.get(f"{url}/rest/v1/{prefix}_notes?limit=0")).status_code == 200

                await until("REST knows the tables", knows)
            yield Project(url, key, secret, prefix)
        finally:
            await owner.execute(CLEARED.replace("PREFIX", prefix))
    finally:
        await owner.close()
