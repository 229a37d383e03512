"""Traps for claims beside lanes: what others hold in this moment, and limits that change while lanes are full."""

from uuid import UUID

from tests.sql.calls import Calls, Connection
from tests.sql.laning import ids, laned, lanes, stop_clock

ANN, BOB = UUID(int=1), UUID(int=2)


async def test_a_claim_that_looks_at_lanes_goes_on_past_what_somebody_else_is_taking(
    server: Calls, owner: Connection
) -> None:
    made = [await server.insert("b") for _ in range(6)]
    async with owner.transaction():
        taken = ids(await Calls(owner).claim(2, types=["b"]))
        await server.limit(queue="payment", type="a", at_once=1)
        await server.insert("a", priority=1)
        await server.insert("a", priority=1)
        await server.claim(1, types=["a"])
        await server.claim(1, types=["a"])
        claimed = await server.claim(2, types=["a", "b"], sweep=True)
    assert taken == made[:2]
    assert ids(claimed) == made[2:4]


async def test_a_lane_whose_limit_governs_its_jobs_no_more_is_emptied_claim_by_claim(
    server: Calls, owner: Connection
) -> None:
    await stop_clock(owner, 0)
    await server.limit(queue="payment", starts=1, per_seconds=60)
    for _ in range(7):
        await server.insert()
    await server.claim(1)
    await server.claim(1)
    waits = list(await laned(server))
    assert len(waits) == 6
    await server.limit(queue="payment", type="a")
    for n in range(3):
        claimed = await server.claim(2)
        assert ids(claimed) == waits[2 * n : 2 * n + 2]


async def test_who_waits_for_two_limits_is_not_moved_from_lane_to_lane(
    server: Calls, owner: Connection
) -> None:
    await server.limit(queue="payment", type="a", at_once=2)
    of_a_user = await server.limit(queue="payment", type="a", per="user", at_once=1)
    for _ in range(5):
        await server.insert(user_id=ANN)
    await server.claim()
    first = await laned(server)
    assert {lane.split("/")[0] for lane in first.values()} == {str(of_a_user)}
    bobs = await server.insert(user_id=BOB)
    assert ids(await server.claim()) == [bobs]
    await owner.execute("update lanes set look_at = '-infinity'")
    assert ids(await server.claim()) == []
    assert await laned(server) == first


async def test_a_claim_waits_for_nobody_who_frees_the_lane_that_it_fills(
    server: Calls, owner: Connection
) -> None:
    """Each might hold what the other wants next: a deadlock, and an outcome that has to be told again."""
    await server.limit(queue="payment", type="a", at_once=1)
    await server.insert()
    runs = await server.take()
    await server.insert()
    await server.claim()
    late = await server.insert()
    await server.connection.execute("set lock_timeout = '10ms'")
    async with owner.transaction():
        await Calls(owner).end(runs)
        assert ids(await server.claim()) == []
    assert late in await laned(server)


async def test_no_lane_is_forgotten_when_the_clock_is_set_back(server: Calls, owner: Connection) -> None:
    """What was said of each before lies an hour ahead; a sweep looks at no more than a hundred."""
    await stop_clock(owner, 3600)
    await server.limit(queue="payment", type="a", per="user", starts=1, per_seconds=60)
    await owner.execute(
        "insert into payment_jobs (type, user_id)"
        " select 'a', ('00000000-0000-0000-0000-' || lpad((n % 150)::text, 12, '0'))::uuid"
        " from generate_series(0, 899) as n"
    )
    for _ in range(20):
        await server.claim(50)
    assert await lanes(server) == 150
    await stop_clock(owner, 0)
    await owner.execute("update jobs set run_at = clock_now(), created_at = clock_now()")
    given = 0
    for minute in range(1, 4):
        for _ in range(4):
            given += len(ids(await server.claim(200, sweep=True)))
        await stop_clock(owner, 61 * minute)
    assert given == 150 * 2, "what was taken ahead counts from the moment that the clock is seen to be back"


async def test_a_claim_of_more_keys_than_it_takes_takes_those_of_the_first_in_line(
    server: Calls, owner: Connection
) -> None:
    await owner.execute(
        "insert into payment_jobs (type, user_id) select 'a', gen_random_uuid() from generate_series(1, 400)"
    )
    first: list[int] = await owner.fetchval("select array_agg(id order by id) from jobs")
    assert ids(await server.claim(400)) == first[:300]
    assert ids(await server.claim(400)) == first[300:]
