"""What is forgotten, and when."""

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from tests.sql.calls import Calls, Connection

MoveClock = Callable[[timedelta], Awaitable[None]]


async def one_of_each(server: Calls) -> dict[str, int]:
    """A job in every state, by the state's name, and one stale outcome."""
    made: dict[str, int] = {}
    for status, kind in (("completed", "completed"), ("failed", "dead"), ("cancelled", "cancel")):
        made[status] = await server.insert()
        await server.end(await server.take(), kind)
    await server.end({"queue": "payment", "id": made["failed"], "attempt": 1}, "retry")
    made["running"] = await server.insert()
    await server.take(lease_seconds=86400)
    made["pending"] = await server.insert(run_at=datetime.now(UTC) + timedelta(days=900))
    return made


async def pruned(server: Calls) -> dict[str, int]:
    """What went, of the kinds that did."""
    said = await server.prune()
    assert said.pop("more") is False
    return {table: gone for table, gone in said.items() if gone}


async def left(server: Calls) -> set[int]:
    return {row["id"] for row in await server.connection.fetch("select id from jobs")}


async def test_what_ended_long_ago_goes_and_the_rest_stays(server: Calls, move_clock: MoveClock) -> None:
    made = await one_of_each(server)
    assert await pruned(server) == {}

    await move_clock(timedelta(days=8))
    assert await pruned(server) == {"jobs": 2}
    assert await left(server) == {made["failed"], made["running"], made["pending"]}

    await move_clock(timedelta(days=91))
    assert await pruned(server) == {"jobs": 1, "failed_jobs": 1, "stale_outcomes": 1}
    assert await left(server) == {made["running"], made["pending"]}


async def test_a_pass_deletes_no_more_than_asked_and_says_that_there_is_more(
    server: Calls, owner: Connection
) -> None:
    await owner.execute(
        "insert into jobs (queue, type, status, created_at, finished_at)"
        " select (array['payment', 'alerts'])[1 + n % 2], 'a', 'completed',"
        " now() - interval '9 days', now() - interval '8 days' from generate_series(1, 2500) as n"
    )
    first = await server.prune(max_jobs=1200)
    second = await server.prune(max_jobs=1200)
    third = await server.prune(max_jobs=1200)
    assert [(answer["jobs"], answer["more"]) for answer in (first, second, third)] == [
        (1200, True),
        (1200, True),
        (100, False),
    ]


async def test_old_rows_behind_many_that_stay_are_found(server: Calls, owner: Connection) -> None:
    await owner.execute(
        "insert into payment_jobs (type, run_at, created_at)"
        " select 'a', now() + interval '90 days', now() - interval '20 days' from generate_series(1, 3000)"
    )
    await owner.execute(
        "insert into payment_jobs (type, status, created_at, finished_at)"
        " values ('a', 'completed', now() - interval '20 days', now() - interval '10 days')"
    )
    assert (await server.prune())["jobs"] == 1


async def test_rows_in_other_hands_are_left_for_the_next_time(server: Calls, owner: Connection) -> None:
    made = await server.insert()
    await server.cancel(made)
    async with owner.transaction():
        await owner.execute("select from jobs where id = $1 for update", made)
        assert (await server.prune(0, 0))["jobs"] == 0
    assert (await server.prune(0, 0))["jobs"] == 1


async def test_the_canary_leaves_a_row_and_takes_the_old_ones_away(
    server: Calls, move_clock: MoveClock
) -> None:
    assert "select announce_by_broadcast()" in await server.value("select canary('one')")
    await move_clock(timedelta(minutes=11))
    await server.value("select canary('two')")
    tokens = [row["token"] for row in await server.connection.fetch("select token from realtime_canary")]
    assert tokens == ["two"]


async def test_claims_do_not_wait_for_a_prune_that_is_under_way(
    server: Calls, owner: Connection, move_clock: MoveClock
) -> None:
    for _ in range(20):
        await server.cancel(await server.insert())
    await move_clock(timedelta(days=8))
    waiting = await server.insert()
    async with owner.transaction():
        assert json.loads(await owner.fetchval("select prune()"))["jobs"] == 20
        await server.connection.execute("set lock_timeout = 1")
        assert (await server.take())["id"] == waiting
        await server.insert()
        await server.connection.execute("reset lock_timeout")
