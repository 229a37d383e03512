"""The same files on every PostgreSQL that they promise to run on, from a plain server to a finished job."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from devstack.postgres import SUPERUSER, Postgres, bootstrap, throw_away_folder, wheel_binaries
from listener.migrate import migrate, migrations
from tests.skips import POSTGRES_15, POSTGRES_17
from tests.sql.calls import Calls, outcome

OTHERS = {"15": POSTGRES_15, "17": POSTGRES_17}


@pytest.fixture(params=["15", "16", "17", "18"])
async def migrated(request: pytest.FixtureRequest) -> AsyncIterator[tuple[str, str]]:
    """A major version and the address of a migrated database on it."""
    version: str = request.param
    binaries = OTHERS[version].path() if version in OTHERS else wheel_binaries(version)
    with throw_away_folder() as folder:
        async with Postgres(folder, binaries=binaries) as server:
            await bootstrap(server.dsn(user=SUPERUSER))
            await migrate(server.dsn(), migrations())
            yield version, server.dsn()


async def test_plain_psql_applies_the_files_on_postgres_15(checkout: Path) -> None:
    binaries = POSTGRES_15.path()
    files = sorted((checkout / "sql").glob("*.sql"))
    with throw_away_folder() as folder:
        async with Postgres(folder, binaries=binaries) as server:
            await bootstrap(server.dsn(user=SUPERUSER))
            names = [word for file in files for word in ("-f", file)]
            psql = await asyncio.create_subprocess_exec(
                *(binaries / "psql", "-v", "ON_ERROR_STOP=1", "-q", "-o", os.devnull, *names, server.dsn()),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            said, _ = await psql.communicate()
            assert (psql.returncode, said) == (0, b"")
            connection = await asyncpg.connect(server.dsn())
            made = await Calls(connection).insert("a")
            assert (await Calls(connection).take())["id"] == made
            await connection.close()


async def test_a_whole_life_on_each_version(migrated: tuple[str, str]) -> None:
    version, address = migrated
    connection = await asyncpg.connect(address)
    try:
        assert (await connection.fetchval("show server_version")).startswith(version)
        await connection.execute("set role service_role")
        calls = Calls(connection)

        direct = await calls.insert("a", priority=1)
        parent = await calls.value("insert into jobs (queue, type) values ('payment', 'a') returning id")
        [called, again] = await calls.enqueue(
            *2 * [{"queue": "payment", "type": "a", "idempotency_key": "k"}]
        )
        assert again == {"id": called["id"], "created": False}

        claimed = await calls.claim(2, sweep=True)
        assert [job["id"] for job in claimed["jobs"]] == [direct, parent]
        assert await calls.heartbeat(*claimed["jobs"]) == {"lost": [], "cancel": []}
        assert (await calls.cancel(parent))["asked"] == [parent]

        answer = await calls.finish(
            outcome(claimed["jobs"][0], "dead", error_class="E", error_message="m"),
            outcome(claimed["jobs"][1], "retry"),
            claim={
                "queue": "payment",
                "types": ["a"],
                "max_jobs": 5,
                "lease_seconds": 30,
                "worker_id": "w",
                "woken_by": "finish",
                "floor": claimed["floor"],
            },
        )
        assert [said["status"] for said in answer["outcomes"]] == ["failed", "cancelled"]
        assert [job["id"] for job in answer["claim"]["jobs"]] == [called["id"]]
        assert (await calls.end(answer["claim"]["jobs"][0]))["answer"] == "recorded"
        assert (await calls.end(answer["claim"]["jobs"][0]))["answer"] == "repeated"

        letter = answer["outcomes"][0]["failed_job_id"]
        assert (await calls.replay())["replayed"] == [{"failed_job_id": letter, "job_id": direct}]
        assert (await calls.take())["attempt"] == 2
        assert (await calls.prune(0, 0))["jobs"] == 2
        assert "select announce_by_broadcast()" in await calls.value("select canary('x')")

        await calls.limit(queue="payment", type="b", at_once=1)
        first, second = await calls.insert("b"), await calls.insert("b")
        [runs] = (await calls.claim(types=["b"]))["jobs"]
        await calls.end(runs)
        assert (await calls.claim(0, types=["b"]))["next_in_seconds"] == 0, "a lane has room now"
        assert runs["id"] == first
        assert (await calls.take(types=["b"]))["id"] == second
    finally:
        await connection.close()
