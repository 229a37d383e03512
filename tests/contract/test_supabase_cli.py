"""The Supabase command line: it takes our files, shares its history with us, and works against the stack."""

import asyncio
import shutil
from pathlib import Path

import asyncpg
import pytest

from devstack.postgres import SUPERUSER, Postgres, bootstrap, throw_away_folder
from listener.migrate import migrate, migrations
from tests.skips import POSTGRES_15, SUPABASE_CLI
from tests.sql.calls import Calls

PLPGSQL_CHECK = Path("/usr/share/postgresql/15/extension/plpgsql_check.control")


@pytest.fixture
def folder(checkout: Path, tmp_path: Path) -> Path:
    """Our supabase/ and sql/ elsewhere: the command line leaves files of its own where it runs."""
    shutil.copytree(checkout / "supabase", tmp_path / "supabase", symlinks=True)
    shutil.copytree(checkout / "sql", tmp_path / "sql")
    return tmp_path


async def supabase(folder: Path, *words: str) -> str:
    """Runs the command line in the folder; answers what it printed."""
    process = await asyncio.create_subprocess_exec(
        SUPABASE_CLI.path(),
        *words,
        cwd=folder,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


async def test_push_applies_all_our_files_and_migrate_then_has_nothing_to_do(
    fresh: str, folder: Path
) -> None:
    told = await supabase(folder, "db", "push", "--db-url", fresh, "--yes")
    for one in migrations():
        assert f"{one.label}.sql" in told

    connection = await asyncpg.connect(fresh)
    try:
        await connection.execute("set role service_role")
        calls = Calls(connection)
        made = await calls.insert("a")
        job = await calls.take(sweep=True)
        assert (job["id"], (await calls.end(job))["answer"]) == (made, "recorded")
    finally:
        await connection.close()
    assert await migrate(fresh, migrations()) == []


async def test_what_migrate_applied_is_up_to_date_for_push(fresh: str, folder: Path) -> None:
    await migrate(fresh, migrations())
    assert "up to date" in await supabase(folder, "db", "push", "--db-url", fresh, "--yes")
    listed = await supabase(folder, "migration", "list", "--db-url", fresh)
    for one in migrations():
        assert f"`{one.version}` | `{one.version}`" in listed, f"{one.label} is here and there:\n{listed}"


async def test_types_of_a_database_of_the_stack(fresh: str, folder: Path) -> None:
    connection = await asyncpg.connect(fresh)
    await connection.execute("create table todos (id int primary key, title text not null)")
    await connection.close()
    told = await supabase(folder, "gen", "types", "--lang", "typescript", "--db-url", fresh)
    assert '"todos": {' in told
    assert '"title": string' in told


@pytest.mark.skipif(not PLPGSQL_CHECK.exists(), reason="needs Debian's postgresql-15-plpgsql-check")
async def test_lint_of_a_database_of_the_stack(folder: Path) -> None:
    binaries = POSTGRES_15.path()
    with throw_away_folder() as data:
        async with Postgres(data, binaries=binaries) as server:
            await bootstrap(server.dsn(user=SUPERUSER))
            connection = await asyncpg.connect(server.dsn())
            await connection.execute(
                "create function bad() returns void language plpgsql as 'begin perform nothing_here(); end'"
            )
            await connection.close()
            told = await supabase(folder, "db", "lint", "--db-url", server.dsn())
    assert "function nothing_here() does not exist" in told
