"""`pulse run`: one job here and now, with the real handler and its real resources, past the queue."""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from devstack.keys import LOCAL
from tests.house.tree import ROOT
from tests.listener.packages import write_package

Said = tuple[int, str, str]
Pulse = Callable[..., Awaitable[Said]]
HANDLERS = {
    "maintenance/shout.py": """
        from listener import Cancel, Job, Payload, Reject, handler

        class Shout(Payload):
            text: str

        @handler("maintenance")
        async def shout(payload: Shout, *, job: Job, voice: str) -> dict[str, object] | Cancel:
            if payload.text == "fail":
                loudness = 11
                raise ValueError(f"cannot shout {payload.text}")
            if payload.text == "hush":
                return Cancel("nobody listens")
            return {"text": payload.text.upper() + voice, "attempt": job.attempt, "user": str(job.user_id)}
    """,
    "resources.py": """
        from collections.abc import AsyncIterator
        from listener import Setting, Settings, resource

        @resource(Setting("VOICE", "in your throat"))
        async def voice(settings: Settings) -> AsyncIterator[str]:
            yield settings["VOICE"]
            print("closed")
    """,
}


@pytest.fixture
def pulse(tmp_path: Path) -> Pulse:
    """The command in a project of its own, beside a database that is not there."""
    write_package(tmp_path, HANDLERS)

    async def say(*words: str, stdin: str = "", **environment: str) -> Said:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "console", "run", *words),
            cwd=tmp_path,
            env={
                **{name: value for name, value in os.environ.items() if name != "PULSE_WORKER_KEY"},
                "PYTHONPATH": str(ROOT),
                "SUPABASE_URL": "http://127.0.0.1:9",
                "SUPABASE_SERVICE_ROLE_KEY": LOCAL.secret,
                "VOICE": "!",
                **environment,
            },
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(stdin.encode()), 40)
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    return say


async def test_a_job_runs_with_its_resources_and_its_result_is_told(pulse: Pulse) -> None:
    user = "11111111-1111-1111-1111-111111111111"
    words = ("shout", '{"text": "hello"}', "--queue", "maintenance", "--user", user)
    code, out, err = await pulse(*words)
    assert (code, err) == (0, "")
    assert out.startswith("closed\n✓ completed in ")
    assert '"text": "HELLO!"' in out
    assert user in out
    code, out, err = await pulse("shout", "-", "--queue", "maintenance", "--json", stdin='{"text": "hush"}')
    assert (code, err) == (0, "closed\n")
    assert json.loads(out)["reason"] == "nobody listens"


async def test_a_failure_is_told_with_its_place_and_without_the_payload(pulse: Pulse) -> None:
    code, out, err = await pulse("shout", '{"text": "fail"}', "--queue", "maintenance")
    assert (code, out) == (1, "closed\n")
    assert "ValueError" in err
    assert "shout.py" in err
    code, _, err = await pulse("shout", '{"wrong": 1}', "--queue", "maintenance")
    assert code == 1
    assert "InvalidPayload: The payload does not fit Shout" in err
    code, _, err = await pulse("whisper", "--queue", "maintenance")
    assert code == 2
    assert "it has shout" in err
    code, _, err = await pulse("shout", '{"text": "hello"}', "--queue", "maintenance", VOICE="")
    assert code == 2
    assert "VOICE is not set. Find it here: in your throat" in err


async def test_the_debugger_stops_where_it_failed(pulse: Pulse) -> None:
    words = ("shout", '{"text": "fail"}', "--queue", "maintenance", "--debugger")
    code, out, err = await pulse(*words, stdin="p loudness + 31\nq\n")
    assert code == 1
    assert "(Pdb) 42" in out
    assert "cannot shout fail" in err
