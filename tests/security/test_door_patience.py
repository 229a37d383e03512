"""Slow, idle and many clients: each is ended within its bound, and none shuts out one that says what it wants."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

import pytest

from devstack.gateway import Gateway
from devstack.rest.faults import What
from listener.doorkeeper import LARGEST_BODY, Patience
from tests.listener.answering import JOB, Door, count, door_of
from tests.listener.working import Connection
from tests.security.raw import Said, Wire, ask, request, wire
from tests.waiting import until

GOOD = json.dumps(JOB).encode()
QUICK = Patience(
    request=timedelta(seconds=0.5),
    body=timedelta(seconds=0.5),
    answer=timedelta(seconds=2),
    idle=timedelta(seconds=1),
    places=20,
    held=4 * LARGEST_BODY,
)
CALM = Patience(places=20, held=4 * LARGEST_BODY)
"""Nothing ends by the clock within a test: what ends, ends because of the others."""
SOON = 5.0
"""Seconds within which each bound of QUICK ends what it bounds, with room for a busy machine."""


@pytest.fixture
async def quick(gateway: Gateway) -> AsyncIterator[Door]:
    async with door_of(gateway.url, patience=QUICK) as one:
        yield one


@pytest.fixture
async def calm(gateway: Gateway) -> AsyncIterator[Door]:
    async with door_of(gateway.url, patience=CALM) as one:
        yield one


@asynccontextmanager
async def wires(door: Door, number: int) -> AsyncIterator[list[Wire]]:
    """That many connections to it."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(wire(door.url)) for _ in range(number)]


async def ended(one: Wire) -> tuple[list[Said], float]:
    """What the door said until it closed, and after how long that was."""
    began = time.monotonic()
    return await one.answers(), time.monotonic() - began


async def dribble(one: Wire, data: bytes) -> None:
    """A byte now and then, until nobody takes them."""
    for at in range(len(data)):
        if one.writer.is_closing():
            return
        await one.send(data[at : at + 1])
        await asyncio.sleep(0.02)


