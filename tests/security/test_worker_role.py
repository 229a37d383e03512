"""A worker with the least-privilege key: a real process does all its work with it, and the role can do nothing else."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg
import pytest

from console.program import run
from devstack.gateway import Gateway
from devstack.keys import LOCAL
from devstack.postgres import SUPERUSER
from tests.projects import Worker
from tests.waiting import until

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
StartWorker: TypeAlias = Callable[..., AbstractAsyncContextManager[Worker]]

KEY = LOCAL.mint("pulse_worker")
ENVIRONMENT = {
    "SUPABASE_SERVICE_ROLE_KEY": "",
    "PULSE_WORKER_KEY": KEY,
    "SUPABASE_PUBLISHABLE_KEY": LOCAL.publishable,
}
STUBBORN = '''
"""Fails, and with more attempts left it would fail again."""

from listener import Payload, Queue, handler


class Stubborn(Payload):
    pass


@handler(Queue.MAINTENANCE)
async def stubborn(payload: Stubborn) -> None:
    raise RuntimeError("no")
'''


@pytest.fixture
def project(project: Path, checkout: Path) -> Path:
    """The test's handlers, over the resources that the project ships."""
    resources = project / "handlers" / "resources.py"
    resources.write_text((checkout / "handlers" / "resources.py").read_text())
    family = project / "handlers" / "maintenance"
    (family / "stubborn.py").write_text(STUBBORN)
    (family / "prune.py").symlink_to(checkout / "handlers" / "maintenance" / "prune.py")
    return project


