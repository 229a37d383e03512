"""The runbook is true: each trouble is made, every command below its heading is run, and the trouble is over."""

import json
import os
import re
import shlex
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

import asyncpg
import pytest

from devstack.gateway import Gateway
from devstack.keys import LOCAL
from listener.keys import facts_of
from tests.console.commanding import Terminal
from tests.house.tree import ROOT
from tests.projects import StartWorker, Worker
from tests.sql.test_workers import word
from tests.waiting import until

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
PAGE = (ROOT / "docs" / "runbook.md").read_text()
_SECTION = re.compile(r"^## (.+?)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SECTIONS = dict(_SECTION.findall(PAGE))
FINDS = {"doctor", "schedules", "secrets"}
"""Commands that end with 1 when they have found something."""


@dataclass
class Shift:
    """A person on call: a terminal, a connection as the owner, and what the words of the page stand for."""

    terminal: Terminal
    owner: Connection
    start_worker: StartWorker
    stack: AsyncExitStack
    folder: Path
    monkeypatch: pytest.MonkeyPatch
    words: dict[str, str] = field(default_factory=dict[str, str])
    workers: list[Worker] = field(default_factory=list[Worker])

    async def runs(self, block: str, language: str) -> None:
        """Every command of a block, in its order."""
        if language == "sql":
            await self.owner.execute(block)
            return
        assert language == "bash"
        for line in block.splitlines():
            await self.types(line)

    async def types(self, line: str) -> None:
        """One line of a shell."""
        for name, value in self.words.items():
            line = line.replace(f'"${name}"', value).replace(f"${name}/", f"{value}/")
        assert "$" not in line, f"nobody says what this stands for: {line}"
        typed, _, file = line.partition(" > ")
        words = shlex.split(typed)
        if words[:2] == ["pulse", "worker"]:
            self.workers.append(await self.stack.enter_async_context(self.start_worker(*words[2:])))
        elif words[0] == "pulse":
            said = await self.terminal.types(*words[1:])
            assert said.code in ((0, 1) if words[1] in FINDS else (0,)), f"{line}: {said.out}{said.err}"
            if file:
                (self.folder / shlex.split(file)[0]).write_text(said.out)
        else:
            assert words[0] == "kill"
            os.kill(int(words[2]), signal.Signals[f"SIG{words[1].removeprefix('-')}"])

    async def inserts(self, type_: str = "trace", data: str = "{}", max_attempts: int = 4) -> str:
        statement = (
            "insert into maintenance_jobs (type, data, max_attempts) values ($1, $2, $3) returning id::text"
        )
        id_: str = await self.owner.fetchval(statement, type_, data, max_attempts)
        return id_

    async def status(self, id_: str) -> str:
        found: str = await self.owner.fetchval("select status from jobs where id = $1", int(id_))
        return found

    async def completes(self, id_: str) -> None:
        async def has() -> bool:
            return await self.status(id_) == "completed"

        await until(f"job {id_} has completed", has)

    async def fails(self, id_: str, error_class: str, kind: str = "dead") -> str:
        """Its only attempt ends so; the dead letter."""
        await self.owner.execute("select claim('maintenance', '{trace}', 1, 60, 'w', 'sweep')")
        ended = {"queue": "maintenance", "id": int(id_), "attempt": 1, "kind": kind}
        await self.owner.execute("select finish($1)", json.dumps([ended | {"error_class": error_class}]))
        letter: str = await self.owner.fetchval("select max(id)::text from failed_jobs")
        return letter


Act = Callable[[Shift], Awaitable[None]]


async def nobody_works(shift: Shift) -> None:
    shift.words["JOB"] = await shift.inserts()


async def it_is_done(shift: Shift) -> None:
    await shift.completes(shift.words["JOB"])


async def jobs_fail(shift: Shift) -> None:
    for _ in range(3):
        shift.words["LETTER"] = await shift.fails(await shift.inserts(), "Broken")


async def none_is_left(shift: Shift) -> None:
    assert await shift.owner.fetchval("select count(*) from failed_jobs where replayed_at is null") == 0
    assert await shift.owner.fetchval("select count(*) from jobs where status = 'pending'") == 3
    assert await shift.owner.fetchval("select count(*) from paused") == 0


async def all_places_are_taken(shift: Shift) -> None:
    await shift.owner.execute(
        "select tell_worker($1)",
        word("w", queues=["maintenance"], types={"maintenance": ["trace"]}, places=1, running=1),
    )
    await shift.inserts()
    await shift.owner.execute("select claim('maintenance', '{trace}', 1, 600, 'w', 'sweep')")
    shift.words["JOB"] = await shift.inserts()


async def a_worker_has_a_key_of_its_own(shift: Shift) -> None:
    shift.monkeypatch.setenv("SUPABASE_JWT_SECRET", LOCAL.jwt_secret)
    shift.words["KEYS"] = str(shift.folder)
    file = shift.folder / "worker_key"
    file.write_text(LOCAL.mint("pulse_worker", exp=int(datetime.now(UTC).timestamp()) + 3600))
    begins = shift.start_worker(PULSE_WORKER_KEY_FILE=str(file), SUPABASE_PUBLISHABLE_KEY=LOCAL.publishable)
    shift.workers.append(await shift.stack.enter_async_context(begins))
    shift.words["WORKER"] = str(shift.workers[0].pid)


async def it_has_the_new_key_and_works(shift: Shift) -> None:
    end = facts_of((shift.folder / "worker_key").read_text().strip()).ends_at
    assert end is not None
    assert (end - datetime.now(UTC)).days > 80
    [worker] = shift.workers
    assert worker.code is None, worker.unexpected

    async def says_so() -> bool:
        return bool(await shift.owner.fetchval("select exists (select from workers)"))

    await until("it is there", says_so)


async def a_queue_is_not_announced(shift: Shift) -> None:
    await shift.owner.execute("alter publication supabase_realtime drop table jobs_maintenance")


async def all_are_announced(shift: Shift) -> None:
    said = await shift.terminal.types("doctor", "--json", "--no-realtime")
    assert {one["finding"] for one in said.document["findings"]} == {"no_worker"}


async def a_job_kills_its_workers(shift: Shift) -> None:
    shift.words["JOB"] = await shift.inserts(max_attempts=1)
    shift.words["LETTER"] = await shift.fails(shift.words["JOB"], "WorkerVanished")
    shift.words["OTHER_JOB"] = await shift.inserts()


async def one_is_cancelled_and_one_waits(shift: Shift) -> None:
    assert await shift.status(shift.words["OTHER_JOB"]) == "cancelled"
    assert await shift.status(shift.words["JOB"]) == "pending"


async def somebody_paused_a_schedule(shift: Shift) -> None:
    await shift.owner.execute(
        "insert into schedules (name, queue, type, cron) values ('nightly', 'maintenance', 'trace', '0 4 * * *');"
        "select pause_schedule('nightly')"
    )


async def it_has_run_and_goes_on(shift: Shift) -> None:
    await shift.completes(await shift.owner.fetchval("select max(id)::text from jobs"))

    async def is_reckoned() -> bool:
        statement = "select next_slot > now() and not paused and problem is null from schedules"
        return bool(await shift.owner.fetchval(statement))

    await until("its next slot is known", is_reckoned)


async def an_old_worker_runs(shift: Shift) -> None:
    shift.workers.append(await shift.stack.enter_async_context(shift.start_worker()))
    shift.words["WORKER"] = str(shift.workers[0].pid)


async def a_new_one_has_taken_over(shift: Shift) -> None:
    old, _ = shift.workers
    assert await old.ends() == 0
    await shift.completes(await shift.inserts())


TROUBLES: dict[str, tuple[Act, Act]] = {
    "Worker not processing jobs": (nobody_works, it_is_done),
    "High failure rate": (jobs_fail, none_is_left),
    "Slow processing": (all_places_are_taken, it_is_done),
    "A key is lost or stolen": (a_worker_has_a_key_of_its_own, it_has_the_new_key_and_works),
    "Deaf to Realtime": (a_queue_is_not_announced, all_are_announced),
    "A poison job": (a_job_kills_its_workers, one_is_cancelled_and_one_waits),
    "A stuck schedule": (somebody_paused_a_schedule, it_has_run_and_goes_on),
    "A deploy": (an_old_worker_runs, a_new_one_has_taken_over),
}


@pytest.mark.parametrize("section", SECTIONS)
async def test_every_command_of_a_section_works_and_the_trouble_is_over(
    section: str,
    gateway: Gateway,
    database: str,
    traces: Connection,
    start_worker: StartWorker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    prepare, is_over = TROUBLES[section]
    blocks = _BLOCK.findall(SECTIONS[section])
    assert blocks, "a section without a command"
    monkeypatch.setenv("DATABASE_URL", database)
    terminal = Terminal(gateway, monkeypatch, capsys)
    async with AsyncExitStack() as stack:
        shift = Shift(terminal, traces, start_worker, stack, tmp_path, monkeypatch)
        await prepare(shift)
        for language, block in blocks:
            await shift.runs(block, language)
        await is_over(shift)


async def test_the_two_commands_that_come_first_work(
    gateway: Gateway,
    owner: Connection,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    id_ = await owner.fetchval("insert into payment_jobs (type) values ('a') returning id")
    head = _BLOCK.findall(PAGE.partition("\n## ")[0])
    lines = [line for language, block in head if language == "bash" for line in block.splitlines()]
    terminal = Terminal(gateway, monkeypatch, capsys)
    for line in lines:
        words = shlex.split(line.replace('"$JOB"', str(id_)))
        said = await terminal.types(*words[1:])
        assert said.code == (1 if words[1] in FINDS else 0), said
        assert not said.err
    assert len(lines) == 2


def test_the_page_has_the_headings_that_people_look_for() -> None:
    assert {"Worker not processing jobs", "High failure rate", "Slow processing"} <= set(SECTIONS)
    assert set(SECTIONS) == set(TROUBLES)
    assert len(re.findall(r"^```", PAGE, re.MULTILINE)) == 2 * len(_BLOCK.findall(PAGE))
