"""Applies the files of `sql/` to a database, in order, each in a transaction of its own, and only once.

It keeps the same history as the Supabase CLI (supabase_migrations.schema_migrations), so `supabase db push` and this
take turns as they like. An advisory lock makes two releases at once wait for each other. A file that needs a lock
which others hold gives way after half a second and tries again, so that nobody queues up behind it for long. A database
that this does not know (no Supabase roles, tables of ours without a history, a history that tells of other files) is
refused, untouched.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias, cast

import asyncpg

from listener.errors import ConfigError

SQL = Path(__file__).resolve().parent.parent / "sql"
_LOCK = 0x50756C7365  # "Pulse": any number serves, as long as nobody else locks by it
# Whoever waits for a lock makes all wait that come after, claims and producers too: so not for long, but often.
_LOCK_TIMEOUT_MS = 500
_TRIES = 40
_PAUSE = 1.0
_LONGEST_PAUSE = 5
_NAME = re.compile(r"(\d+)_(\w+)\.sql")
_ROLES = {"anon", "authenticated", "service_role"}
_WHO = (
    "Run it again when they are done; `select pid, xact_start, query from pg_stat_activity order by xact_start`"
    " shows who has been at it for long."
)
_HISTORY = """
    create schema if not exists supabase_migrations;
    create table if not exists supabase_migrations.schema_migrations
        (version text primary key, statements text[], name text);
"""

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of sql/."""

    version: str
    name: str
    text: str = field(repr=False)

    @property
    def label(self) -> str:
        """Its file name without the ending."""
        return f"{self.version}_{self.name}"


def migrations(folder: Path = SQL) -> list[Migration]:
    """The files in the order of their numbers. Raises ConfigError when there are none."""
    found = [
        Migration(match[1], match[2], path.read_text())
        for path in sorted(folder.glob("*.sql"))
        if (match := _NAME.fullmatch(path.name))
    ]
    if not found:
        raise ConfigError([f"No migrations in {folder}: run this from a complete checkout."])
    return found


async def migrate(
    database_url: str,
    files: Sequence[Migration],
    *,
    tries: int = _TRIES,
    tell: Callable[[str], object] = lambda _: None,
) -> list[Migration]:
    """Applies what is missing and answers it; tells of waiting. Raises ConfigError when it cannot or must not."""
    async with _locked(database_url) as connection:
        done = await _applied(connection)
        await _refuse_strangers(connection, files, done)
        missing = [one for one in files if one.version not in done]
        for one in missing:
            await _apply_patiently(connection, one, tries, tell)
        if missing:
            await connection.execute("notify pgrst, 'reload schema'")
        return missing


async def _apply_patiently(
    connection: Connection, one: Migration, tries: int, tell: Callable[[str], object]
) -> None:
    """Again and again where others hold what the file needs, and each time from its beginning."""
    for number in range(1, tries + 1):
        try:
            await _apply(connection, one)
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError) as error:
            if number == tries:
                why = f"{one.label}.sql needs a lock that other sessions hold, and did not get it (tries: {tries})"
                raise ConfigError([f"{why}. It left nothing behind. {_WHO}"]) from error
            tell(f"{one.label} waits for other sessions, try {number} of {tries} …")
            await asyncio.sleep(min(number, _LONGEST_PAUSE) * _PAUSE)
        except asyncpg.PostgresError as error:
            # Without its details, which quote the row that is in the way, and without the value that is no number.
            why = str(error.args[0] if error.args else type(error).__name__)
            if isinstance(error, asyncpg.DataError):
                why = re.sub('".*"', '"…"', why, flags=re.DOTALL)
            raise ConfigError([f"{one.label}.sql failed and left nothing behind: {why}"]) from error
        else:
            return


async def _apply(connection: Connection, one: Migration) -> None:
    async with connection.transaction():
        await connection.execute(f"set local lock_timeout = '{_LOCK_TIMEOUT_MS}ms'")
        await connection.execute(one.text)
        await connection.execute(
            "insert into supabase_migrations.schema_migrations (version, name, statements)"
            " values ($1, $2, array[$3])",
            one.version,
            one.name,
            one.text,
        )


async def publish(database_url: str, schemas: Sequence[Mapping[str, object]]) -> Mapping[str, int]:
    """Publishes the schemas of payloads, behind the files; answers how many there are, are new, and retire."""
    async with _locked(database_url) as connection:
        try:
            said: str = await connection.fetchval("select public.publish_schemas($1)", json.dumps(schemas))
        except asyncpg.PostgresError as error:
            why = str(error.args[0] if error.args else type(error).__name__)
            raise ConfigError([f"The schemas of payloads could not be published: {why}"]) from error
        return cast("dict[str, int]", json.loads(said))


def _bare(text: str) -> str:
    """The text as both writers of the history keep it: we record a file whole, the CLI cuts it at its semicolons."""
    return re.sub(r"[;\s]+", "", text)


@asynccontextmanager
async def _locked(database_url: str) -> AsyncIterator[Connection]:
    try:
        # Without a statement cache this also works through a pooler.
        connection: Connection = await asyncpg.connect(database_url, timeout=15, statement_cache_size=0)
    except (OSError, asyncpg.PostgresError, ValueError, TimeoutError) as error:
        raise ConfigError(
            [f"DATABASE_URL: cannot connect ({type(error).__name__}); check host, port and password."]
        ) from error
    try:
        await connection.execute("select pg_advisory_lock($1)", _LOCK)
        yield connection
    finally:
        await connection.close(timeout=5)


async def _applied(connection: Connection) -> dict[str, tuple[str | None, list[str] | None]]:
    """The history by version; empty when there is none yet."""
    if await connection.fetchval("select to_regclass('supabase_migrations.schema_migrations')") is None:
        return {}
    rows = await connection.fetch(
        "select version, name, statements from supabase_migrations.schema_migrations"
    )
    return {row["version"]: (row["name"], row["statements"]) for row in rows}


async def _refuse_strangers(
    connection: Connection, files: Sequence[Migration], done: dict[str, tuple[str | None, list[str] | None]]
) -> None:
    roles = {row["rolname"] for row in await connection.fetch("select rolname from pg_roles")}
    if lacking := sorted(_ROLES - roles):
        mend = "Take the database of a Supabase project, or start `python -m devstack`."
        raise ConfigError([f"This is no Supabase database: it has no role {', '.join(lacking)}. {mend}"])
    problems: list[str] = []
    for one in files:
        name, statements = done.get(one.version, (None, None))
        if name is not None and name != one.name:
            problems.append(
                f"Migration {one.version} of this database is {name!r}, not our {one.name!r}: another project's."
            )
        elif statements and _bare("".join(statements)) != _bare(one.text):
            problems.append(
                f"{one.label}.sql was applied in an earlier form. Before release 1.0 the files are edited in place:"
                " start with a fresh database (`supabase db reset`)."
            )
    ours = any(one.version in done for one in files)
    if not ours and await connection.fetchval("select to_regclass('public.jobs')") is not None:
        problems.append(
            "This database has a table `jobs` that this program did not make: it will not touch it."
        )
    if problems:
        raise ConfigError(problems)
    if not done:
        await connection.execute(_HISTORY)
