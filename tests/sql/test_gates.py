"""What holds due work back: pauses and limits, exact at claim."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from uuid import UUID

import asyncpg
import pytest

from tests.sql.calls import Calls, Connection, Json, outcome
from tests.sql.laning import ids, laned, lanes, stop_clock

MoveClock = Callable[[timedelta], Awaitable[None]]
ANN, BOB = UUID(int=1), UUID(int=2)


# Pauses ---------------------------------------------------------------------------------------------------------


async def test_a_paused_queue_hands_out_nothing_and_says_nothing_is_planned(server: Calls) -> None:
    made = await server.insert()
    other = await server.insert(queue="broker")
    assert await server.pause(reason="provider down") == {"paused": True}
    assert await server.pause() == {"paused": False}

    claimed = await server.claim(sweep=True, holding=[])
    assert (ids(claimed), claimed["next_in_seconds"]) == ([], None)
    assert ids(await server.claim(queue="broker")) == [other]

    assert await server.resume() == {"resumed": True}
    assert await server.resume() == {"resumed": False}
    assert ids(await server.claim(floor=claimed["floor"], sweep=True)) == [made]


async def test_what_runs_goes_on_while_its_queue_is_paused(server: Calls, move_clock: MoveClock) -> None:
    for _ in range(4):
        await server.insert()
    done, renewed, lost, unheard = (await server.claim(lease_seconds=20))["jobs"]
    await server.pause()

    assert (await server.end(done))["answer"] == "recorded"
    await move_clock(timedelta(seconds=15))
    assert await server.heartbeat(renewed, lease_seconds=60) == {"lost": [], "cancel": []}
    await server.heartbeat(unheard, lease_seconds=60)
    await move_clock(timedelta(seconds=21))
    swept = await server.claim(sweep=True, holding=[(renewed["id"], 1)])

    assert ids(swept) == [unheard["id"]], "it runs already: its worker must hear of it"
    assert swept["lost"] == {"retried": 1, "dead": 0}
    assert (await server.row(lost["id"]))["status"] == "pending"


async def test_a_paused_type_lets_the_others_pass(server: Calls) -> None:
    held = await server.insert("a")
    free = await server.insert("b")
    await server.pause(type="a")
    claimed = await server.claim(types=["a", "b"])
    assert ids(claimed) == [free]
    assert ids(await server.claim(types=["a"])) == []
    await server.resume(type="a")
    assert ids(await server.claim(types=["a", "b"], floor=claimed["floor"], sweep=True)) == [held]


@pytest.mark.parametrize("call", ["pause_jobs('paymnt')", "limit_jobs('paymnt', at_once => 1)"])
async def test_a_queue_that_does_not_exist_is_refused(server: Calls, call: str) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError, match='there is no queue "paymnt"'):
        await server.value(f"select {call}")


# At once --------------------------------------------------------------------------------------------------------


async def test_at_once_of_a_type_is_exact_and_work_comes_back_in_order(server: Calls) -> None:
    await server.limit(queue="payment", type="a", at_once=2)
    made = [await server.insert("a") for _ in range(5)]
    other = await server.insert("b")

    first = await server.claim(types=["a", "b"])
    assert ids(first) == [*made[:2], other]
    assert list(await laned(server)) == made[2:]
    assert ids(await server.claim(types=["a", "b"], floor=first["floor"])) == []

    said = await server.finish(outcome(first["jobs"][1], "completed"), claim=_asks(["a", "b"]))
    assert ids(said["claim"]) == [made[2]], "who ends a job takes the next one with the same call"
    await server.end(first["jobs"][0])
    assert ids(await server.claim(types=["a", "b"])) == [made[3]], "and so does whoever looks next"
    for job in [said["claim"]["jobs"][0], {**first["jobs"][0], "id": made[3]}]:
        await server.end(job)
    assert ids(await server.claim(types=["a", "b"])) == [made[4]]
    assert ids(await server.claim(types=["a", "b"], sweep=True)) == []
    assert await lanes(server) == 0


def _asks(types: list[str], max_jobs: int = 10) -> Json:
    return {
        "queue": "payment",
        "types": types,
        "max_jobs": max_jobs,
        "lease_seconds": 30,
        "worker_id": "w",
        "woken_by": "finish",
    }


@pytest.mark.parametrize("kind", ["completed", "retry", "snooze", "dead", "cancel"])
async def test_every_end_of_an_attempt_makes_room(server: Calls, kind: str) -> None:
    await server.limit(queue="payment", type="a", at_once=1)
    first, second = await server.insert(), await server.insert()
    job = await server.take()
    assert ids(await server.claim()) == []
    await server.end(job, kind, delay_seconds=600)
    assert ids(await server.claim()) == [second]
    assert first == job["id"]


async def test_an_attempt_that_was_lost_makes_room_for_the_sweep_that_ends_it(
    server: Calls, move_clock: MoveClock
) -> None:
    await server.limit(queue="payment", type="a", at_once=1)
    await server.insert(max_attempts=1)
    second = await server.insert()
    await server.take(lease_seconds=5)
    await server.claim()
    await move_clock(timedelta(seconds=6))
    assert ids(await server.claim()) == [], "until it is swept it counts: its worker may still be at it"
    swept = await server.claim(sweep=True)
    assert (swept["lost"]["dead"], ids(swept)) == (1, [second])


async def test_at_once_of_a_user_counts_all_queues(server: Calls) -> None:
    await server.limit(per="user", at_once=1)
    first = await server.insert(user_id=ANN)
    free = await server.insert()
    theirs = await server.insert(user_id=BOB)
    second = await server.insert(user_id=ANN, queue="broker")

    assert ids(await server.claim()) == [first, free, theirs]
    assert ids(await server.claim(queue="broker")) == []
    await server.end({"queue": "payment", "id": first, "attempt": 1})
    assert ids(await server.claim(queue="broker")) == [second]


async def test_at_once_of_a_key_in_data_in_either_spelling(server: Calls) -> None:
    await server.limit(queue="payment", type="a", per="data.order.account_id", at_once=1)
    words = [
        '{"order": {"account_id": 7}}',
        '{"order": {"accountId": "7"}}',
        '{"order": {"account_id": 8}}',
        "{}",
    ]
    words += ['{"order": 7}', '{"order": {"account_id": null}}']
    made = [await server.insert(data=data) for data in words]
    claimed = await server.claim()
    assert ids(claimed) == [made[0], *made[2:]], "what has no key is not limited"
    assert list(await laned(server)) == [made[1]]
    assert "7" not in str((await server.gate_of(made[1]) or {})["key"])


async def test_a_job_needs_room_in_each_of_its_limits(server: Calls) -> None:
    await server.limit(queue="payment", type="a", at_once=2)
    await server.limit(queue="payment", per="user", at_once=1)
    made = [await server.insert(user_id=user) for user in (ANN, ANN, BOB, BOB, None)]
    claimed = await server.claim()
    assert ids(claimed) == [made[0], made[2]]
    await server.end(claimed["jobs"][0])
    assert ids(await server.claim()) == [made[1]], "the first one that finds room in both"
    await server.end(claimed["jobs"][1])
    assert ids(await server.claim()) == [made[3]]
    await server.end({"queue": "payment", "id": made[1], "attempt": 1})
    assert ids(await server.claim()) == [made[4]]


async def test_the_most_specific_limit_governs_and_an_exception_limits_nothing(server: Calls) -> None:
    await server.limit(per="user", at_once=1)
    await server.limit(queue="payment", per="user", at_once=2)
    await server.limit(queue="payment", type="b", per="user")
    made = [await server.insert(kind, user_id=ANN) for kind in "aaabbb"]
    broker = [await server.insert(queue="broker", user_id=ANN) for _ in range(2)]
    assert ids(await server.claim(types=["a", "b"])) == [*made[:2], *made[3:]]
    assert ids(await server.claim(queue="broker")) == broker[:1], "what another row governs is not counted"


async def test_a_flood_at_the_head_does_not_hide_what_is_behind_it(server: Calls, owner: Connection) -> None:
    await server.limit(queue="payment", per="user", at_once=1)
    await owner.execute(
        "insert into payment_jobs (type, user_id) select 'a', $1 from generate_series(1, 400)", ANN
    )
    behind = await server.insert(user_id=BOB)
    claimed = await server.claim(3)
    assert ids(claimed)[-1] == behind
    assert len(await laned(server)) == 399


# Starts ---------------------------------------------------------------------------------------------------------


async def test_a_user_starts_100_jobs_in_60_seconds_and_others_are_not_held_up(
    server: Calls, owner: Connection
) -> None:
    """The limit that the platform comes with, and its exceptions."""
    await stop_clock(owner, 0)
    await owner.execute(
        "insert into payment_jobs (type, user_id) select 'a', $1 from generate_series(1, 130)", ANN
    )
    theirs = await server.insert(user_id=BOB)
    cancels = [await server.insert("cancel_order", queue="broker", user_id=ANN) for _ in range(3)]
    orders = [await server.insert("execute_order", queue="broker", user_id=ANN) for _ in range(2)]

    await stop_clock(owner, 10)
    claimed = await server.claim(200)
    assert len(ids(claimed)) == 101
    assert ids(claimed)[-1] == theirs
    assert claimed["next_in_seconds"] == 60
    assert ids(await server.claim(queue="broker", types=["cancel_order", "execute_order"])) == cancels
    assert await server.gate_of(orders[0]) == {
        "gate": "starts", "per": "user", "queue": None, "type": None, "key": str(ANN), "limit": 100,
        "per_seconds": 60, "free_in_seconds": 60,
    }  # fmt: skip

    await stop_clock(owner, 69.9)
    assert ids(await server.claim(200)) == []
    await stop_clock(owner, 70)
    assert len(ids(await server.claim(200))) == 30
    assert ids(await server.claim(queue="broker", types=["execute_order"])) == orders
    assert await server.gate_of(orders[0]) is None


async def test_each_attempt_is_a_start_and_the_window_slides(server: Calls, owner: Connection) -> None:
    await server.limit(queue="payment", starts=2, per_seconds=10)
    await stop_clock(owner, 0)
    first, second, third = [await server.insert() for _ in range(3)]
    await server.end((await server.claim(1))["jobs"][0], "retry", delay_seconds=1)
    await stop_clock(owner, 5)
    assert ids(await server.claim()) == [second]
    await stop_clock(owner, 9)
    waiting = await server.claim()
    assert (ids(waiting), waiting["next_in_seconds"]) == ([], 1)
    await stop_clock(owner, 10)
    claimed = await server.claim()
    assert (ids(claimed), claimed["next_in_seconds"]) == ([third], 5)
    await stop_clock(owner, 15)
    assert [(job["id"], job["attempt"]) for job in (await server.claim())["jobs"]] == [(first, 2)]


async def test_a_clock_that_is_set_back_stops_nobody_for_longer_than_the_window(
    server: Calls, owner: Connection
) -> None:
    await server.limit(queue="payment", starts=1, per_seconds=10)
    await stop_clock(owner, 0)
    first, second = await server.insert(), await server.insert()
    await stop_clock(owner, 3600)
    assert ids(await server.claim()) == [first]
    await stop_clock(owner, 100)
    assert ids(await server.claim(sweep=True)) == []
    await stop_clock(owner, 109)
    assert ids(await server.claim(sweep=True)) == []
    await stop_clock(owner, 110)
    assert ids(await server.claim()) == [second]


# Refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"type": "a", "at_once": 1}, "a limit for a type names its queue"),
        ({"queue": "payment", "per": "data.accountId", "at_once": 1}, "snake case"),
        ({"queue": "payment", "at_once": 0}, "pause_jobs is what stops all"),
        ({"queue": "payment", "starts": 5}, "starts and per_seconds belong together"),
        ({"queue": "payment", "starts": 5, "per_seconds": 0.0}, "per_seconds must be from"),
    ],
)
async def test_a_limit_that_cannot_be_meant_is_refused(server: Calls, words: Json, sentence: str) -> None:
    with pytest.raises(asyncpg.CheckViolationError, match=sentence):
        await server.limit(**words)


async def test_a_limited_claim_refuses_a_snapshot_that_could_be_old(server: Calls) -> None:
    await server.limit(queue="payment", at_once=1)
    await server.insert()
    async with server.connection.transaction(isolation="repeatable_read"):
        with pytest.raises(asyncpg.InvalidTransactionStateError, match="read committed"):
            await server.claim()