@pytest.fixture
async def superuser(database: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(database, user=SUPERUSER)
    try:
        yield connection
    finally:
        await connection.close()


async def insert(owner: Connection, type_: str, **columns: Any) -> int:
    names = ", ".join(["type", *columns])
    places = ", ".join(f"${n}" for n in range(1, len(columns) + 2))
    made = await owner.fetchval(
        f"insert into maintenance_jobs ({names}) values ({places}) returning id", type_, *columns.values()
    )
    assert isinstance(made, int)
    return made


async def ends(owner: Connection, job: int, status: str) -> asyncpg.Record:
    async def has_ended() -> bool:
        return bool(await owner.fetchval("select status from jobs where id = $1", job) == status)

    await until(f"the job is {status}", has_ended)
    row = await owner.fetchrow("select * from jobs where id = $1", job)
    assert row is not None
    return row


async def test_a_process_with_the_workers_key_hears_runs_and_records(
    traces: Connection, start_worker: StartWorker
) -> None:
    await traces.execute("grant insert, select on traces to pulse_worker")
    async with start_worker(**ENVIRONMENT) as worker:
        await until("the worker hears inserts", lambda: worker.said("Realtime is ready"))

        async def is_heard() -> bool:
            job = await insert(traces, "trace")
            row = await ends(traces, job, "completed")
            assert await traces.fetchval("select count(*) from traces where job_id = $1", job) == 1
            return bool(
                row["woken_by"] == "realtime"
            )  # the first may be found by the look that follows a join

        await until("Realtime wakes the worker", is_heard)

        cleaned = await ends(traces, await insert(traces, "prune"), "completed")
        assert json.loads(cleaned["result"]).keys() >= {"jobs", "failed_jobs", "stale_outcomes"}

        hopeless = await insert(traces, "stubborn", max_attempts=1)
        await ends(traces, hopeless, "failed")
        assert await traces.fetchval("select job_id from failed_jobs") == hopeless
        assert not worker.said("deaf to Realtime")


async def test_a_handler_gets_no_further_than_the_role_and_only_its_own_job_fails(
    traces: Connection, start_worker: StartWorker
) -> None:
    async with start_worker(**ENVIRONMENT) as worker:
        refused = await insert(traces, "trace", max_attempts=1)
        await ends(traces, refused, "failed")
        message = await traces.fetchval("select error_message from failed_jobs")
        assert "permission denied for table traces" in message

        await traces.execute("grant insert, select on traces to pulse_worker")
        assert (await ends(traces, await insert(traces, "trace"), "completed"))["attempt"] == 1
        assert worker.said("started")


async def test_pulse_check_is_content_with_the_workers_key(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {**ENVIRONMENT, "SUPABASE_URL": gateway.url}.items():
        monkeypatch.setenv(name, value)
    assert await asyncio.to_thread(run, ["check", "--queues", "maintenance"]) == 0
    assert "Realtime announces inserts" in capsys.readouterr().out


async def test_pulse_retry_says_who_may(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {**ENVIRONMENT, "SUPABASE_URL": gateway.url}.items():
        monkeypatch.setenv(name, value)
    assert await asyncio.to_thread(run, ["retry", "1"]) == 1
    assert "permission denied for function replay" in capsys.readouterr().err


async def test_of_a_job_the_role_reads_the_key_and_nothing_else(
    owner: Connection, superuser: Connection
) -> None:
    job = await insert(owner, "trace")
    await superuser.execute("set role pulse_worker")
    assert await superuser.fetchval("select id from jobs_maintenance where queue = 'maintenance'") == job
    for column in ("type", "data", "user_id", "result", "last_error", "status", "*"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await superuser.fetch(f"select {column} from jobs_maintenance")
    for statement in (
        "select id from jobs",
        "insert into jobs_maintenance (type) values ('a')",
        "update jobs_maintenance set type = 'b'",
        "delete from jobs_maintenance",
        "truncate jobs_maintenance",
        "create table mine (id int)",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await superuser.execute(statement)


async def test_what_the_documentation_grants_to_handlers_is_what_they_then_may(
    owner: Connection, superuser: Connection, checkout: Path
) -> None:
    page = (checkout / "docs" / "decisions" / "009_worker_role.md").read_text()
    (grants,) = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    await owner.execute("create table reports (id int); alter table reports enable row level security")
    calls = "select draw_stripe_ticket()"
    writes = "insert into reports values (1)"
    await superuser.execute("set role pulse_worker")
    for statement in (calls, writes):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await superuser.execute(statement)

    await owner.execute(grants)
    await superuser.execute(writes)
    await superuser.execute(calls)
    assert await superuser.fetchval("select count(*) from reports") == 1


def test_the_documentation_grants_every_function_that_handlers_call(checkout: Path) -> None:
    page = (checkout / "docs" / "decisions" / "009_worker_role.md").read_text()
    granted = set(re.findall(r"public\.(\w+)", page)) | {"enqueue", "prune"}  # the role itself has these two
    files = (checkout / "handlers").rglob("*.py")
    called = {
        name
        for file in files
        for name in re.findall(r'(?:call|_surely|rpc)\(\s*(?:[\w.]+,\s*)?"(\w+)"', file.read_text())
    }
    assert {"begin_order", "begin_delivery", "digest_facts"} <= called
    assert called <= granted


async def test_the_file_that_makes_the_role_may_be_repeated(superuser: Connection, checkout: Path) -> None:
    text = (checkout / "sql" / "015_worker_role.sql").read_text()
    for _ in range(2):
        await superuser.execute(text)
    members = await superuser.fetch(
        "select member::regrole::text as name from pg_auth_members where roleid = 'pulse_worker'::regrole"
    )
    assert "authenticator" in {row["name"] for row in members}
    assert not await superuser.fetch("select from pg_auth_members where member = 'pulse_worker'::regrole")


@pytest.mark.parametrize(
    "power",
    ["bypassrls", "superuser", "login", "createrole", "createdb", "replication", "in role service_role"],
)
async def test_a_stranger_of_that_name_is_not_made_a_worker(
    superuser: Connection, checkout: Path, power: str
) -> None:
    text = (checkout / "sql" / "015_worker_role.sql").read_text()
    grant = "grant service_role to pulse_worker" if " " in power else f"alter role pulse_worker {power}"
    transaction = superuser.transaction()  # roles belong to the whole server, where other tests are at work
    await transaction.start()
    try:
        await superuser.execute(grant)
        with pytest.raises(asyncpg.DuplicateObjectError, match="may do more than a worker should"):
            await superuser.execute(text)
    finally:
        await transaction.rollback()


async def test_a_server_without_an_api_gets_the_role_all_the_same(
    superuser: Connection, checkout: Path
) -> None:
    text = (checkout / "sql" / "015_worker_role.sql").read_text()
    transaction = superuser.transaction()
    await transaction.start()
    try:
        await superuser.execute(
            "alter role authenticator rename to somebody; alter role pulse_worker rename to past"
        )
        await superuser.execute(text)
        assert await superuser.fetchval("select count(*) from pg_roles where rolname = 'pulse_worker'") == 1
    finally:
        await transaction.rollback()
