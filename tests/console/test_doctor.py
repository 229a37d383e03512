"""`pulse doctor` over a whole project: healthy, and with what only somebody outside of the database can see."""

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from console.doctor import inside
from devstack.gateway import Gateway
from devstack.keys import LOCAL
from tests.console.commanding import Said, Terminal
from tests.listener.answering import door_of
from tests.projects import StartWorker
from tests.sql.calls import Connection
from tests.waiting import until


@pytest.fixture
async def terminal(
    gateway: Gateway,
    owner: Connection,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> AsyncIterator[Terminal]:
    """Of a project in which a real worker runs."""
    async with start_worker():
        await until("the worker has said so", lambda: there_is_one(owner))
        yield Terminal(gateway, monkeypatch, capsys)


async def there_is_one(owner: Connection) -> bool:
    return bool(await owner.fetchval("select exists (select from workers)"))


async def test_a_fresh_project_with_a_running_worker_is_healthy(terminal: Terminal) -> None:
    said = await terminal.types("doctor")
    assert (said.code, said.err) == (0, "")
    database, realtime, verdict = said.out.splitlines()
    assert "the database answers in" in database
    assert "Realtime announces an insert within" in realtime
    assert verdict == "✓ nothing is wrong"
    document = (await terminal.types("doctor", "--json")).document
    assert (document["healthy"], document["findings"]) == (True, [])
    assert 0 < document["measured"]["realtime_seconds"] < 25


async def test_a_finding_is_told_with_its_mend_and_the_exit_code(
    terminal: Terminal, owner: Connection
) -> None:
    await owner.execute("alter publication supabase_realtime drop table jobs_payment")
    said = await terminal.types("doctor", "--no-realtime")
    assert said.code == 1
    assert "✗ not_published: jobs_payment: not in the publication supabase_realtime" in said.out
    assert "    select public.publish_table('jobs_payment');\n" in said.out
    assert "1 finding. Nothing was changed." in said.out
    [found] = (await terminal.types("doctor", "--no-realtime", "--json")).document["findings"]
    assert found["is_sql"]
    await owner.execute(found["mend"])
    assert (await terminal.types("doctor", "--no-realtime")).code == 0


async def test_realtime_that_is_off_is_found_by_listening(terminal: Terminal, gateway: Gateway) -> None:
    gateway.faults.realtime.off = True
    try:
        assert await words(terminal, "--patience", "1") == ["realtime_deaf"]
    finally:
        gateway.faults.realtime.off = False


async def words(terminal: Terminal, *more: str) -> list[str]:
    said: Said = await terminal.types("doctor", "--json", *more)
    found = [str(one["finding"]) for one in said.document["findings"]]
    assert said.code == (1 if found else 0)
    return found


async def test_files_that_were_not_applied_are_found(
    terminal: Terminal, owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await owner.execute("delete from supabase_migrations.schema_migrations where version = '086'")
    assert await words(terminal, "--no-realtime") == ["migrations_missing"]
    await owner.execute("drop function doctor_facts")
    await owner.execute("notify pgrst, 'reload schema'")
    assert await words(terminal, "--no-realtime") == ["migrations_missing"]


async def test_a_door_is_looked_at_from_outside(terminal: Terminal, gateway: Gateway) -> None:
    async with door_of(gateway.url) as door:
        assert await words(terminal, "--no-realtime", "--door", door.url) == []
        door.problems.append("the scheduler thread died (OSError)")
        assert await words(terminal, "--no-realtime", "--door", door.url) == ["door_not_ready"]
    assert await words(terminal, "--no-realtime", "--door", door.url) == ["door_closed"]


async def test_a_clock_that_is_wrong_is_found(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    class Ahead(datetime):
        @classmethod
        def now(cls, tz: object = None) -> Any:
            return datetime.now(UTC) + timedelta(minutes=1)

    monkeypatch.setattr(inside, "datetime", Ahead)
    assert await words(terminal, "--no-realtime") == ["clock_here"]


async def test_a_key_that_ends_soon_is_found(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    end = int(time.time()) + 86400
    monkeypatch.setenv("PULSE_WORKER_KEY", LOCAL.mint("pulse_worker", exp=end))
    [found] = (await terminal.types("doctor", "--no-realtime", "--json")).document["findings"]
    assert found["finding"] == "key_ends"
    assert found["mend"] == "pulse worker-key"
    monkeypatch.setenv("SUPABASE_JWT_SECRET", LOCAL.jwt_secret)
    made = await terminal.types(*found["mend"].split()[1:])
    monkeypatch.setenv("PULSE_WORKER_KEY", made.out.strip())
    assert await words(terminal, "--no-realtime") == []
