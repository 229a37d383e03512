"""What happens to jobs that a limit holds back: they wait in a lane, in which nothing stays."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg

from tests.sql.calls import Calls, Connection, Json, waits_for_a_lock
from tests.sql.laning import ids, laned, lanes, stop_clock

ANN = UUID(int=1)


async def _full(server: Calls, waiting: int = 3, **words: Any) -> tuple[Json, list[int]]:
    """One job runs under a limit of one, the others are in its lane."""
    await server.limit(**{"queue": "payment", "type": "a", "at_once": 1, **words})
    for _ in range(waiting + 1):
        await server.insert(user_id=ANN)
    runs = (await server.claim())["jobs"][0]
    waits = list(await laned(server))
    assert len(waits) == waiting
    return runs, waits


async def test_a_limit_that_is_removed_empties_its_lanes(server: Calls) -> None:
    _, waits = await _full(server)
    assert await server.unlimit("payment", "a")
    assert not await server.unlimit("payment", "a")
    assert ids(await server.claim()) == waits
    await server.claim(sweep=True)
    assert await lanes(server) == 0


async def test_a_limit_that_is_raised_or_lowered_holds_from_the_next_claim_on(server: Calls) -> None:
    runs, waits = await _full(server)
    await server.limit(queue="payment", type="a", at_once=3)
    assert ids(await server.claim()) == waits[:2]
    await server.limit(queue="payment", type="a", at_once=2)
    await server.end(runs)
    assert ids(await server.claim()) == [], "what runs counts"
    await server.end({"queue": "payment", "id": waits[0], "attempt": 1})
    assert ids(await server.claim()) == waits[2:]


async def test_a_narrower_limit_takes_over_who_waits(server: Calls) -> None:
    _, waits = await _full(server, type=None)
    await server.limit(queue="payment", type="a", at_once=2)
    assert ids(await server.claim()) == waits[:1]
    assert {lane.split("/")[0] for lane in (await laned(server)).values()} == {
        str(
            await server.value(
                "select id from job_limits where type = 'a' and queue = 'payment' and per = 'all'"
            )
        )
    }


async def test_a_job_in_a_lane_is_cancelled_and_leaves_nothing(server: Calls) -> None:
    runs, waits = await _full(server)
    await server.cancel(*waits)
    await server.end(runs)
    assert ids(await server.claim()) == []
    assert await lanes(server) == 0


async def test_a_dead_letter_is_replayed_through_the_gate(server: Calls) -> None:
    runs, waits = await _full(server, waiting=1)
    letter = (await server.end(runs, "dead"))["failed_job_id"]
    assert ids(await server.claim()) == waits
    await server.replay([letter])
    assert ids(await server.claim()) == []
    await server.end({"queue": "payment", "id": waits[0], "attempt": 1})
    assert ids(await server.claim()) == [runs["id"]]


async def test_a_lost_answer_is_given_again_and_counts_once(server: Calls) -> None:
    runs, waits = await _full(server)
    again = await server.claim(holding=[])
    assert [(job["id"], job["attempt"]) for job in again["jobs"]] == [(runs["id"], 1)]
    assert ids(await server.claim(holding=[(runs["id"], 1)], sweep=True)) == []
    assert list(await laned(server)) == waits


async def test_a_worker_that_does_not_know_a_type_leaves_its_lane_to_others(server: Calls) -> None:
    runs, waits = await _full(server)
    await server.end(runs)
    stranger = await server.claim(types=["b"])
    assert (ids(stranger), stranger["next_in_seconds"]) == ([], None)
    assert ids(await server.claim()) == waits[:1]


async def test_lanes_of_a_paused_type_wait_for_its_end(server: Calls) -> None:
    runs, waits = await _full(server)
    await server.pause(type="a")
    await server.end(runs)
    assert ids(await server.claim(types=["a", "b"], sweep=True)) == []
    await server.resume(type="a")
    assert ids(await server.claim(types=["a", "b"])) == waits[:1]


async def test_the_order_holds_over_the_line_and_the_lanes(server: Calls) -> None:
    _, waits = await _full(server)
    urgent = await server.insert(priority=5)
    other = await server.insert("b")
    early = await server.insert("b", run_at=datetime.now(UTC) - timedelta(minutes=1))
    await server.limit(queue="payment", type="a", at_once=4)
    claimed = await server.claim(5, types=["a", "b"], sweep=True)
    assert ids(claimed) == [urgent, early, *waits[:2], other]
    assert list(await laned(server)) == waits[2:]


async def test_who_ends_a_job_unseen_by_the_claim_that_makes_the_lane_is_found_out_within_a_second(
    server: Calls, owner: Connection
) -> None:
    """The lane's entry is not committed when the other session looks whom it frees."""
    await stop_clock(owner, 0)
    await server.limit(queue="payment", type="a", at_once=1)
    await server.insert()
    runs = await server.take()
    second = await server.insert()
    async with owner.transaction():
        assert ids(await Calls(owner).claim()) == []
        await server.end(runs)
    claimed = await server.claim()
    assert (ids(claimed), claimed["next_in_seconds"]) == ([], 1)
    await stop_clock(owner, 1)
    assert ids(await server.claim()) == [second]


async def test_gate_of_names_who_runs(server: Calls) -> None:
    runs, waits = await _full(server)
    assert await server.gate_of(runs["id"]) is None
    assert await server.gate_of(0) is None
    assert await server.gate_of(waits[0]) == {
        "gate": "at_once", "per": "all", "queue": "payment", "type": "a", "key": None, "limit": 1, "count": 1,
        "running": [{"id": runs["id"], "type": "a", "worker_id": "w"}],
    }  # fmt: skip
    await server.pause(reason="maintenance")
    said = await server.gate_of(waits[0]) or {}
    assert said.pop("since")
    assert said == {"gate": "paused", "queue": "payment", "type": None, "reason": "maintenance"}
    await server.resume()
    await server.end(runs)
    assert await server.gate_of(waits[0]) is None


async def test_a_sweep_finds_a_lane_that_nobody_knows_of(server: Calls, owner: Connection) -> None:
    runs, waits = await _full(server)
    await owner.execute("truncate lanes")
    await server.end(runs)
    assert ids(await server.claim()) == []
    assert ids(await server.claim(sweep=True)) == waits[:1]


async def test_who_ends_a_job_waits_for_the_claim_that_has_just_counted_it(
    server: Calls, owner: Connection, database: str
) -> None:
    """Else the claim would say, afterwards, that there is no room."""
    await stop_clock(owner, 0)
    runs, waits = await _full(server)
    looker = await asyncpg.connect(database)
    try:
        async with asyncio.TaskGroup() as group, owner.transaction():
            assert ids(await Calls(owner).claim(sweep=True)) == []
            said = group.create_task(server.end(runs))
            await waits_for_a_lock(looker, server.connection)
    finally:
        await looker.close()
    assert said.result()["answer"] == "recorded"
    assert ids(await server.claim()) == waits[:1]