HALVES = [
    b"P",
    b"POST / HTTP/1.1",
    b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ",
    request(body=GOOD)[:-1],
    b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{",
    request(target="/webhooks/mail", body=GOOD)[:-1],
]


async def test_whoever_stops_in_the_middle_is_told_and_ended(quick: Door, owner: Connection) -> None:
    async with wires(quick, len(HALVES)) as stuck:
        for one, half in zip(stuck, HALVES, strict=True):
            await one.send(half)
        for (answers, took), half in zip(await asyncio.gather(*map(ended, stuck)), HALVES, strict=True):
            assert [said.status for said in answers] == [408], half
            assert "in time" in answers[0].sentence
            assert took < SOON, half
    assert not quick.told
    assert await count(owner) == 0


async def test_a_byte_now_and_then_buys_no_time(quick: Door) -> None:
    headers = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X-Slow: x\r\n" * 1000
    body = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10000\r\n\r\n" + b" " * 5000
    async with wires(quick, 2) as (first, second):
        slow = [asyncio.create_task(dribble(*words)) for words in ((first, headers), (second, body))]
        for answers, took in await asyncio.gather(ended(first), ended(second)):
            assert [said.status for said in answers] == [408]
            assert took < SOON
        first.writer.close()
        second.writer.close()
        await asyncio.gather(*slow)


async def test_whoever_says_nothing_is_ended_too(quick: Door) -> None:
    async with wires(quick, 2) as (silent, served):
        await served.send(request("GET", "/health"))
        assert await served.answer() is not None
        for one in (silent, served):
            answers, took = await ended(one)
            assert answers == []
            assert took < SOON


async def test_whoever_does_not_read_the_answers_is_ended(quick: Door) -> None:
    """Its answers fill the pipe, and then nothing moves: neither it nor we may wait for ever."""
    async with wires(quick, 1) as (deaf,):
        deaf.writer.transport.pause_reading()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
        pages = request("GET", "/health") * 200

        async def floods() -> None:
            while not deaf.writer.is_closing():
                deaf.writer.write(pages)
                await deaf.writer.drain()

        with pytest.raises(ConnectionError):
            async with asyncio.timeout(20):
                await floods()
    assert (await quick.ask("GET", "/health"))[0] == 200


async def test_a_slow_client_costs_the_quick_ones_nothing(calm: Door, owner: Connection) -> None:
    """More idle clients than there are places, and all of them stay: each that asks is served, at once."""
    async with wires(calm, 3 * CALM.places) as idle:
        for one in idle[: CALM.places]:
            await one.send(b"POST / HTTP/1.1\r\nHost: ")
        for number in range(30):
            began = time.monotonic()
            said = await ask(calm.url, request(body=GOOD))
            assert said is not None
            assert said.status == 201, number
            assert time.monotonic() - began < SOON
        await idle[0].answers()  # the ones that came first had to go first
        await idle[-1].send(request(body=GOOD))
        last = await idle[-1].answer()
        assert last is not None
        assert last.status == 201
    assert await count(owner) == 31


async def test_clients_whose_bodies_never_come_shut_nobody_out(calm: Door, owner: Connection) -> None:
    head = request(target="/webhooks/mail", body=GOOD)[: -len(GOOD)]
    async with wires(calm, 2 * CALM.places) as stuck:
        for one in stuck:
            await one.send(head)
        said = await ask(calm.url, request(body=GOOD))
        assert said is not None
        assert said.status == 201
    assert await count(owner) == 1


async def test_unfinished_bodies_are_held_up_to_a_bound(calm: Door, owner: Connection) -> None:
    """Whoever has kept us waiting longest has to go, so that what we hold of all of them stays within it."""
    head = b"POST /webhooks/mail HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n" % LARGEST_BODY
    async with wires(calm, 10) as stuck:
        for one in stuck:
            await one.send(head + b"x" * (LARGEST_BODY - 1))
        for one in stuck[:6]:
            assert {said.status for said in await one.answers()} <= {408}
        await stuck[-1].send(b"x")
        last = await stuck[-1].answer()
        assert last is not None
        assert last.status == 400  # its signature is missing: that was looked at, since all of it is here
        said = await ask(calm.url, request(body=GOOD))
        assert said is not None
        assert said.status == 201


async def test_when_all_places_are_being_served_the_next_one_is_told_to_come_again(
    calm: Door, gateway: Gateway, owner: Connection
) -> None:
    gateway.faults.rest.plan("delay", "enqueue", times=CALM.places, seconds=2.0)
    async with wires(calm, CALM.places) as busy:
        for one in busy:
            await one.send(request(body=GOOD))
        await until("all of them wait for the database", lambda: not gateway.faults.rest.planned)
        said = await ask(calm.url, request(body=GOOD))
        assert said is not None
        assert said.status == 503
        assert "again" in said.sentence
        for one in busy:
            answer = await one.answer()
            assert answer is not None
            assert answer.status == 201
    said = await ask(calm.url, request(body=GOOD))
    assert said is not None
    assert said.status == 201
    assert await count(owner) == CALM.places + 1


async def test_ready_knows_whether_the_database_answers(gateway: Gateway, owner: Connection) -> None:
    """A process that only has a door learns of an outage by asking, and it asks rarely, whoever else asks it."""
    async with door_of(gateway.url) as door:
        gateway.faults.rest.plan("silence", "heartbeat", times=1)
        began = time.monotonic()
        answers = await asyncio.gather(*(door.ask("GET", "/ready") for _ in range(10)))
        assert time.monotonic() - began < SOON
        assert [status for status, _ in answers] == [503] * 10
        assert "does not answer" in str(answers[0][1]["problems"])
        assert (await door.ask("GET", "/health"))[0] == 200
        await until("it is ready again", lambda: is_ready(door))
    away: list[What] = ["database_away", "cut", "schema_cache"]
    for fault in away:
        async with door_of(gateway.url) as door:
            gateway.faults.rest.plan(fault, "heartbeat")
            assert (await door.ask("GET", "/ready"))[0] == 503, fault
    await owner.execute("revoke execute on function heartbeat from service_role")
    async with door_of(gateway.url) as door:
        status, said = await door.ask("GET", "/ready")
        assert status == 503
        assert "pulse check" in str(said["problems"])


async def is_ready(door: Door) -> bool:
    return (await door.ask("GET", "/ready"))[0] == 200
