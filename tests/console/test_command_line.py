"""The command line: exit codes, and sentences that name the mend."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from console.program import run
from devstack.gateway import Gateway
from devstack.keys import LOCAL
from tests.listener.packages import write_package
from tests.listener.working import Connection, dead_letters
from tests.waiting import until

HANDLERS = {
    "maintenance/shout.py": """
        import asyncio
        from listener import Payload, handler

        class Shout(Payload):
            text: str

        @handler("maintenance")
        async def shout(payload: Shout) -> dict[str, object]:
            if payload.text == "wait":
                await asyncio.Event().wait()
            return {"text": payload.text.upper()}
    """,
    "broker/ask.py": """
        from listener import Payload, handler

        @handler("broker")
        async def ask(payload: Payload, *, key: str) -> None: ...
    """,
    "resources.py": """
        from collections.abc import AsyncIterator
        from listener import Setting, Settings, resource

        @resource(Setting("BROKER_KEY", "the broker's console"))
        async def key(settings: Settings) -> AsyncIterator[str]:
            yield settings["BROKER_KEY"]
    """,
}
NAMES = ("SUPABASE_URL", "SUPABASE_SERVICE_ROLE_KEY", "DATABASE_URL", "PORT", "PULSE_LOG_LEVEL")
Say = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Say:
    """Runs one command in this process, with only this environment, and gives its code and what it said."""

    async def command(*words: str, **environment: str) -> tuple[int, str, str]:
        for name in NAMES:
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        code = await asyncio.to_thread(run, words)
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


@pytest.fixture
def there(gateway: Gateway) -> dict[str, str]:
    return {"SUPABASE_URL": gateway.url, "SUPABASE_SERVICE_ROLE_KEY": LOCAL.secret}


class Pulse:
    """The command as a process of its own, in a project folder with its own handlers."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        write_package(folder, HANDLERS)
        self._folder = folder
        kept = {name: value for name, value in os.environ.items() if name not in NAMES}
        root = str(Path(__file__).resolve().parents[2])
        self._environment = {**kept, **environment, "PYTHONPATH": root}
        self._running: list[asyncio.subprocess.Process] = []

    async def start(self, *words: str) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "listener",
            *words,
            cwd=self._folder,
            env=self._environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        self._running.append(process)
        return process

    async def say(self, *words: str) -> tuple[int, str, str]:
        process = await self.start(*words)
        out, err = await asyncio.wait_for(process.communicate(), 30)
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    async def kill(self) -> None:
        for process in self._running:
            if process.returncode is None:
                process.kill()
            await process.communicate()


@pytest.fixture
async def pulse(tmp_path: Path, there: dict[str, str]) -> AsyncIterator[Pulse]:
    command = Pulse(tmp_path, there)
    yield command
    await command.kill()


async def test_enqueue_prints_the_id(say: Say, there: dict[str, str], owner: Connection) -> None:
    code, out, err = await say("enqueue", "prune", '{"completed_days": 3}', "--key", "once", **there)
    assert (code, err) == (0, "")
    assert (await say("enqueue", "prune", "--key", "once", **there))[1] == out
    row = await owner.fetchrow("select id, queue, type, data from jobs")
    assert row is not None
    assert tuple(row) == (int(out), "maintenance", "prune", '{"completed_days": 3}')


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["reindex"], 2, "--queue"),
        (["prune", "{"], 2, "no JSON"),
        (["prune", '{"x": NaN}'], 2, "no JSON"),
        (["prune", "[" * 100_000], 2, "no JSON"),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_enqueue_refuses_before_it_calls(say: Say, words: list[str], code: int, told: str) -> None:
    nowhere = {"SUPABASE_URL": "http://127.0.0.1:9", "SUPABASE_SERVICE_ROLE_KEY": LOCAL.secret}
    answer, _, err = await say("enqueue", *words, **nowhere)
    assert answer == code
    assert told in err


async def test_enqueue_tells_what_the_database_says(say: Say, there: dict[str, str]) -> None:
    code, _, err = await say("enqueue", "prune", "[]", **there)
    assert code == 1
    assert "data must be a JSON object" in err
    code, _, err = await say("enqueue", "reindex", "--queue", "nowhere", **there)
    assert code == 1
    assert "create_queue" in err


async def test_retry_replays_each_at_most_once(say: Say, there: dict[str, str], owner: Connection) -> None:
    await owner.execute("insert into maintenance_jobs (type) values ('prune')")
    claim = "select claim('maintenance', array['prune'], 1, 60, 'w', 'start')"
    await owner.fetchval(claim)
    await owner.fetchval(
        """select finish('[{"queue": "maintenance", "id": 1, "attempt": 1, "kind": "dead"}]')"""
    )
    (letter,) = await dead_letters(owner)
    code, out, _ = await say("retry", str(letter["id"]), **there)
    assert (code, out) == (0, f"✓ dead letter {letter['id']}: job 1 runs again\n")
    code, out, err = await say("retry", str(letter["id"]), "999", **there)
    assert (code, out) == (1, "")
    assert "dead letter 999: unknown, or replayed before" in err
    assert await owner.fetchval("select status from jobs") == "pending"


