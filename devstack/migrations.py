"""Applies what is missing of a project's migrations and seeds, with the history that the Supabase CLI keeps."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final

import asyncpg

from devstack.running import Refused

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

MIGRATIONS: Final = Path("supabase", "migrations")
NO_EXTENSION: Final = (
    "0A000"  # feature_not_supported: what `create extension` says of one it has no files for
)
NOTED: Final = (
    "insert into supabase_migrations.schema_migrations (version, name, statements) values ($1, $2, array[$3])"
)
SOWN: Final = "insert into supabase_migrations.seed_files (path, hash) values ($1, $2)"
NAME: Final = re.compile(r"(\d+)_(.+)\.sql")
HISTORY: Final = """
    create schema if not exists supabase_migrations;
    create table if not exists supabase_migrations.schema_migrations (
        version text primary key, statements text[], name text
    );
    create table if not exists supabase_migrations.seed_files (path text primary key, hash text not null);
"""


@dataclass(frozen=True, slots=True)
class Applied:
    """What was done now, by name; `changed` are migrations edited after they had been applied (left alone)."""

    migrations: list[str]
    seeds: list[str]
    changed: list[str]


async def apply(dsn: str, project: Path, seeds: Sequence[str] = ()) -> Applied:
    """Applies what is missing, each file in one transaction: migrations in the order of their names, then seeds.

    `seeds` are patterns below the folder `supabase`, each file is applied once, in their order. Raises
    Refused for a file that PostgreSQL refuses; nothing of that file is kept, and what came before it is.
    """
    files = await asyncio.to_thread(_files, project / MIGRATIONS)
    seeded = await asyncio.to_thread(_seeds, project, seeds)
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(HISTORY)
        known = {
            row["version"]: row["statements"]
            for row in await connection.fetch("select * from supabase_migrations.schema_migrations")
        }
        missing = [(version, name, text) for version, name, text in files if version not in known]
        for version, name, text in missing:
            await _apply_one(
                connection, MIGRATIONS / f"{version}_{name}.sql", text, NOTED, version, name, text
            )
        changed = [
            f"{version}_{name}"
            for version, name, text in files
            if (recorded := known.get(version)) and _bare("".join(recorded)) != _bare(text)
        ]
        sown = {
            row["path"] for row in await connection.fetch("select path from supabase_migrations.seed_files")
        }
        fresh = [(path, text) for path, text in seeded.items() if path not in sown]
        for path, text in fresh:
            await _apply_one(connection, Path(path), text, SOWN, path, sha256(text.encode()).hexdigest())
    finally:
        await connection.close()
    return Applied(
        [f"{version}_{name}" for version, name, _ in missing], [path for path, _ in fresh], changed
    )


async def _apply_one(connection: Connection, path: Path, text: str, note: str, *noted: str) -> None:
    try:
        async with connection.transaction():
            await connection.execute(text)
            await connection.execute("reset role; reset all")  # a `set` in a file is for that file
            await connection.execute(note, *noted)
    except asyncpg.PostgresError as error:
        mend = ""
        if error.sqlstate == NO_EXTENSION and "extension" in str(error):
            mend = "; `start --postgres FOLDER` takes the programs of another PostgreSQL, which may have it"
        raise Refused(f"{path}: {error}{mend}") from error


def _seeds(project: Path, patterns: Sequence[str]) -> dict[str, str]:
    """The text of each seed by its path, which is relative to the project."""
    folder = project / "supabase"
    found = [path for pattern in patterns for path in sorted(folder.glob(pattern.removeprefix("./")))]
    return {str(path.relative_to(project)): path.read_text() for path in found if path.is_file()}


def _bare(text: str) -> str:
    """What the history has in common with the file: the CLI cuts a file into statements, at its semicolons."""
    return re.sub(r"[;\s]+", "", text)


def _files(folder: Path) -> list[tuple[str, str, str]]:
    if not folder.is_dir():
        return []
    found = [(NAME.fullmatch(path.name), path) for path in sorted(folder.glob("*.sql"))]
    return [(name[1], name[2], path.read_text()) for name, path in found if name is not None]
