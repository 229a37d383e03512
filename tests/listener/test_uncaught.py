"""What nobody caught is told by class and place; its text stays where it is."""

import asyncio
import gc
import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from devstack.gateway import Gateway
from devstack.keys import LOCAL
from listener.events import Swallowed
from listener.uncaught import for_loop, last_words, place_of, tell_by_place
from tests.listener.working import Connection, Told
from tests.waiting import until

SECRET = "Alice Example 4242424242424242"


def _breaks() -> None:
    raise ValueError(SECRET)


def told_of(told: Told) -> str:
    (event,) = told.of(Swallowed)
    return f"{event.where}: {event.error}"


async def test_a_task_that_nobody_waits_for() -> None:
    told = Told()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(for_loop(told))

    async def breaks() -> None:
        _breaks()

    task = asyncio.create_task(breaks())
    await asyncio.wait({task})
    del task
    gc.collect()
    await until("it is told", lambda: bool(told))
    assert told_of(told).startswith("task: ValueError at ")
    assert "Alice" not in told_of(told)


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch) -> Told:
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    told = Told()
    tell_by_place(told)
    return told


def test_a_thread_of_a_handler(hooks: Told) -> None:
    thread = threading.Thread(target=_breaks)
    thread.start()
    thread.join()
    assert told_of(hooks).startswith("thread Thread-")
    assert ": ValueError at " in told_of(hooks)
    assert "Alice" not in told_of(hooks)


def test_a_thread_is_not_told_by_the_name_that_a_handler_gave_it(hooks: Told) -> None:
    thread = threading.Thread(target=_breaks, name="mail to Alice Example")
    thread.start()
    thread.join()
    assert told_of(hooks).startswith("a thread with a name of its own: ValueError at ")


def test_an_object_that_is_thrown_away(hooks: Told) -> None:
    class Connection:
        def __del__(self) -> None:
            _breaks()

    Connection()
    gc.collect()
    assert told_of(hooks).startswith("thrown-away object: ValueError at ")


def test_last_words_name_the_frames_and_not_what_was_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="Alice") as raised:
        _breaks()
    last_words(raised.value)
    told = capsys.readouterr().err
    assert "in _breaks" in told
    assert "✗ ValueError" in told
    assert "Alice" not in told


def test_an_error_without_a_traceback_has_a_class() -> None:
    assert place_of(ValueError(SECRET)) == "ValueError"


HANDLER = '''
"""A handler that does what it should not."""

import asyncio
import sys
import threading
import time
import warnings

from listener import Payload, Queue, handler


class Misbehave(Payload):
    how: str


async def _exits() -> None:
    sys.exit(0)


@handler(Queue.MAINTENANCE)
async def misbehave(payload: Misbehave) -> None:
    if payload.how == "exit":
        await asyncio.gather(_exits())
    if payload.how == "thread":
        print("in the thread", flush=True)
        await asyncio.to_thread(time.sleep, 600)
    if payload.how == "warn":
        warnings.warn("Alice Example 4242424242424242", RuntimeWarning)
'''
RESOURCES = '''
"""A resource that cannot be opened."""

from collections.abc import AsyncIterator

from listener import Settings, resource


@resource()
async def number(settings: Settings) -> AsyncIterator[int]:
    raise ValueError(f"login refused for key {settings['BROKER_KEY']}")
    yield 1
'''


class Worker:
    """A real process over the misbehaving handler."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def says(self, words: str) -> None:
        """Reads on until a line has these words."""
        assert self.process.stdout is not None
        async with asyncio.timeout(20):
            while words.encode() not in (line := await self.process.stdout.readline()):
                assert line, f"it ended without saying {words!r}"

    async def ends(self) -> tuple[int, str]:
        async with asyncio.timeout(20):
            output, _ = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, output.decode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    family = tmp_path / "handlers" / "maintenance"
    family.mkdir(parents=True)
    for path in (family / "__init__.py", family.parent / "__init__.py", family.parent / "resources.py"):
        path.write_text('"""."""\n')
    (family / "misbehave.py").write_text(HANDLER)
    return tmp_path


async def start(gateway: Gateway, folder: Path, checkout: Path) -> Worker:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "listener", "worker", "--no-door", "--no-scheduler"),
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(checkout),
            "SUPABASE_URL": gateway.url,
            "SUPABASE_SERVICE_ROLE_KEY": LOCAL.secret,
            "BROKER_KEY": "supersecret-broker-key",
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    return Worker(process)


async def test_a_handler_that_calls_exit_in_a_task_does_not_end_the_process_in_silence(
    gateway: Gateway, owner: Connection, folder: Path, checkout: Path
) -> None:
    worker = await start(gateway, folder, checkout)
    await owner.execute(
        """insert into maintenance_jobs (type, data) values ('misbehave', '{"how": "exit"}')"""
    )
    code, told = await worker.ends()
    assert code == 1
    assert "called sys.exit()" in told


async def test_a_thread_that_goes_on_does_not_keep_the_process(
    gateway: Gateway, owner: Connection, folder: Path, checkout: Path
) -> None:
    worker = await start(gateway, folder, checkout)
    await owner.execute(
        """insert into maintenance_jobs (type, data) values ('misbehave', '{"how": "thread"}')"""
    )
    await worker.says("in the thread")
    worker.process.send_signal(signal.SIGINT)
    await worker.says("draining")  # signals that wait together may arrive in another order
    worker.process.send_signal(signal.SIGTERM)
    worker.process.send_signal(signal.SIGINT)
    code, told = await worker.ends()
    assert code == 1
    assert "still running: thread ThreadPoolExecutor-" in told
    assert await owner.fetchval("select status from jobs") == "pending"


async def test_a_warning_is_told_without_its_text(
    gateway: Gateway, owner: Connection, folder: Path, checkout: Path
) -> None:
    worker = await start(gateway, folder, checkout)
    await owner.execute(
        """insert into maintenance_jobs (type, data) values ('misbehave', '{"how": "warn"}')"""
    )
    await until("it has run", lambda: owner.fetchval("select status = 'completed' from jobs"))
    worker.process.terminate()
    code, told = await worker.ends()
    assert code == 0, told
    assert "RuntimeWarning" in told
    assert "Alice" not in told


async def test_a_resource_that_cannot_be_opened_is_told_without_its_key(
    gateway: Gateway, folder: Path, checkout: Path
) -> None:
    (folder / "handlers" / "resources.py").write_text(RESOURCES)
    file = folder / "handlers" / "maintenance" / "misbehave.py"
    file.write_text(file.read_text().replace("payload: Misbehave)", "payload: Misbehave, *, n: int)"))
    code, told = await (await start(gateway, folder, checkout)).ends()
    assert code == 1
    assert "✗ ValueError: the process ends" in told
    assert "supersecret" not in told
