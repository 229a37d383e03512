"""Applies a project's `supabase/migrations` that are missing, with the history that the Supabase CLI keeps."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import asyncpg

from devstack.running import Refused

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

FOLDER: Final = Path("supabase", "migrations")
NAME: Final = re.compile(r"(\d+)_(.+)\.sql")
HISTORY: Final = """
    create schema if not exists supabase_migrations;
    create table if not exists supabase_migrations.schema_migrations (
        version text primary key, statements text[], name text
    );
"""


async def apply(dsn: str, project: Path) -> tuple[list[str], list[str]]:
    """Applies what is missing, each file in one transaction, in the order of the names.

    Gives the names of the files applied now, and of those that were changed after they had been applied
    (they are left alone). Raises Refused for a file that PostgreSQL refuses; nothing of that file is kept.
    """
    files = await asyncio.to_thread(_files, project / FOLDER)
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(HISTORY)
        known = {
            row["version"]: row["statements"]
            for row in await connection.fetch("select * from supabase_migrations.schema_migrations")
        }
        applied: list[str] = []
        for version, name, text in files:
            if version not in known:
                await _apply_one(connection, version, name, text)
                applied.append(f"{version}_{name}")
        changed = [
            f"{version}_{name}"
            for version, name, text in files
            if (recorded := known.get(version)) and _bare("".join(recorded)) != _bare(text)
        ]
        return applied, changed
    finally:
        await connection.close()


async def _apply_one(connection: Connection, version: str, name: str, text: str) -> None:
    try:
        async with connection.transaction():
            await connection.execute(text)
            await connection.execute(
                "insert into supabase_migrations.schema_migrations (version, name, statements)"
                " values ($1, $2, array[$3])",
                version,
                name,
                text,
            )
    except asyncpg.PostgresError as error:
        raise Refused(f"{FOLDER / f'{version}_{name}.sql'}: {error}") from error


def _bare(text: str) -> str:
    """What the history has in common with the file: the CLI cuts a file into statements, at its semicolons."""
    return re.sub(r"[;\s]+", "", text)


def _files(folder: Path) -> list[tuple[str, str, str]]:
    if not folder.is_dir():
        return []
    found = [(NAME.fullmatch(path.name), path) for path in sorted(folder.glob("*.sql"))]
    return [(name[1], name[2], path.read_text()) for name, path in found if name is not None]
