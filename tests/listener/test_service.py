"""A process put together: it works, tells how it is, and ends as it promised."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import NoReturn

import aiohttp
import pytest

from devstack.gateway import Gateway
from devstack.keys import LOCAL
from listener import service as room
from listener import stillness
from listener.config import Tempo, read_config
from listener.events import DoorOpen, Event
from listener.jobs import NewJob
from listener.metrics import Metrics
from listener.redaction import Redactor
from listener.registry import Handler, Registry
from listener.resources import Resource, Settings
from listener.service import Plan, Service
from listener.store import connected
from listener.uncaught import for_loop
from tests.listener.working import QUEUE, Anything, Connection, Gate, Told, registry_of, row, runs
from tests.waiting import until

TEMPO = Tempo(grace=timedelta(seconds=10), reconnect=timedelta(milliseconds=20))
PLAN = Plan([QUEUE], places=5, port=0, schedules=False)


class LeftError(Exception):
    """Stands for the end of the process."""


class Process:
    def __init__(
        self, gateway: Gateway, *handlers: Handler, plan: Plan = PLAN, registry: Registry | None = None
    ) -> None:
        config = read_config({"SUPABASE_URL": gateway.url, "SUPABASE_SERVICE_ROLE_KEY": LOCAL.secret})
        self.left = asyncio.Event()
        registry = registry or registry_of(*handlers)
        self.service = Service(config, registry, plan, tempo=TEMPO, leave=self.leave)
        self.gateway = gateway

    def leave(self, code: int) -> NoReturn:
        assert code == 1
        self.left.set()
        raise LeftError

    async def enqueue(self, type_: str) -> int:
        async with connected(self.gateway.url, LOCAL.service_role, "producer") as store:
            return (await store.enqueue([NewJob(QUEUE, type_)]))[0].id

    @property
    def is_ready(self) -> bool:
        health = self.service.health()
        return not health.problems and len(self.service._workers) == len(self.service._plan.queues)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        task = asyncio.create_task(self.service.run())
        try:
            await until("it is ready", lambda: task.done() or self.is_ready)
            yield task
            self.service.stop()
            await until("it has ended", task.done)
            task.result()
        finally:
            task.cancel()
            await asyncio.wait({task})

    @property
    def counts(self) -> dict[str, int]:
        return self.service.counts.totals()


async def test_it_works_and_says_so(gateway: Gateway, owner: Connection) -> None:
    async def quick(_payload: Anything) -> None: ...

    process = Process(gateway, runs(quick))
    async with process.running():

        def facts() -> dict[str, object]:
            return dict(process.service.health().facts)

        await until("Realtime is ready", lambda: "'ready': True" in str(facts()["realtime"]))
        await process.enqueue("quick")
        await until("it is done", lambda: process.counts.get("success") == 1)
        assert facts()["queues"] == {QUEUE: {"running": 0, "places": 5}}
        assert facts()["worker_id"] == process.service.worker_id
        gateway.realtime.acts.announce_again()
        await until("the gap is counted", lambda: "'gaps': 1" in str(facts()["realtime"]))
        assert re.search(r"'deaf_seconds': \d+\.\d+", str(facts()["realtime"]))
    assert await owner.fetchval("select woken_by from jobs") == "realtime"


async def test_what_runs_may_finish_within_the_grace(gateway: Gateway, owner: Connection) -> None:
    gate = Gate()
    process = Process(gateway, runs(gate.gated))
    async with process.running() as task:
        id_ = await process.enqueue("gated")
        await until("it runs", lambda: gate.inside == 1)
        process.service.stop()
        await until("it drains", lambda: "draining" in str(process.service.health().problems))
        late = await process.enqueue("gated")
        gate.open.set()
        await until("it has ended", task.done)
    assert (await row(owner, id_))["status"] == "completed"
    assert (await row(owner, late))["attempt"] == 0


async def test_a_second_signal_ends_the_grace(gateway: Gateway, owner: Connection) -> None:
    gate = Gate()
    process = Process(gateway, runs(gate.gated))
    async with process.running():
        id_ = await process.enqueue("gated")
        await until("it runs", lambda: gate.inside == 1)
        process.service.stop()
    job = await row(owner, id_)
    assert (job["status"], job["attempt"], job["uncounted"]) == ("pending", 1, 1)
    assert not process.left.is_set()


async def test_a_handler_that_does_not_stop_is_left_to_its_lease(
    gateway: Gateway, owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_CLEAN_UP_SECONDS", 0.05)
    inside = asyncio.Event()
    process: Process

    async def deaf(_payload: Anything) -> None:
        inside.set()
        while not process.left.is_set():
            with suppress(asyncio.CancelledError):
                await process.left.wait()

    process = Process(gateway, runs(deaf))
    id_ = await process.enqueue("deaf")
    with pytest.RaisesGroup(LeftError):
        async with process.running():
            await inside.wait()
            process.service.stop()
    job = await row(owner, id_)
    assert job["status"] == "running"
    assert job["lease_expires_at"] is not None


async def test_a_client_that_does_not_finish_its_request_does_not_hold_up_the_end(
    gateway: Gateway, owner: Connection
) -> None:
    gate = Gate()
    process = Process(gateway, runs(gate.gated))
    urls: list[str] = []
    told = process.service.metrics

    class Listening(Metrics):
        def __call__(self, event: Event) -> None:
            if isinstance(event, DoorOpen):
                urls.append(event.url)
            told(event)

    process.service.metrics = Listening(Redactor())
    async with process.running() as task:
        host, port = urls[0].removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        await writer.drain()
        process.service.stop()
        late = await process.enqueue("gated")
        await until("it has ended", task.done)
        writer.close()
    assert gate.inside == 0
    left = await row(owner, late)
    assert left["status"] == "pending"
    assert left["attempt"] == left["uncounted"], "a claim that was under way may have brought it: handed back"


async def test_a_third_signal_leaves_at_once(gateway: Gateway) -> None:
    process = Process(gateway)
    task = asyncio.create_task(process.service.run())
    await until("it is ready", lambda: process.is_ready)
    process.service.stop()
    process.service.stop()
    with pytest.raises(LeftError):
        process.service.stop()
    await task


async def test_a_resource_that_cannot_be_closed_does_not_keep_the_process(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_CLOSING_SECONDS", 0.05)
    asyncio.get_running_loop().set_exception_handler(
        for_loop(Told())
    )  # the end of the process is an error here

    async def clings(_settings: Settings) -> AsyncIterator[object]:
        yield 1.0
        await asyncio.Event().wait()

    process = Process(gateway, registry=Registry({}, (), (Resource(float, (), clings),)))
    task = asyncio.create_task(process.service.run())
    await until("it is ready", lambda: process.is_ready)
    process.service.stop()
    await until("it leaves", process.left.is_set)
    task.cancel()
    await asyncio.wait({task})


async def test_an_outcome_that_cannot_be_recorded_is_left_to_its_lease(
    gateway: Gateway, owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_CLEAN_UP_SECONDS", 0.05)
    gate = Gate()
    process = Process(gateway, runs(gate.gated))
    id_ = await process.enqueue("gated")
    with pytest.RaisesGroup(LeftError):
        async with process.running():
            await until("it runs", lambda: gate.inside == 1)
            gateway.faults.rest.plan("status", "/rest/v1/rpc", times=1000)
            process.service.stop()
    assert (await row(owner, id_))["status"] == "running"


async def test_the_door_alone_needs_no_realtime_and_runs_nothing(gateway: Gateway, owner: Connection) -> None:
    gateway.faults.realtime.off = True
    urls: list[str] = []

    class Listening(Metrics):
        def __call__(self, event: Event) -> None:
            if isinstance(event, DoorOpen):
                urls.append(event.url)

    process = Process(gateway, plan=Plan([], port=0, schedules=False))
    process.service.metrics = Listening(Redactor())
    async with process.running(), aiohttp.ClientSession() as http:
        await until("the door is open", lambda: bool(urls))
        async with http.post(urls[0], json={"type": "prune"}) as answer:
            assert answer.status == 201
        assert "realtime" not in process.service.health().facts
    assert await owner.fetchval("select status from jobs") == "pending"


async def test_a_resource_that_does_not_open_ends_it_before_it_claims(
    gateway: Gateway, owner: Connection
) -> None:
    async def broken(_settings: Settings) -> AsyncIterator[object]:
        raise ConnectionError("no such provider")
        yield  # noqa: V201

    registry = Registry(registry_of().handlers, (), (Resource(float, (), broken),))
    with pytest.raises(ConnectionError, match="no such provider"):
        await Process(gateway, registry=registry).service.run()


async def test_a_handler_that_blocks_the_loop_is_told(
    gateway: Gateway, owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stillness, "_LIMIT_SECONDS", 0.1)
    process: Process

    async def blocks(_payload: Anything) -> None:
        patience = time.monotonic() + 30
        while not process.counts.get("loop_standstills") and time.monotonic() < patience:
            pass

    process = Process(gateway, runs(blocks))
    async with process.running():
        await process.enqueue("blocks")
        await until("it is done", lambda: process.counts.get("success") == 1)
        assert process.counts["loop_standstills"] >= 1


async def test_a_loop_that_breaks_brings_the_whole_process_down(gateway: Gateway) -> None:
    """Half alive is worse than dead: the platform starts a dead one anew."""

    async def quick(_payload: Anything) -> None: ...

    process = Process(gateway, runs(quick))
    with pytest.RaisesGroup(pytest.RaisesGroup(AttributeError)):
        async with process.running() as task:
            process.service._workers[0]._registry = None  # type: ignore[assignment]
            await process.enqueue("quick")
            await until("it has ended", task.done)
