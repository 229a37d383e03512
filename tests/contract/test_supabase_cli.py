"""The Supabase command line takes our files as they are, and shares its history with `pulse migrate`."""

import asyncio
import shutil
from pathlib import Path

import asyncpg
import pytest

from listener.migrate import migrate, migrations
from tests.skips import SUPABASE_CLI
from tests.sql.calls import Calls


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
