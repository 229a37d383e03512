"""Processes say how they are in the table `workers`, and nothing depends on whether they can."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import asyncpg
import pytest

from devstack.gateway import Gateway
from devstack.keys import LOCAL
from listener.events import Available, Swallowed, Unavailable
from listener.presence import Presence, State
from listener.redaction import Redactor
from listener.store import connected
from tests.listener.test_service import Process
from tests.listener.working import Connection, Gate, Told, runs
from tests.waiting import until

SECRET = "a-secret-that-a-problem-quotes"


class Person:
    """One presence with a state that a test sets."""

    def __init__(self) -> None:
        self.told = Told()
        self.state: State | None = State(0, None, [])

    def look(self) -> State:
        if self.state is None:
            raise RuntimeError("a mistake")
        return self.state

    @asynccontextmanager
    async def telling(self, gateway: Gateway, every: timedelta) -> AsyncIterator[Presence]:
        async with connected(gateway.url, LOCAL.service_role, "me") as store:
            presence = Presence(
                store,
                types={"payment": ["a", "b"]},
                places=7,
                state=self.look,
                every=every,
                redactor=Redactor((SECRET,)),
                emit=self.told,
            )
            task = asyncio.create_task(presence.run())
            try:
                yield presence
            finally:
                presence.leave(timedelta(seconds=5))
                await until("the last word is said", task.done)
                task.result()


async def row(owner: Connection) -> asyncpg.Record | None:
    return await owner.fetchrow("select * from workers")


async def test_a_process_is_in_the_table_with_what_it_runs(gateway: Gateway, owner: Connection) -> None:
    person = Person()
    person.state = State(3, timedelta(seconds=50), [f"claims fail: {SECRET}"])
    async with person.telling(gateway, timedelta(hours=1)):
        await until("it is there", lambda: seen(owner))
        found = await row(owner)
    assert found is not None
    assert (found["worker_id"], found["queues"], found["places"], found["running"]) == (
        "me",
        ["payment"],
        7,
        3,
    )
    assert found["types"] == '{"payment": ["a", "b"]}'
    assert not found["hearing"]
    assert timedelta(seconds=49) < found["seen_at"] - found["deaf_since"] < timedelta(seconds=51)
    assert "claims fail" in found["problems"]
    assert SECRET not in found["problems"]
    assert abs(found["clock_off_seconds"]) < 60
    assert found["leaves_at"] is None
    left = await row(owner)
    assert left is not None
    assert left["leaves_at"] > left["seen_at"]
    assert left["started_at"] == found["started_at"]


async def seen(owner: Connection) -> bool:
    return await row(owner) is not None


async def test_an_outage_is_told_once_and_its_end_once(gateway: Gateway, owner: Connection) -> None:
    person = Person()
    gateway.faults.rest.plan("status", "tell_worker", times=3)
    async with person.telling(gateway, timedelta(milliseconds=20)):
        await until("it is over", lambda: bool(person.told.of(Available)))
    assert len(person.told.of(Unavailable)) == 1
    assert len(person.told.of(Available)) == 1
    assert await seen(owner)


async def test_a_mistake_in_it_ends_nothing(gateway: Gateway, owner: Connection) -> None:
    person = Person()
    person.state = None
    async with person.telling(gateway, timedelta(milliseconds=20)):
        await until("it is told", lambda: bool(person.told.of(Swallowed)))
        person.state = State(0, None, [])
        await until("it goes on", lambda: seen(owner))


async def test_a_worker_works_where_nobody_takes_its_word(gateway: Gateway, owner: Connection) -> None:
    """A database that has not got the function yet, or not the right to it."""
    await owner.execute("drop function tell_worker")
    gate = Gate()
    gate.open.set()
    process = Process(gateway, runs(gate.gated))
    async with process.running():
        id_ = await process.enqueue("gated")
        await until("it has run", lambda: done(owner, id_))
        assert not process.service.health().problems


async def done(owner: Connection, id_: int) -> bool:
    return bool(await owner.fetchval("select status = 'completed' from jobs where id = $1", id_))


async def test_a_worker_says_that_it_leaves_and_is_not_held_up_by_that(
    gateway: Gateway, owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    process = Process(gateway, runs(gate.gated))
    async with process.running():
        await until("it is there", lambda: seen(owner))
    found = await row(owner)
    assert found is not None
    assert found["leaves_at"] is not None
    assert "maintenance" in found["types"]
    monkeypatch.setattr("listener.service._LAST_WORD_SECONDS", 0.0)
    gateway.faults.rest.plan("status", "tell_worker", times=None)
    async with Process(gateway, runs(gate.gated)).running():
        pass  # it ends well all the same
