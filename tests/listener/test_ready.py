"""What /ready means: the process hears and claims, with a key that the project takes; else it says what is missing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest

from devstack.gateway import Gateway
from devstack.keys import Keys
from listener import subscription
from listener.config import Tempo, read_config
from listener.events import DoorOpen, Event
from listener.metrics import Metrics
from listener.redaction import Redactor
from listener.service import Plan, Service
from tests.listener.working import QUEUE, Connection, Gate, registry_of, row, runs
from tests.waiting import until

TEMPO = Tempo(grace=timedelta(seconds=10), reconnect=timedelta(milliseconds=20), sweep=timedelta(seconds=0.2))


@pytest.fixture
async def gateway(database: str) -> AsyncIterator[Gateway]:
    """One whose keys can be withdrawn."""
    async with Gateway(database, keys=Keys()) as running:
        yield running


class Listening(Metrics):
    """Notes where the door is."""

    def __init__(self, process: "Process") -> None:
        super().__init__(Redactor())
        self._process = process

    def __call__(self, event: Event) -> None:
        if isinstance(event, DoorOpen):
            self._process.url = event.url
        super().__call__(event)


class Process:
    """A service with a door, in this process."""

    def __init__(self, gateway: Gateway, gate: Gate, queues: list[str], **environment: str) -> None:
        config = read_config({"SUPABASE_URL": gateway.url, **environment})
        plan = Plan(queues, port=0, schedules=False)
        self.service = Service(config, registry_of(runs(gate.gated)), plan, tempo=TEMPO)
        self.url = ""
        self.service.metrics = Listening(self)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.service.run())
        try:
            await until("the door is open", lambda: bool(self.url) or task.done())
            yield
            self.service.stop()
            await until("it has ended", task.done)
            task.result()
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def problems(self) -> str:
        """What /ready says; empty when it is."""
        async with aiohttp.ClientSession() as http, http.get(f"{self.url}/ready") as answer:
            said = await answer.json()
            assert answer.status == (200 if said["ready"] else 503)
            return " ".join(said["problems"])

    async def is_ready(self) -> bool:
        return not await self.problems()

    async def posts(self, token: str) -> int:
        headers = {"Authorization": f"Bearer {token}"}
        async with (
            aiohttp.ClientSession(headers=headers) as http,
            http.post(self.url, json={"type": "prune"}) as answer,
        ):
            return answer.status


def key_of(gateway: Gateway) -> dict[str, str]:
    return {"SUPABASE_SERVICE_ROLE_KEY": gateway.keys.secret}


async def test_a_process_that_does_not_hear_is_not_ready_though_it_claims(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription, "_SHORT_GAP", timedelta(hours=1))
    gateway.faults.realtime.off = True
    process = Process(gateway, Gate(), [QUEUE], **key_of(gateway))
    async with process.running():
        await until("it has looked", lambda: process.service._workers[0].problem is None)
        assert await process.problems() == "Realtime: nothing has been heard yet"
        gateway.faults.realtime.off = False
        await until("it is ready", process.is_ready)
        gateway.faults.realtime.off = True
        await until("it is deaf", lambda: "'ready': False" in str(process.service.health().facts["realtime"]))
        await until("it is ready though, since a short gap is none", process.is_ready)
        monkeypatch.setattr(subscription, "_SHORT_GAP", timedelta())
        assert "Realtime: nothing has been heard for" in await process.problems()


async def test_a_process_whose_keys_are_refused_is_not_ready_by_name_and_keeps_its_work(
    gateway: Gateway, tmp_path: Path, owner: Connection
) -> None:
    file, gate = tmp_path / "key", Gate()
    file.write_text(gateway.keys.secret)
    process = Process(gateway, gate, [QUEUE], SUPABASE_SERVICE_ROLE_KEY_FILE=str(file))
    async with process.running():
        await until("it is ready", process.is_ready)
        job = await owner.fetchval("insert into maintenance_jobs (type) values ('gated') returning id")
        await until("it runs", lambda: gate.inside == 1)
        gateway.keys.withdrawn.add(gateway.keys.secret)
        gate.open.set()

        async def says_so() -> bool:
            return "SUPABASE_SERVICE_ROLE_KEY_FILE: the project refuses the key" in await process.problems()

        await until("it says so", says_so)
        assert (await row(owner, job))["status"] == "running"
        file.write_text(gateway.keys.new_secret())
        await until("it is ready again", process.is_ready)
        await until("it is recorded", lambda: owner.fetchval("select status = 'completed' from jobs"))
    assert (await row(owner, job))["attempt"] == 1
    assert gate.inside == 1


async def test_the_door_alone_takes_new_tokens_and_keys_when_it_is_told(
    gateway: Gateway, tmp_path: Path
) -> None:
    tokens, key = tmp_path / "tokens", tmp_path / "key"
    tokens.write_text("ci:the-first-token-of-ci")
    key.write_text(gateway.keys.secret)
    files = {"PULSE_DOOR_TOKENS_FILE": str(tokens), "SUPABASE_SERVICE_ROLE_KEY_FILE": str(key)}
    process = Process(gateway, Gate(), [], **files)
    async with process.running():
        assert await process.posts("the-first-token-of-ci") == 201
        tokens.write_text("ci:the-next-token-of-ci")
        new = gateway.keys.new_secret()
        key.write_text(new)
        process.service.look_at_keys()
        await until("the key is taken", lambda: process.service.keyring.proven.value == new)
        gateway.keys.withdrawn.add(gateway.keys.secret)
        assert await process.posts("the-first-token-of-ci") == 401
        assert await process.posts("the-next-token-of-ci") == 201
