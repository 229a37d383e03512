"""What processes say of themselves is kept for people, for a day."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta

import asyncpg
import pytest

from tests.sql.calls import Calls, Connection

MoveClock = Callable[[timedelta], Awaitable[None]]


def word(worker_id: object = "me", **changes: object) -> str:
    """What a process says."""
    facts: dict[str, object] = {
        "worker_id": worker_id,
        "host": "a-machine",
        "version": "1.2.3",
        "queues": ["payment"],
        "types": {"payment": ["a"]},
        "places": 5,
        "running": 0,
        "deaf_seconds": None,
        "problems": [],
        "up_seconds": 10,
        "clock": None,
        "leaves_in_seconds": None,
    }
    return json.dumps(facts | changes)


async def test_a_second_word_changes_how_it_is_and_not_who_it_is(
    server: Calls, owner: Connection, move_clock: MoveClock
) -> None:
    await server.value("select tell_worker($1)", word())
    first = await owner.fetchrow("select * from workers")
    await move_clock(timedelta(seconds=15))
    await server.value("select tell_worker($1)", word(running=3, deaf_seconds=4, up_seconds=25))
    second = await owner.fetchrow("select * from workers")
    assert first is not None
    assert second is not None
    assert first["hearing"]
    assert not second["hearing"]
    assert (second["running"], second["started_at"]) == (3, first["started_at"])
    assert second["seen_at"] > first["seen_at"]
    assert second["seen_at"] - second["deaf_since"] == timedelta(seconds=4)


async def test_who_has_said_nothing_for_a_day_is_forgotten(
    server: Calls, owner: Connection, move_clock: MoveClock
) -> None:
    await server.value("select tell_worker($1)", word("old"))
    await move_clock(timedelta(hours=23))
    await server.value("select tell_worker($1)", word("new"))
    assert await owner.fetchval("select count(*) from workers") == 2
    await move_clock(timedelta(hours=25))
    await server.value("select tell_worker($1)", word("new"))
    assert [row["worker_id"] for row in await owner.fetch("select worker_id from workers")] == ["new"]


async def test_a_word_waits_for_nobody_who_forgets(
    server: Calls, owner: Connection, move_clock: MoveClock
) -> None:
    await server.value("select tell_worker($1)", word("old"))
    await move_clock(timedelta(hours=25))
    async with owner.transaction():
        await owner.execute("select from workers where worker_id = 'old' for update")
        async with asyncio.timeout(20):
            await server.value("select tell_worker($1)", word("new"))
    assert await owner.fetchval("select count(*) from workers") == 2


async def test_a_clock_that_is_wrong_is_told(server: Calls, owner: Connection) -> None:
    ahead = await owner.fetchval("select now() + interval '1 hour'")
    await server.value("select tell_worker($1)", word(clock=ahead.isoformat()))
    off = await owner.fetchval("select clock_off_seconds from workers")
    assert 3500 < off <= 3600


@pytest.mark.parametrize(
    "change", [{"worker_id": ""}, {"types": []}, {"problems": {}}, {"host": None}, {"version": "x" * 100_001}]
)
async def test_what_is_no_word_of_a_worker_is_refused(
    server: Calls, owner: Connection, change: dict[str, object]
) -> None:
    with pytest.raises((asyncpg.IntegrityConstraintViolationError, asyncpg.InvalidParameterValueError)):
        await server.value("select tell_worker($1)", word(**change))
    assert await owner.fetchval("select count(*) from workers") == 0
