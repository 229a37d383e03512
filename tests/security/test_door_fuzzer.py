"""Thousands of generated requests, over raw sockets: no accident, no hang, and a row for each job that was taken.

A few hundred, the same in every run; `PULSE_REQUESTS=10000` sends so many, and others each time.
"""

import asyncio
import json
import os
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from devstack.gateway import Gateway
from listener.doorkeeper import Patience
from listener.uncaught import for_loop
from tests.listener.answering import Door, count, door_of
from tests.listener.working import Connection
from tests.security.raw import Said, Wire, wire
from tests.security.requests import Conversation, conversations

USUAL = 500
COUNT = int(os.environ.get("PULSE_REQUESTS", USUAL))
TOGETHER = 10
"""So many clients at once, each with a conversation of its own: what never comes is waited for together."""
QUICK = Patience(request=timedelta(seconds=1), body=timedelta(seconds=1), idle=timedelta(seconds=0.05))
KNOWN = {200, 201, 400, 401, 403, 404, 405, 408, 413, 415, 417, 422, 431}
"""Every status that this door may answer while the database answers; 408 only to whoever has not sent it all."""


@dataclass
class Bench:
    """A door in front of a database, and what it said so far."""

    door: Door
    owner: Connection
    statuses: Counter[int] = field(default_factory=Counter[int])
    rows: int = 0


@pytest.fixture
async def bench(gateway: Gateway, owner: Connection) -> AsyncIterator[Bench]:
    async with door_of(gateway.url, patience=QUICK) as door:
        asyncio.get_running_loop().set_exception_handler(for_loop(door.told))
        bench = Bench(door, owner)
        yield bench
    counts = ", ".join(f"{status}: {number}" for status, number in sorted(bench.statuses.items()))
    print(f"{COUNT} conversations, {bench.rows} rows, answers by status {counts}")


@pytest.mark.timeout(60 + COUNT / 10)
@settings(
    max_examples=COUNT // TOGETHER,
    derandomize=COUNT == USUAL,
    deadline=None,
    database=None,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=(
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.large_base_example,
    ),
)
@given(sent=st.lists(conversations, min_size=TOGETHER, max_size=TOGETHER))
async def test_whatever_is_sent_the_door_goes_on(bench: Bench, sent: list[Conversation]) -> None:
    before = await count(bench.owner)
    answers = await asyncio.gather(*(held(bench.door.url, one) for one in sent))
    made = 0
    for one, said in zip(sent, answers, strict=True):
        bench.statuses.update(each.status for each in said)
        assert {each.status for each in said} <= KNOWN, (one, said)
        assert said or not one.job, one
        made += sum(created(each) for each in said)
    told = [str(event) for event in bench.door.told]
    assert not told, told
    bench.rows = await count(bench.owner)
    assert bench.rows - before == made, (sent, answers)
    for one, said in zip(sent, answers, strict=True):
        if one.job is not None:
            await is_as_sent(bench.owner, one.job, said)


async def held(url: str, one: Conversation) -> list[Said]:
    """One conversation to its end."""
    async with wire(url) as client:
        await client.send(one.data)
        return await all_of(client, one)


async def all_of(client: Wire, one: Conversation) -> list[Said]:
    """What the door says until nothing more comes: it closes, at the latest when its patience ends."""
    rest = await client.everything()
    found: list[Said] = []
    while rest:
        head, _, rest = rest.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        status = int(first.split()[1])
        if status == 100:
            continue
        assert not [line for line in lines if line.lower().startswith("transfer-encoding")]
        (length,) = [int(line[15:]) for line in lines if line.lower().startswith("content-length:")]
        body = rest[:length]
        if one.to_head and (not body or body.startswith(b"HTTP/1.1 ")):
            found.append(Said(status, {}, b"{}"))  # an answer to HEAD
            continue
        rest = rest[length:]
        assert isinstance(json.loads(body), dict), head
        found.append(Said(status, {}, body))
    return found


def created(said: Said) -> bool:
    """Whether this answer says that a row was made."""
    return said.status in (200, 201) and said.words.get("created") is True


async def is_as_sent(owner: Connection, job: dict[str, Any], said: list[Said]) -> None:
    """The row says what the job said, whose insert was answered with its id."""
    (answer,) = said
    assert answer.status == 201 or (answer.status == 200 and "idempotency_key" in job), (job, answer)
    row = await owner.fetchrow("select type, data, priority from jobs where id = $1", answer.words["id"])
    assert row is not None
    assert answer.words["created"] is (answer.status == 201)
    if answer.status == 201:
        assert row["type"] == job["type"]
        assert exactly(row["data"]) == exactly(json.dumps(job.get("data", {}))), job
        assert row["priority"] == job.get("priority", 0)


def exactly(text: str) -> object:
    """The JSON with its numbers as they are written."""
    return json.loads(text, parse_float=Decimal, parse_int=Decimal)