async def test_a_store_that_does_not_answer_is_told_in_one_line(say: Say) -> None:
    nowhere = {"SUPABASE_URL": "http://127.0.0.1:9", "SUPABASE_SERVICE_ROLE_KEY": LOCAL.secret}
    code, out, err = await say("enqueue", "prune", **nowhere)
    assert (code, out, err.count("\n")) == (1, "", 1)


async def test_migrate(say: Say, database: str) -> None:
    code, out, _ = await say("migrate", DATABASE_URL=database)
    assert code == 0
    assert out.startswith("0 applied, ")
    code, _, err = await say("migrate")
    assert code == 2
    assert "DATABASE_URL is not set. Find it here: " in err


@pytest.mark.parametrize(
    "words", [[], ["dance"], ["retry"], ["retry", "x"], ["worker", "--port", "x"]], ids=str
)
def test_a_command_line_that_makes_no_sense(words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        run(words)
    assert left.value.code == 2
    assert "usage: pulse" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "environment", "told"),
    [
        (["--port", "70000"], {}, "0 to 65535"),
        (["--port", "-1"], {}, "0 to 65535"),
        ([], {"PORT": "abc"}, "0 to 65535"),
        ([], {"PORT": "²"}, "0 to 65535"),
        (["--concurrency", "0"], {}, "from 1 to 1000"),
        (["--log-level", "LOUD"], {}, "DEBUG"),
        ([], {"PULSE_LOG_LEVEL": "loud"}, "DEBUG"),
        (["--queues", "nowhere"], {}, "'nowhere'"),
        (["--queues", ""], {}, "name at least one queue"),
        (["--queues", ","], {}, "name at least one queue"),
    ],
    ids=str,
)
async def test_worker_options_out_of_range(
    say: Say, words: list[str], environment: dict[str, str], told: str
) -> None:
    nowhere = {"SUPABASE_URL": "http://127.0.0.1:9", "SUPABASE_SERVICE_ROLE_KEY": LOCAL.secret}
    code, _, err = await say("worker", "--queues", "maintenance", *words, **nowhere, **environment)
    assert code == 2
    assert told in err


async def test_every_fault_of_the_configuration_at_once(tmp_path: Path) -> None:
    environment = {"SUPABASE_SERVICE_ROLE_KEY": LOCAL.anon, "SUPABASE_URL": "http://example.com"}
    pulse = Pulse(tmp_path, environment)
    code, out, err = await pulse.say("worker", "--queues", "broker,nowhere")
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    told = err.splitlines()
    assert all(line.startswith("✗ ") for line in told)
    assert len(told) == 3
    assert "'nowhere'" in told[0]
    assert "https://" in err
    assert "role 'anon'" in err
    code, _, err = await pulse.say("worker")
    assert "BROKER_KEY is not set. Find it here: the broker's console" in err
    assert LOCAL.anon not in err


async def test_a_worker_from_start_to_sigterm(pulse: Pulse, owner: Connection) -> None:
    process = await pulse.start("worker", "--queues", "maintenance", "--port", "0", "--no-scheduler")
    await owner.execute(
        "insert into maintenance_jobs (type, data)"
        """ values ('shout', '{"text": "hello"}'), ('shout', '{"text": "wait"}'), ('shout', '{}')"""
    )

    async def both_ended() -> bool:
        assert process.returncode is None, await process.communicate()
        ended = "select count(*) from jobs where status in ('completed', 'failed')"
        return bool(await owner.fetchval(ended) == 2)

    await until("two have ended", both_ended)
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    async with asyncio.timeout(20):
        while b"draining" not in (line := await process.stdout.readline()):
            assert line, "it ended without saying that it drains"
    process.send_signal(signal.SIGINT)  # the first ended the claims, this one ends the grace
    out, err = await asyncio.wait_for(process.communicate(), 20)
    assert (process.returncode, err) == (0, b"")
    rows = await owner.fetch("select status, result, attempt, uncounted from jobs order by id")
    assert [tuple(row) for row in rows] == [
        ("completed", '{"text": "HELLO"}', 1, 0),
        ("pending", None, 1, 1),
        ("failed", None, 1, 0),
    ]
    assert b"drained: 1 handed back, 0 did not stop" in out
    assert LOCAL.secret.encode() not in out


async def test_a_worker_whose_door_cannot_open(pulse: Pulse) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        code, _, err = await pulse.say("worker", "--queues", "maintenance", "--port", port)
    assert code == 2
    assert "Traceback" not in err
    assert f"127.0.0.1:{port}" in err


async def test_check(pulse: Pulse, gateway: Gateway, owner: Connection) -> None:
    code, out, err = await pulse.say("check", "--queues", "maintenance")
    assert (code, err) == (0, "")
    assert [line[0] for line in out.splitlines()] == ["✓", "✓", "✓"]
    await owner.execute("drop function heartbeat(text, jsonb, float8)")
    code, out, err = await pulse.say("check", "--queues", "maintenance")
    assert code == 1
    assert "heartbeat" in err
    assert "Traceback" not in err


async def test_dev_is_the_development_stack(pulse: Pulse) -> None:
    code, _, err = await pulse.say("dev", "stop", "--data", "/nowhere/at/all")
    assert (code, err) == (0, "")
    code, _, err = await pulse.say("dev", "status", "--data", "/nowhere/at/all")
    assert code == 1
    assert "nothing runs over /nowhere/at/all" in err
