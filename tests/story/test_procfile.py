"""The Procfile's processes run side by side, and end when they are told to."""

import asyncio
import os
import socket
import sys
from pathlib import Path

import aiohttp

from devstack.gateway import Gateway
from devstack.keys import LOCAL
from tests.waiting import until


async def test_web_takes_a_job_and_worker_runs_it(gateway: Gateway, checkout: Path) -> None:
    port = _free_port()
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "SUPABASE_URL": gateway.url,
        "SUPABASE_SERVICE_ROLE_KEY": LOCAL.secret,
        "STRIPE_SECRET_KEY": "sk_test_procfile",
        "STRIPE_WEBHOOK_SECRET": "whsec_procfile",
        "PULSE_DOOR_TOKEN": "a token for the door",
        "PORT": str(port),
    }
    honcho = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "honcho",
        "start",
        "web",
        "worker",
        cwd=checkout,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as door:
            await until("web is ready", lambda: _is_ready(door), patience=30)
            job: dict[str, object] = {"type": "prune", "data": {}, "idempotency_key": "from the door"}
            async with door.post("/", json=job) as answer:
                assert answer.status == 401
            token = {"Authorization": "Bearer a token for the door"}
            async with door.post("/", json=job, headers=token) as answer:
                assert answer.status == 201
                id_ = (await answer.json())["id"]
        assert honcho.stdout is not None
        seen = b""
        async with asyncio.timeout(30):
            while f'"job_id": {id_}'.encode() not in seen:
                seen += await honcho.stdout.readline()
        assert b'"outcome": "completed"' in seen
    finally:
        honcho.terminate()
        output, _ = await honcho.communicate()
    assert output.count(b'"message": "drained') == 2, output.decode()


async def _is_ready(door: aiohttp.ClientSession) -> bool:
    try:
        async with door.get("/ready") as answer:
            return answer.status == 200
    except aiohttp.ClientConnectionError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
