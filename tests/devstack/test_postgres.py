"""The embedded PostgreSQL: quick, alone on loopback, gone with its parent, and shaped like a Supabase project."""

import asyncio
import os
import pwd
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from devstack import postgres
from devstack.postgres import (
    BOOTSTRAP,
    SUPERUSER,
    Postgres,
    PostgresError,
    bootstrap,
    throw_away_folder,
    wheel_binaries,
)
from tests.skips import POSTGRES_15

PARENT = """
import asyncio, sys, time
from pathlib import Path
from devstack.postgres import Postgres
server = Postgres(Path(sys.argv[1]))
asyncio.run(server.start())
print(server.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    with throw_away_folder() as made:
        yield made


async def _ask(dsn: str, question: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()


async def test_keeps_its_data_and_starts_again(folder: Path) -> None:
    server = Postgres(folder)
    async with server:
        await _ask(server.dsn(user=SUPERUSER), "create table kept (a int)")
        settings = "select string_agg(setting, ' ' order by name) from pg_settings where name in"
        names = "('wal_level', 'fsync', 'synchronous_commit', 'listen_addresses')"
        told = await _ask(server.dsn(user=SUPERUSER), f"{settings} {names}")
        assert told == "off 127.0.0.1 on logical"
    async with server:
        assert await _ask(server.dsn(user=SUPERUSER), "select count(*) from kept") == 0


async def test_stops_with_clients_connected(folder: Path) -> None:
    async with Postgres(folder) as server:
        connection = await asyncpg.connect(server.dsn(user=SUPERUSER))
        pid = server.pid
    assert connection.is_closed()
    assert not _is_alive(pid)


def test_dies_with_its_parent(folder: Path) -> None:
    """Even when the parent is killed and can do nothing about it."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(folder)], stdout=subprocess.PIPE)
    assert parent.stdout
    server = int(parent.stdout.readline())
    assert _is_alive(server)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while _is_alive(server):
        assert time.monotonic() < deadline, "the server outlives its parent"
        time.sleep(0.01)


async def test_taken_port_is_named(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PostgresError, match=f"port {port} is taken"):
            await Postgres(folder, port=port).start()


async def test_two_servers_over_one_folder_are_refused(folder: Path) -> None:
    async with Postgres(folder):
        with pytest.raises(PostgresError, match=r"already running|lock file"):
            await Postgres(folder).start()


def test_folder_that_the_server_cannot_reach_is_known(folder: Path) -> None:
    somebody = pwd.struct_passwd(("somebody", "x", 4242, 4242, "", "/", "/bin/false"))
    shut = folder / "shut"
    shut.mkdir(mode=0o700)
    assert postgres._reachable(Path("/"), somebody)
    assert not postgres._reachable(shut, somebody)


def test_binaries_that_the_server_cannot_reach_are_copied(folder: Path) -> None:
    somebody = pwd.struct_passwd(("somebody", "x", 4242, 4242, "", "/", "/bin/false"))
    binaries = folder / "shut" / "bin"
    binaries.mkdir(parents=True)
    (binaries / "postgres").write_text("#!/bin/sh")
    (folder / "shut").chmod(0o700)
    copied = postgres._reachable_binaries(binaries, somebody)
    try:
        assert copied != binaries
        assert (copied / "postgres").read_text() == "#!/bin/sh"
        assert postgres._reachable(copied, somebody)
        assert postgres._reachable_binaries(binaries, somebody) == copied
    finally:
        (copied / "postgres").unlink()
        copied.rmdir()
        copied.parent.rmdir()


async def test_folder_without_postgres_is_named(folder: Path) -> None:
    with pytest.raises(PostgresError, match="bin folder"):
        await Postgres(folder, binaries=folder).start()


@pytest.mark.parametrize("version", ["16", "18"])
async def test_bootstrap_makes_a_supabase_project(folder: Path, version: str) -> None:
    async with Postgres(folder, binaries=wheel_binaries(version)) as server:
        await bootstrap(server.dsn(user=SUPERUSER))
        await bootstrap(server.dsn(user=SUPERUSER))
        await _is_supabase(server)


async def test_bootstrap_by_psql_on_postgres_15(folder: Path) -> None:
    binaries = POSTGRES_15.path()
    async with Postgres(folder, binaries=binaries) as server:
        dsn = server.dsn(user=SUPERUSER)
        psql = await asyncio.create_subprocess_exec(
            *(binaries / "psql", "-v", "ON_ERROR_STOP=1", "-q", dsn),
            *(word for file in BOOTSTRAP for word in ("-f", file)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await psql.communicate()
        assert (psql.returncode, said) == (0, b"")
        await _is_supabase(server)


async def _is_supabase(server: Postgres) -> None:
    owner = await asyncpg.connect(server.dsn())
    assert not await owner.fetchval("select rolsuper from pg_roles where rolname = current_user")
    await owner.execute(
        "create table t (id int primary key, owner uuid references auth.users);"
        "alter table t enable row level security;"
        "create policy own on t to authenticated using (owner = auth.uid());"
        "alter publication supabase_realtime add table t;"
        "set role service_role; reset role"
    )
    opened = "select has_table_privilege('service_role', 't', 'select')"
    assert not await owner.fetchval(opened), "a new table is opened by a GRANT, not by itself"
    await owner.execute("""select set_config('request.jwt.claims', '{"sub": "", "role": "anon"}', false)""")
    assert await owner.fetchval("select auth.uid() is null and auth.role() = 'anon'")
    await owner.execute("""select realtime.send('{"a": 1}', 'event', 'topic', true)""")
    assert await owner.fetchval("select count(*) from realtime.messages where payload ? 'id'") == 1
    slot = "select lsn from pg_create_logical_replication_slot('s', 'pgoutput', true)"
    assert await owner.fetchval(slot), "postgres may read changes, as on Supabase"
    await owner.close()
    anon = await asyncpg.connect(server.dsn(user="authenticator"))
    assert await anon.fetchval("show statement_timeout") == "8s"
    await anon.execute("set role anon")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await anon.execute("set role postgres")
    await anon.close()


async def test_older_projects_open_new_tables_by_themselves(folder: Path) -> None:
    async with Postgres(folder) as server:
        await bootstrap(server.dsn(user=SUPERUSER), granted_by_default=True)
        await _ask(server.dsn(), "create table t (id int)")
        assert await _ask(server.dsn(), "select has_table_privilege('anon', 't', 'insert')")


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A child of somebody who was killed may wait for init to look at it.
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return not state.stdout.startswith("Z")
