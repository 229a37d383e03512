"""Whose turn it is: no user waits behind the flood of another, and no job for ever behind higher priorities."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from uuid import UUID

import pytest

from tests.sql.calls import Calls, Connection
from tests.sql.laning import ids, laned, lanes, stop_clock

MoveClock = Callable[[timedelta], Awaitable[None]]
ANN, BOB, CAT = UUID(int=1), UUID(int=2), UUID(int=3)


@pytest.fixture(autouse=True)
async def no_limits(server: Calls, owner: Connection) -> None:
    """The limit that the platform comes with hides most of it."""
    await owner.execute("delete from job_limits")


async def _flood(
    owner: Connection, jobs: int, user: UUID = ANN, *, kind: str = "a", priority: int = 0
) -> None:
    await owner.execute(
        "insert into payment_jobs (type, user_id, priority) select $1, $2, $4 from generate_series(1, $3::integer)",
        kind,
        user,
        jobs,
        priority,
    )


async def _users(server: Calls, places: int = 1, *, sweep: bool = False) -> list[UUID | None]:
    """Whose jobs a claim brings."""
    jobs = (await server.claim(places, sweep=sweep))["jobs"]
    return [job["user_id"] and UUID(job["user_id"]) for job in jobs]


# Turns ----------------------------------------------------------------------------------------------------------


async def test_users_take_turns_when_more_is_due_than_there_are_places(server: Calls) -> None:
    anns = [await server.insert(user_id=ANN) for _ in range(4)]
    bobs = [await server.insert(user_id=BOB) for _ in range(2)]
    assert ids(await server.claim(2)) == [anns[0], bobs[0]]
    assert ids(await server.claim(1)) == [anns[1]]
    assert ids(await server.claim(1)) == [bobs[1]]
    assert ids(await server.claim(5)) == anns[2:]
    await server.claim()
    assert await lanes(server) == 0


async def test_nobody_starts_a_second_job_before_one_who_waits(server: Calls, owner: Connection) -> None:
    await _flood(owner, 30)
    await _flood(owner, 30, BOB)
    assert await _users(server) == [ANN]
    await server.insert(user_id=CAT)
    await server.insert()
    assert [await _users(server) for _ in range(5)] == [[BOB], [ANN], [CAT], [None], [BOB]]


async def test_a_user_alone_takes_all_places(server: Calls, owner: Connection) -> None:
    await _flood(owner, 1000)
    for _ in range(6):
        assert await _users(server, 7) == [ANN] * 7


async def test_of_two_with_much_to_do_each_gets_half(server: Calls, owner: Connection) -> None:
    await _flood(owner, 300)
    await _flood(owner, 300, BOB)
    got = [user for _ in range(20) for user in await _users(server, 10)]
    assert got.count(BOB) >= 95, "it is found behind three hundred by the first claim that looks"


async def test_a_job_behind_a_flood_starts_after_as_few_claims_as_it_takes_to_walk_over_it(
    server: Calls, owner: Connection
) -> None:
    await _flood(owner, 4000)
    theirs = await server.insert(user_id=BOB)
    claims = 0
    while theirs not in ids(await server.claim(1)):
        claims += 1
    assert claims <= 4000 // 500
    later = await server.insert(user_id=BOB)
    assert ids(await server.claim(2))[-1] == later, "the flood stands aside by now"


async def test_a_flood_of_many_is_seen_by_the_sweep(server: Calls, owner: Connection) -> None:
    """Two hundred users in turn: among the fifty that follow nobody comes twice."""
    await owner.execute(
        "insert into payment_jobs (type, user_id)"
        " select 'a', ('00000000-0000-0000-0001-' || lpad((n % 200)::text, 12, '0'))::uuid"
        " from generate_series(1, 4000) as n"
    )
    await server.insert(user_id=BOB)
    assert await laned(server) == {}
    assert BOB not in await _users(server, 10)
    assert await laned(server) == {}
    for round_ in range(40):
        if BOB in await _users(server, 10, sweep=round_ == 0):
            break
    else:
        raise AssertionError("it stands behind all of them")


async def test_who_waits_for_a_limit_has_no_more_turns_when_it_opens(
    server: Calls, owner: Connection
) -> None:
    await stop_clock(owner, 0)
    await server.limit(per="user", starts=3, per_seconds=60)
    await _flood(owner, 10)
    assert await _users(server, 5) == [ANN] * 3
    await stop_clock(owner, 59)
    for user in (BOB, CAT):
        await _flood(owner, 2, user)
    await stop_clock(owner, 61)
    assert await _users(server, 1) == [ANN], "it waits for longest"
    await stop_clock(owner, 62)
    assert sorted(filter(None, await _users(server, 4))) == [ANN, BOB, BOB, CAT]


async def test_a_claim_whose_second_look_finds_nothing_is_as_good_as_any(server: Calls) -> None:
    await server.limit(per="user", starts=100, per_seconds=60)
    for _ in range(101):
        await server.insert(user_id=ANN)
    assert len((await server.claim(101))["jobs"]) == 100


async def test_who_had_a_turn_waits_from_then_on_whatever_its_lane(server: Calls, owner: Connection) -> None:
    await _flood(owner, 5)
    await _flood(owner, 5, kind="b")
    await server.claim(1, types=["a", "b"])
    await server.insert("b", user_id=BOB)
    turns = [(await server.claim(1, types=["a", "b"]))["jobs"][0]["user_id"] for _ in range(2)]
    assert turns == [str(ANN), str(BOB)]


async def test_priority_goes_before_turns(server: Calls, owner: Connection) -> None:
    await _flood(owner, 3)
    await server.insert(user_id=BOB)
    urgent = [await server.insert(user_id=ANN, priority=5) for _ in range(3)]
    assert ids(await server.claim(2)) == urgent[:2]
    assert ids(await server.claim(1)) == urgent[2:]
    assert await _users(server, 2) == [ANN, BOB]


async def test_priority_goes_before_turns_in_a_long_line_too(server: Calls, owner: Connection) -> None:
    await _flood(owner, 3, priority=5)
    for n in range(60):
        await server.insert(user_id=UUID(int=100 + n))
    assert await _users(server, 3) == [ANN] * 3


async def test_a_limit_met_in_a_lane_is_met_for_all_that_wait_there(server: Calls, owner: Connection) -> None:
    await _flood(owner, 400)
    await _flood(owner, 1, BOB)
    await _users(server, 2)
    assert len(await laned(server)) == 399
    await server.limit(per="user", at_once=1)
    claims = 1
    while (await server.claim(1))["next_in_seconds"] == 0:
        claims += 1
    assert claims <= 3
    assert await lanes(server) == 1


async def test_a_claim_is_full_however_many_wait_for_their_turn(server: Calls, owner: Connection) -> None:
    await owner.execute(
        "insert into payment_jobs (type, user_id)"
        " select 'a', ('00000000-0000-0000-0001-' || lpad((n % 320)::text, 12, '0'))::uuid"
        " from generate_series(1, 4000) as n"
    )
    await owner.execute("update jobs set lane = '0/0/' || user_id")
    assert len(await _users(server, 700, sweep=True)) == 700
    assert await lanes(server) == 320
    assert len(await _users(server, 1000)) == 1000


async def test_a_clock_that_is_set_back_costs_nobody_its_turn(server: Calls, owner: Connection) -> None:
    await stop_clock(owner, 0)
    await owner.execute("alter table payment_jobs alter column run_at set default '2026-11-28 10:00Z'")
    await _flood(owner, 10)
    await _flood(owner, 1, BOB)
    assert await _users(server, 1) == [ANN]
    await stop_clock(owner, -3600)
    await _flood(owner, 3, BOB)
    await _flood(owner, 3, CAT)
    got = [user for n in range(4) for user in await _users(server, 1, sweep=n == 0)]
    assert ANN in got


async def test_what_waits_for_its_turn_and_nobody_knows_is_told(server: Calls, owner: Connection) -> None:
    await _flood(owner, 3, kind="b")
    await server.insert(user_id=ANN)
    await server.claim(1, types=["a", "b"])
    assert len(await laned(server)) == 3
    assert (await server.claim(sweep=True))["unknown_types"] == {"b": 2}


async def test_no_lower_priority_starts_before_the_lanes_of_a_higher_one_are_through(
    server: Calls, owner: Connection
) -> None:
    for n in range(8):
        await _flood(owner, 3, UUID(int=100 + n), priority=5)
    await owner.execute("update jobs set lane = '0/5/' || user_id")
    await server.claim(0, sweep=True)
    gone = await owner.fetch("select id from jobs where user_id < $1", UUID(int=107))
    await server.cancel(*(row["id"] for row in gone))
    await server.insert()
    claims = [await server.claim(1) for _ in range(5)]
    assert [job["priority"] for claimed in claims for job in claimed["jobs"]] == [5, 5, 5, 0]


async def test_what_stands_in_line_behind_long_lanes_is_found_by_the_same_claim(
    server: Calls, owner: Connection
) -> None:
    for n in range(11):
        await _flood(owner, 30 if n == 0 else 1, UUID(int=100 + n), priority=5)
    await owner.execute("update jobs set lane = '0/5/' || user_id")
    await server.claim(0, sweep=True)
    await owner.execute("insert into payment_jobs (type) select 'a' from generate_series(1, 50)")
    assert len(ids(await server.claim(100))) == 90


async def test_lanes_of_a_higher_priority_count_as_soon_as_they_are_made(
    server: Calls, owner: Connection
) -> None:
    for n in range(20):
        await _flood(owner, 3, UUID(int=100 + n))
    await owner.execute("update jobs set lane = '0/0/' || user_id")
    await server.claim(0, sweep=True)
    for user in (ANN, BOB):
        await _flood(owner, 15, user, priority=5)
    assert [job["priority"] for job in (await server.claim(5))["jobs"]] == [5] * 5


# Others at work -------------------------------------------------------------------------------------------------


async def test_a_locked_job_in_a_lane_is_passed_over(server: Calls, owner: Connection) -> None:
    await _flood(owner, 5)
    await server.insert(user_id=BOB)
    await server.claim(2)
    first, *others = await laned(server)
    async with owner.transaction():
        await owner.execute("select from jobs where id = $1 for update", first)
        assert ids(await server.claim(1)) == others[:1]
        claimed = await server.claim(5)
        assert ids(claimed) == others[1:]
        assert claimed["next_in_seconds"] == 1
    assert ids(await server.claim(5, sweep=True)) == [first]


async def test_a_locked_job_costs_its_user_no_turn(server: Calls, owner: Connection) -> None:
    for user in (ANN, BOB):
        await _flood(owner, 5, user)
    assert await _users(server, 3) == [ANN, ANN, BOB]
    first = min(await laned(server))
    async with owner.transaction():
        await owner.execute("select from jobs where id = $1 for update", first)
        assert sorted(filter(None, await _users(server, 2))) == [ANN, BOB]


async def test_who_finds_all_in_the_hands_of_another_looks_again(server: Calls, owner: Connection) -> None:
    await _flood(owner, 30)
    async with owner.transaction():
        assert len(ids(await Calls(owner).claim(1))) == 1
        for sweep in (False, True):
            claimed = await server.claim(sweep=sweep)
            assert (ids(claimed), claimed["next_in_seconds"]) == ([], 1)
    assert len(ids(await server.claim())) == 10


async def test_a_claim_waits_for_no_entry_of_a_lane(server: Calls, owner: Connection) -> None:
    await _flood(owner, 3)
    await _flood(owner, 3, kind="b")
    await server.claim(1, types=["a", "b"])
    await _flood(owner, 60, kind="b")
    await _flood(owner, 1, BOB)
    async with owner.transaction():
        await owner.execute("select from lanes where type = 'b' for update")
        await server.connection.execute("set lock_timeout = '1ms'")
        assert len(ids(await server.claim(4, types=["a", "b"]))) == 4


# Ageing ---------------------------------------------------------------------------------------------------------


async def test_a_sweep_takes_first_who_waited_for_a_minute_behind_higher_priorities(
    server: Calls, move_clock: MoveClock
) -> None:
    low = [await server.insert() for _ in range(2)]
    middle = await server.insert(priority=3)
    await move_clock(timedelta(seconds=59))
    high = [await server.insert(priority=9) for _ in range(9)]
    assert ids(await server.claim(1, sweep=True)) == [high[0]]
    await move_clock(timedelta(seconds=61))
    assert ids(await server.claim(1)) == [high[1]], "sweeps alone do"
    assert ids(await server.claim(2, sweep=True)) == [high[2], low[0]], (
        "one of them, and who waits for longest"
    )
    assert ids(await server.claim(1, sweep=True)) == [low[1]]
    assert ids(await server.claim(1, sweep=True)) == [middle]
    assert ids(await server.claim(1, sweep=True)) == [high[3]]


async def test_who_waits_for_its_turn_grows_old_too(
    server: Calls, owner: Connection, move_clock: MoveClock
) -> None:
    await _flood(owner, 4)
    await server.claim(1, lease_seconds=600)
    assert len(await laned(server)) == 3
    await move_clock(timedelta(seconds=61))
    urgent = [await server.insert(priority=9) for _ in range(5)]
    assert ids(await server.claim(1)) == urgent[:1]
    assert await _users(server, 1, sweep=True) == [ANN]
    assert len(await laned(server)) == 2


async def test_age_opens_no_gate(server: Calls, move_clock: MoveClock) -> None:
    await server.limit(queue="payment", type="a", at_once=1)
    runs = await server.insert()
    assert ids(await server.claim(lease_seconds=300)) == [runs]
    held = [await server.insert() for _ in range(2)]
    await server.claim()
    old = await server.insert("b")
    await move_clock(timedelta(seconds=61))
    urgent = await server.insert("b", priority=9)
    assert ids(await server.claim(1, types=["a", "b"], sweep=True)) == [old]
    assert ids(await server.claim(3, types=["a", "b"], sweep=True)) == [urgent]
    assert list(await laned(server)) == held


async def test_who_waits_for_its_turn_grows_old_behind_the_lanes_of_many(
    server: Calls, owner: Connection, move_clock: MoveClock
) -> None:
    old = await server.insert(user_id=BOB)
    await move_clock(timedelta(seconds=61))
    for n in range(30):
        await _flood(owner, 10, UUID(int=100 + n), priority=5)
    await owner.execute("update jobs set lane = '0/' || priority || '/' || user_id")
    await server.claim(0, sweep=True)
    assert ids(await server.claim(1)) != [old]
    assert ids(await server.claim(1, sweep=True)) == [old]


async def test_who_goes_first_by_its_age_is_taken_once(
    server: Calls, owner: Connection, move_clock: MoveClock
) -> None:
    old = await server.insert()
    await move_clock(timedelta(seconds=61))
    await _flood(owner, 80, priority=5)
    taken = ids(await server.claim(3, sweep=True))
    assert old in taken
    assert len(taken) == 3
