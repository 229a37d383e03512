"""Migrations are applied once, in order, whole or not at all, and never to a database that is not ours."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest

from devstack.postgres import SUPERUSER, Postgres, throw_away_folder
from listener.errors import ConfigError
from listener.migrate import Migration, migrate, migrations
from tests.listener.working import Connection

HISTORY = "select version, name, statements from supabase_migrations.schema_migrations order by version"


@pytest.fixture
async def visitor(fresh: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(fresh)
    yield connection
    await connection.close()


ONE = Migration("010", "one", "create table public.one (id int); insert into public.one values (1);")
TWO = Migration("020", "two", "create table public.two (id int);")
FAILS = Migration("030", "fails", "create table public.three (id int); select 1/0;")


async def tables(visitor: Connection) -> list[str]:
    rows = await visitor.fetch("select tablename from pg_tables where schemaname = 'public' order by 1")
    return [row["tablename"] for row in rows]


async def test_our_own_files_make_a_fresh_database_and_then_there_is_nothing_to_do(
    fresh: str, visitor: Connection
) -> None:
    files = migrations()
    assert await migrate(fresh, files) == files
    assert {"jobs", "jobs_payment", "failed_jobs"} <= set(await tables(visitor))
    assert await migrate(fresh, files) == []


async def test_the_history_is_the_one_of_the_supabase_command_line(fresh: str, visitor: Connection) -> None:
    await migrate(fresh, [ONE])
    assert [tuple(row) for row in await visitor.fetch(HISTORY)] == [("010", "one", [ONE.text])]
    columns = await visitor.fetch(
        "select attname, format_type(atttypid, null) from pg_attribute"
        " where attrelid = 'supabase_migrations.schema_migrations'::regclass and attnum > 0 order by attnum"
    )
    assert [tuple(row) for row in columns] == [
        ("version", "text"),
        ("statements", "text[]"),
        ("name", "text"),
    ]


async def test_what_the_command_line_applied_is_not_applied_again(fresh: str, visitor: Connection) -> None:
    """It records statement by statement, keeps columns of its own, and knows migrations of others."""
    await visitor.execute(
        "create schema supabase_migrations; create table supabase_migrations.schema_migrations"
        " (version text primary key, statements text[], name text, created_by text, rollback text[]);"
        " create table public.one (id int)"
    )
    await visitor.executemany(
        "insert into supabase_migrations.schema_migrations (version, name, statements) values ($1, $2, $3)",
        [
            ("010", "one", ["create table public.one (id int)", "insert into public.one values (1)"]),
            ("20240101000000", "of_the_project", None),
        ],
    )
    assert await migrate(fresh, [ONE, TWO]) == [TWO]
    assert await migrate(fresh, [ONE, TWO]) == []


async def test_a_file_that_fails_leaves_nothing_and_those_before_it_stay(
    fresh: str, visitor: Connection
) -> None:
    with pytest.raises(ConfigError, match=r"030_fails.sql failed and left nothing behind: division by zero"):
        await migrate(fresh, [ONE, FAILS, TWO])
    assert await tables(visitor) == ["one"]
    mended = replace(FAILS, text="create table public.three (id int)")
    assert await migrate(fresh, [ONE, mended, TWO]) == [mended, TWO]


async def test_two_releases_at_once_apply_each_file_once(fresh: str, visitor: Connection) -> None:
    both = await asyncio.gather(*(migrate(fresh, migrations()) for _ in range(3)))
    assert sorted(len(applied) for applied in both) == [0, 0, len(migrations())]


async def test_a_database_with_a_table_of_that_name_is_left_alone(fresh: str, visitor: Connection) -> None:
    await visitor.execute("create table public.jobs (id int)")
    with pytest.raises(ConfigError, match="table `jobs` that this program did not make"):
        await migrate(fresh, migrations())
    assert await tables(visitor) == ["jobs"]
    assert await visitor.fetchval("select to_regnamespace('supabase_migrations')") is None


async def test_a_foreign_table_beside_a_foreign_history_is_left_alone(
    fresh: str, visitor: Connection
) -> None:
    await migrate(fresh, [Migration("20240101000000", "of_the_project", "create table public.jobs (id int)")])
    with pytest.raises(ConfigError, match="table `jobs` that this program did not make"):
        await migrate(fresh, migrations())


async def test_a_file_that_was_edited_after_it_was_applied(fresh: str, visitor: Connection) -> None:
    await migrate(fresh, [ONE])
    with pytest.raises(ConfigError, match=r"010_one.sql was applied in an earlier form"):
        await migrate(fresh, [replace(ONE, text=ONE.text + " -- one more"), TWO])
    assert await tables(visitor) == ["one"]


async def test_a_file_that_was_edited_after_the_command_line_applied_it(
    fresh: str, visitor: Connection
) -> None:
    await migrate(fresh, [ONE])
    cut = [statement.strip() for statement in ONE.text.split(";") if statement.strip()]
    assert len(cut) == 2
    await visitor.execute("update supabase_migrations.schema_migrations set statements = $1", cut)
    assert await migrate(fresh, [ONE]) == []
    await visitor.execute("update supabase_migrations.schema_migrations set statements = $1", cut[:1])
    with pytest.raises(ConfigError, match=r"010_one.sql was applied in an earlier form"):
        await migrate(fresh, [ONE])


async def test_the_history_of_another_project(fresh: str, visitor: Connection) -> None:
    await migrate(fresh, [replace(ONE, name="theirs")])
    with pytest.raises(ConfigError, match=r"010 of this database is 'theirs', not our 'one'"):
        await migrate(fresh, [ONE, TWO])
    assert await tables(visitor) == ["one"]


async def test_a_server_without_the_roles_of_supabase_is_refused() -> None:
    with throw_away_folder() as folder:
        async with Postgres(folder) as server:
            url = server.dsn("postgres", SUPERUSER)
            with pytest.raises(ConfigError, match="no role anon, authenticated, service_role"):
                await migrate(url, [ONE])
            connection = await asyncpg.connect(url)
            assert (
                await connection.fetchval("select count(*) from pg_namespace where nspname ~ 'supabase'") == 0
            )
            await connection.close()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://postgres:secret-word@127.0.0.1:9/postgres",
        "not a url",
        "postgresql://127.0.0.1:port/postgres",
        "mysql://root:secret-word@127.0.0.1/x",
    ],
)
async def test_a_database_that_cannot_be_reached(url: str) -> None:
    with pytest.raises(ConfigError, match="DATABASE_URL") as refused:
        await migrate(url, [ONE])
    assert "secret-word" not in str(refused.value)


def test_files_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("020_two.sql", "010_one.sql", "notes.txt", "seed.sql"):
        (tmp_path / name).write_text("select 1")
    assert [one.label for one in migrations(tmp_path)] == ["010_one", "020_two"]


def test_a_folder_without_files_is_no_checkout(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="complete checkout"):
        migrations(tmp_path)
