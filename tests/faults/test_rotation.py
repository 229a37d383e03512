"""A key is replaced while jobs run: no restart, no job lost or done twice, and Realtime is heard with the new one."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import asyncpg
import pytest

from devstack.gateway import Gateway
from devstack.keys import Keys
from tests.faults.acting import Acting, Connection
from tests.projects import Worker
from tests.waiting import until

RESOURCES = '''
"""The database, as the project ships it."""

from collections.abc import AsyncIterator

from handlers.clients.database import Database, database_of
from listener import Keyring, Settings, resource


@resource()
async def database(settings: Settings, keyring: Keyring) -> AsyncIterator[Database]:
    async with database_of(settings["SUPABASE_URL"], keyring) as db:
        yield db
'''
StartWorker: TypeAlias = Callable[..., AbstractAsyncContextManager[Worker]]
QUICK = {"sweep": 0.3, "reconnect": 0.05}
TAKES = "the project takes the next key"
REFUSES = "the project refuses the key"


@pytest.fixture
async def gateway(database: str) -> AsyncIterator[Gateway]:
    """One whose keys can be withdrawn."""
    async with Gateway(database, keys=Keys()) as running:
        yield running


@pytest.fixture
def key_file(tmp_path: Path, gateway: Gateway) -> Path:
    """The file from which workers read the key."""
    file = tmp_path / "key"
    put(file, gateway.keys.secret)
    return file


def put(file: Path, *keys: str) -> None:
    """As a platform does it that mounts secrets: all of the new content or all of the old."""
    new = file.with_suffix(".new")
    new.write_text("\n".join(keys) + "\n")
    new.rename(file)


def take_away(file: Path) -> None:
    file.unlink()


def from_file(file: Path) -> dict[str, str]:
    return {"SUPABASE_SERVICE_ROLE_KEY": "", "SUPABASE_SERVICE_ROLE_KEY_FILE": str(file)}


@asynccontextmanager
async def load(dsn: str) -> AsyncIterator[None]:
    """There are always some jobs to do, until the block ends."""
    connection = await asyncpg.connect(dsn)

    async def is_short() -> bool:
        return bool(await connection.fetchval("select count(*) < 10 from jobs where status = 'pending'"))

    async def go_on() -> None:
        while True:
            await until("the workers keep up", is_short)
            await connection.execute(
                "insert into maintenance_jobs (type) select 'trace' from generate_series(1, 5)"
            )

    try:
        async with asyncio.TaskGroup() as group:
            producer = group.create_task(go_on())
            yield
            producer.cancel()
    finally:
        await connection.close()


async def more_is_done(owner: Connection) -> None:
    """Jobs that are inserted from now on are done."""
    last = await owner.fetchval("select max(id) from jobs")
    await until(
        "ten more jobs are done",
        lambda: owner.fetchval(
            "select count(*) >= 10 from jobs where id > $1 and status = 'completed'", last or 0
        ),
    )


async def wakes(owner: Connection) -> None:
    """Realtime wakes a worker: the row says what did."""

    async def is_heard() -> bool:
        job = await owner.fetchval("insert into maintenance_jobs (type) values ('trace') returning id")
        done = "select woken_by from jobs where id = $1 and status = 'completed'"
        await until("it is done", lambda: owner.fetchval(done, job))
        return bool(await owner.fetchval(done, job) == "realtime")  # the first may be found by another look

    await until("Realtime wakes a worker", is_heard)


async def all_was_done_once(owner: Connection) -> None:
    await until(
        "all jobs are completed", lambda: owner.fetchval("select bool_and(status = 'completed') from jobs")
    )
    assert await owner.fetchval("select count(*) from jobs") == await owner.fetchval(
        "select count(*) from traces"
    )
    assert await owner.fetch("select job_id from traces group by 1 having count(*) <> 1") == []
    again = await owner.fetch("select id, attempt, uncounted, last_error from jobs where attempt > 1")
    assert again == [], "no attempt was lost either"
    for table in ("failed_jobs", "stale_outcomes"):
        assert await owner.fetchval(f"select count(*) from {table}") == 0


async def test_a_key_is_replaced_under_load_and_nothing_is_lost_or_done_twice(
    gateway: Gateway,
    project: Path,
    key_file: Path,
    traces: Connection,
    database: str,
    start_worker: StartWorker,
) -> None:
    (project / "handlers" / "resources.py").write_text(RESOURCES)
    keys = gateway.keys
    old, second, third = keys.secret, keys.new_secret(), keys.new_secret()
    several = {"SUPABASE_SERVICE_ROLE_KEY": f"{old},{second}, {third}"}
    async with (
        start_worker(tempo=QUICK, **from_file(key_file)) as by_file,
        start_worker(tempo=QUICK, **several) as by_variable,
    ):
        workers = (by_file, by_variable)

        async def all_hear(times: int) -> None:
            for worker in workers:
                await until(
                    f"it hears for the {times}. time",
                    lambda: len(worker.lines("Realtime is ready")) >= times,  # noqa: B023 - waited for here
                )

        await all_hear(1)
        async with load(database):
            await more_is_done(traces)
            # Without a word: the next call is refused, and finds the new key.
            put(key_file, second)
            keys.withdrawn.add(old)
            await until("both have the second", lambda: all(one.said(TAKES) for one in workers))
            await all_hear(2)
            await more_is_done(traces)
            # With a word, the old one is still good meanwhile.
            put(key_file, third, second)
            by_file.signal(signal.SIGHUP)
            await until("it has the third", lambda: len(by_file.lines(TAKES)) >= 2)
            keys.withdrawn.add(second)
            await until("the other has it too", lambda: len(by_variable.lines(TAKES)) >= 2)
            await more_is_done(traces)
        await all_hear(3)
        for worker in workers:
            assert worker.code is None
            assert not worker.unexpected
        assert len(by_file.lines(REFUSES)) <= 1, "who was told in time was refused nothing"
        await wakes(traces)
        await all_was_done_once(traces)
        for worker in workers:
            told = json.dumps([(one.message, one.facts) for one in worker.told], default=str)
            assert not [key for key in (old, second, third) if key in told]


async def is_told(worker: Worker, words: str) -> None:
    await until(f"it says: {words}", lambda: worker.said(words))


async def test_without_a_newer_key_work_is_kept_until_there_is_one(
    gateway: Gateway, acting: Acting, key_file: Path, start_worker: StartWorker
) -> None:
    async with start_worker(tempo=QUICK, **from_file(key_file)) as worker:
        jobs = await acting.enqueue("wait", 5)
        await until("all of them run", lambda: len(acting.begun()) == len(jobs))
        gateway.keys.withdrawn.add(gateway.keys.secret)
        await is_told(
            worker, "work is kept. Put a valid one into the file that SUPABASE_SERVICE_ROLE_KEY_FILE"
        )
        acting.open(1)
        await until("all have ended", lambda: sum(note.what == "ends" for note in acting.ledger) == len(jobs))
        put(key_file, "no key at all")
        worker.signal(signal.SIGHUP)
        await is_told(worker, "is neither a secret key")
        put(key_file, gateway.keys.new_secret())
        await until("all jobs are completed", acting.all_completed)
        assert worker.code is None
    assert acting.begun() == dict.fromkeys(jobs, 1), "what was done is not done again"
    assert await acting.stale() == []
    await acting.attempts_are_sound()


async def test_a_wrong_key_in_the_file_stops_nobody_whose_key_is_good(
    gateway: Gateway, acting: Acting, key_file: Path, start_worker: StartWorker
) -> None:
    async with start_worker(tempo=QUICK, **from_file(key_file)) as worker:
        await is_told(worker, "Realtime is ready")
        put(key_file, "sb_secret_of_another_project")
        worker.signal(signal.SIGHUP)
        await is_told(worker, f"SUPABASE_SERVICE_ROLE_KEY_FILE: {REFUSES} (HTTP 401); trying another one")
        take_away(key_file)
        worker.signal(signal.SIGHUP)
        await is_told(worker, "names a file that cannot be read")
        jobs = await acting.enqueue("nothing", 5)
        await until("all jobs are completed", acting.all_completed)
        assert not worker.said("the key was replaced"), "it listens as before"
        assert not worker.said(TAKES)
    assert acting.begun() == dict.fromkeys(jobs, 1)


async def test_the_key_of_a_worker_is_replaced_the_same_way(
    gateway: Gateway, acting: Acting, tmp_path: Path, start_worker: StartWorker
) -> None:
    """Such keys are tokens: when they are withdrawn, the server also ends what listens with them."""
    keys, file = gateway.keys, tmp_path / "worker_key"
    old, new = keys.mint("pulse_worker"), keys.mint("pulse_worker", jti="the next one")
    put(file, old)
    environment = {
        "SUPABASE_SERVICE_ROLE_KEY": "",
        "PULSE_WORKER_KEY_FILE": str(file),
        "SUPABASE_PUBLISHABLE_KEY": keys.publishable,
    }
    async with start_worker(tempo=QUICK, **environment) as worker:
        await is_told(worker, "Realtime is ready")
        put(file, new)
        keys.withdrawn.add(old)
        heard = len(worker.lines("Realtime is ready"))
        await gateway.realtime.acts.disconnect()
        await is_told(worker, f"PULSE_WORKER_KEY_FILE: {TAKES}")
        jobs = await acting.enqueue("nothing", 5)
        await until("all jobs are completed", acting.all_completed)
        await until("it hears again", lambda: len(worker.lines("Realtime is ready")) > heard)
    assert acting.begun() == dict.fromkeys(jobs, 1)
