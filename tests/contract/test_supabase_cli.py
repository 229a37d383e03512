"""The Supabase command line takes our files as they are, and shares its history with `pulse migrate`."""

import asyncio
import itertools
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from devstack.postgres import SUPERUSER, Postgres, bootstrap
from listener.migrate import migrate, migrations
from tests.skips import SUPABASE_CLI
from tests.sql.calls import Calls

_numbers = itertools.count(1)


@pytest.fixture
def folder(checkout: Path, tmp_path: Path) -> Path:
    """Our supabase/ and sql/ elsewhere: the command line leaves files of its own where it runs."""
    shutil.copytree(checkout / "supabase", tmp_path / "supabase", symlinks=True)
    shutil.copytree(checkout / "sql", tmp_path / "sql")
    return tmp_path


@pytest.fixture
async def project(cluster: Postgres) -> AsyncIterator[str]:
    """The address of a database with Supabase's roles and schemas and nothing of ours."""
    name = f"pushed_{next(_numbers)}"
    admin = await asyncpg.connect(cluster.dsn("postgres", SUPERUSER))
    await admin.execute(f"create database {name}")
    await bootstrap(cluster.dsn(name, SUPERUSER))
    yield cluster.dsn(name)
    await admin.execute(f"drop database {name} with (force)")
    await admin.close()


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
    project: str, folder: Path
) -> None:
    told = await supabase(folder, "db", "push", "--db-url", project, "--yes")
    for one in migrations():
        assert f"{one.label}.sql" in told

    connection = await asyncpg.connect(project)
    try:
        await connection.execute("set role service_role")
        calls = Calls(connection)
        made = await calls.insert("a")
        job = await calls.take(sweep=True)
        assert (job["id"], (await calls.end(job))["answer"]) == (made, "recorded")
    finally:
        await connection.close()
    assert await migrate(project, migrations()) == []


async def test_what_migrate_applied_is_up_to_date_for_push(project: str, folder: Path) -> None:
    await migrate(project, migrations())
    assert "up to date" in await supabase(folder, "db", "push", "--db-url", project, "--yes")
    listed = await supabase(folder, "migration", "list", "--db-url", project)
    for one in migrations():
        assert f"`{one.version}` | `{one.version}`" in listed, f"{one.label} is here and there:\n{listed}"
