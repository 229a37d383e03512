"""From a due row to a live attempt: what is handed out, to whom, in which order, and when to look again."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from tests.sql.calls import Calls, Connection, Json

MoveClock = Callable[[timedelta], Awaitable[None]]


def ids(claimed: Json) -> list[int]:
    return [job["id"] for job in claimed["jobs"]]


def marks(claimed: Json) -> list[tuple[int, datetime, int]]:
    return [(priority, datetime.fromisoformat(run_at), job) for priority, run_at, job in claimed["floor"]]


async def test_a_claimed_job_carries_what_its_handler_needs(server: Calls) -> None:
    made = await server.insert("a", data='{"n": 1.50}', priority=3)

    claimed = await server.claim(worker_id="w7", woken_by="realtime", lease_seconds=12)
    row = await server.row(made)

    [job] = claimed["jobs"]
    assert datetime.fromisoformat(job.pop("run_at")) == row["run_at"]
    assert datetime.fromisoformat(job.pop("created_at")) == row["created_at"]
    assert job == {
        "id": made,
        "queue": "payment",
        "type": "a",
        "data": {"n": 1.5},
        "user_id": None,
        "priority": 3,
        "attempt": 1,
        "uncounted": 0,
        "max_attempts": 4,
        "traceparent": None,
    }
    assert (row["status"], row["worker_id"], row["woken_by"]) == ("running", "w7", "realtime")
    assert row["lease_expires_at"] - row["updated_at"] == timedelta(seconds=12)
    assert claimed["lost"] == {"retried": 0, "dead": 0}
    assert claimed["waited_seconds"] == pytest.approx(0, abs=5)


async def test_the_order_is_priority_then_run_at_then_id(server: Calls) -> None:
    now = datetime.now(UTC)
    late = await server.insert(run_at=now - timedelta(seconds=1))
    soon = await server.insert(run_at=now - timedelta(seconds=9))
    same = await server.insert(run_at=now - timedelta(seconds=9))
    high = await server.insert(run_at=now - timedelta(seconds=1), priority=5)
    middle = await server.insert(run_at=now - timedelta(seconds=9), priority=2)

    assert ids(await server.claim(2)) == [high, middle]
    assert ids(await server.claim()) == [soon, same, late]


async def test_only_known_types_of_the_one_queue_that_are_due(server: Calls) -> None:
    await server.insert("unknown")
    await server.insert("a", queue="broker")
    await server.insert("a", run_at=datetime.now(UTC) + timedelta(hours=1))
    due = await server.insert("b")

    assert ids(await server.claim(types=["a", "b"])) == [due]


async def test_next_in_seconds_says_when_to_look_again(server: Calls, move_clock: MoveClock) -> None:
    await move_clock(timedelta())
    assert (await server.claim())["next_in_seconds"] is None

    for hours, priority in ((3, 0), (2, 9), (1, 0)):
        await server.insert(run_at=datetime.now(UTC) + timedelta(hours=hours), priority=priority)
    await server.insert("unknown", run_at=datetime.now(UTC) + timedelta(minutes=1))
    assert (await server.claim())["next_in_seconds"] == pytest.approx(3600, abs=5)

    await server.insert()
    await server.insert()
    assert (await server.claim(1))["next_in_seconds"] == 0
    assert (await server.claim(2))["next_in_seconds"] == pytest.approx(3600, abs=5)

    await move_clock(timedelta(hours=1, minutes=1))
    assert len(ids(await server.claim(2))) == 1


async def test_a_full_worker_takes_nothing_and_keeps_its_floor(server: Calls) -> None:
    await server.insert()
    floor = (await server.claim())["floor"]
    await server.insert()

    claimed = await server.claim(0, floor=floor)

    assert claimed["jobs"] == []
    assert claimed["floor"] == floor
    assert claimed["next_in_seconds"] == 0


async def test_waited_seconds_is_the_longest_wait_since_due(server: Calls, move_clock: MoveClock) -> None:
    await server.insert(run_at=datetime.now(UTC) - timedelta(days=1))
    await server.insert(run_at=datetime.now(UTC) + timedelta(seconds=90))
    await move_clock(timedelta(seconds=100))

    assert (await server.claim())["waited_seconds"] == pytest.approx(100, abs=5)
    assert (await server.claim())["waited_seconds"] is None


async def test_rows_that_another_session_is_taking_are_skipped(server: Calls, owner: Connection) -> None:
    taken = await server.insert()
    free = await server.insert()
    async with owner.transaction():
        await owner.execute("select from jobs where id = $1 for update", taken)
        assert ids(await server.claim()) == [free]
    assert ids(await server.claim()) == [taken]


# The floor ----------------------------------------------------------------------------------------------------


async def test_the_floor_hides_nothing_that_comes_now(server: Calls) -> None:
    floor: object = None
    for priority in (0, 5, 0, 9, 5, 7):
        made = await server.insert(priority=priority)
        claimed = await server.claim(floor=floor)
        assert ids(claimed) == [made]
        floor = claimed["floor"]


async def test_a_row_below_the_floor_is_found_by_the_next_sweep(server: Calls) -> None:
    await server.insert()
    floor = (await server.claim())["floor"]
    late = await server.insert(run_at=datetime.now(UTC) - timedelta(minutes=1))

    assert ids(await server.claim(floor=floor)) == []
    swept = await server.claim(floor=floor, sweep=True)

    assert ids(swept) == [late]
    assert [priority for priority, *_ in swept["floor"]] == [0]


async def test_what_a_sweep_does_not_get_to_is_looked_for_at_the_next_look(server: Calls) -> None:
    await server.insert()
    floor = (await server.claim())["floor"]
    late = await server.insert(run_at=datetime.now(UTC) - timedelta(minutes=1))
    urgent = await server.insert(priority=5)

    swept = await server.claim(1, floor=floor, sweep=True)
    assert ids(swept) == [urgent]

    assert ids(await server.claim(1, floor=swept["floor"])) == [late]
    assert ids(await server.claim(1, floor=(await server.claim(0, floor=floor, sweep=True))["floor"])) == []


async def test_the_floor_is_kept_for_each_priority(server: Calls) -> None:
    early = datetime.now(UTC) - timedelta(minutes=5)
    later = datetime.now(UTC) - timedelta(minutes=4)
    high = [await server.insert(priority=9, run_at=later) for _ in range(2)]
    low = await server.insert(priority=0, run_at=early)

    first = await server.claim(1)
    second = await server.claim(2, floor=first["floor"])

    assert ids(first) == high[:1]
    assert marks(first) == [(9, later, high[0])]
    assert ids(second) == [high[1], low]
    assert marks(second) == [(9, later, high[1]), (0, early, low)]


async def test_the_walk_in_any_portions_finds_every_row_in_order(server: Calls) -> None:
    priorities = [n * 37 % 11 for n in range(120)]
    made = [(await server.insert(priority=priority), priority) for priority in priorities]
    expected = [job for job, _ in sorted(made, key=lambda job: (-job[1], job[0]))]

    found: list[int] = []
    floor: object = None
    while len(found) < len(expected):
        claimed = await server.claim(7, floor=floor)
        assert claimed["jobs"], "the floor hid a row"
        found += ids(claimed)
        floor = claimed["floor"]

    assert found == expected


# A repeated call ------------------------------------------------------------------------------------------------


async def test_after_a_lost_answer_the_same_attempts_are_handed_out_again(server: Calls) -> None:
    before, lost, other, fresh = [await server.insert() for _ in range(4)]
    assert ids(await server.claim(1, worker_id="w")) == [before]
    assert ids(await server.claim(1, worker_id="w")) == [lost]  # this answer never arrives
    assert ids(await server.claim(1, worker_id="another")) == [other]

    again = await server.claim(3, worker_id="w", holding=[(before, 1)])

    assert [(job["id"], job["attempt"]) for job in again["jobs"]] == [(lost, 1), (fresh, 1)]
    assert again["unsettled"] == 0
    assert (await server.row(lost))["attempt"] == 1


async def test_what_was_lost_comes_first_and_counts_as_taken(server: Calls) -> None:
    lost = ids(await _filled(server, 3))
    claimed = await server.claim(2, holding=[])
    assert ids(claimed) == lost[:2]
    assert (claimed["unsettled"], claimed["next_in_seconds"]) == (1, 0)


async def test_what_was_lost_and_is_locked_is_counted(server: Calls, database: str) -> None:
    """Somebody looks at the row in this moment: a worker that drains must know that it is not rid of it."""
    lost = await server.insert()
    assert ids(await server.claim(1)) == [lost]
    other = await asyncpg.connect(database)
    try:
        async with other.transaction():
            await other.execute("select from jobs where id = $1 for update", lost)
            claimed = await server.claim(2, holding=[])
            assert (ids(claimed), claimed["unsettled"]) == ([], 1)
    finally:
        await other.close()
    claimed = await server.claim(2, holding=[])
    assert (ids(claimed), claimed["unsettled"]) == ([lost], 0)


async def test_a_later_attempt_of_a_held_job_is_handed_out_too(server: Calls, move_clock: MoveClock) -> None:
    """The worker still runs the first attempt, whose lease ran out; the answer with the second was lost."""
    job = await server.insert(max_attempts=2)
    first = await server.take(lease_seconds=5)
    await move_clock(timedelta(seconds=6))
    assert (await server.claim(0, sweep=True))["lost"]["retried"] == 1
    await move_clock(timedelta(seconds=12))
    await server.take()  # this answer never arrives

    again = await server.claim(holding=[(job, first["attempt"])])

    assert [(job["id"], job["attempt"]) for job in again["jobs"]] == [(job, 2)]


async def test_a_sweep_does_not_end_what_its_own_worker_holds(server: Calls, move_clock: MoveClock) -> None:
    mine, other = await server.insert(), await server.insert()
    await server.claim(1, worker_id="w", lease_seconds=5)
    await server.claim(1, worker_id="another", lease_seconds=5)
    await move_clock(timedelta(seconds=6))

    swept = await server.claim(0, worker_id="w", lease_seconds=5, sweep=True, holding=[(mine, 1)])

    assert swept["lost"] == {"retried": 1, "dead": 0}
    assert (await server.row(mine))["status"] == "running"
    assert (await server.row(other))["status"] == "pending"
    assert (await server.claim(0, sweep=True))["lost"]["retried"] == 0, "the lease is renewed"


async def test_holding_renews_only_what_is_held_and_half_over(
    server: Calls, owner: Connection, move_clock: MoveClock
) -> None:
    """A worker sends it with every sweep: most of the time there must be nothing to write."""
    mine = await server.insert()
    await server.claim(1, lease_seconds=60)
    before = (await server.row(mine))["lease_expires_at"]

    await server.claim(0, lease_seconds=60, sweep=True, holding=[(mine, 1), (mine, 2), (99, 1)])
    assert (await server.row(mine))["lease_expires_at"] == before

    await move_clock(timedelta(seconds=40))
    async with owner.transaction():  # it never waits for who has the row
        await owner.execute("select from jobs where id = $1 for update", mine)
        await server.claim(0, lease_seconds=60, sweep=True, holding=[(mine, 1)])
        assert (await server.row(mine))["lease_expires_at"] == before
    await server.claim(0, lease_seconds=60, sweep=True, holding=[(mine, 1)])
    assert (await server.row(mine))["lease_expires_at"] > before


async def _filled(server: Calls, jobs: int) -> Json:
    for _ in range(jobs + 2):
        await server.insert()
    return await server.claim(jobs)


# Sweeps ---------------------------------------------------------------------------------------------------------


async def test_a_sweep_reports_due_rows_that_nobody_here_knows(server: Calls) -> None:
    for _ in range(3):
        await server.insert("unknown")
    await server.insert("stranger")
    await server.insert("future", run_at=datetime.now(UTC) + timedelta(hours=1))
    await server.insert("a")

    assert (await server.claim())["unknown_types"] is None
    assert (await server.claim(sweep=True))["unknown_types"] == {"unknown": 3, "stranger": 1}


async def test_without_a_sweep_a_lease_that_ran_out_is_left_alone(
    server: Calls, move_clock: MoveClock
) -> None:
    await server.insert()
    await server.claim(lease_seconds=5)
    await move_clock(timedelta(seconds=10))
    assert (await server.claim())["jobs"] == []


@pytest.mark.parametrize("max_jobs", [-1, 1001, None])
async def test_a_number_of_jobs_that_cannot_be_meant_is_refused(server: Calls, max_jobs: int) -> None:
    await server.insert()
    with pytest.raises(asyncpg.InvalidParameterValueError, match="max_jobs must be from 0 to 1000"):
        await server.claim(max_jobs, sweep=True, holding=[])


@pytest.mark.parametrize("lease_seconds", [None, 0, -1, 86401, float("nan"), float("inf")])
async def test_a_lease_without_a_sensible_end_is_refused(server: Calls, lease_seconds: float) -> None:
    """Nothing could ever free its job."""
    await server.insert()
    held = await server.take()
    for call in (
        server.claim(lease_seconds=lease_seconds),
        server.heartbeat(held, lease_seconds=lease_seconds),
    ):
        with pytest.raises(asyncpg.InvalidParameterValueError, match="lease_seconds must be from"):
            await call
    assert (await server.end(held))["answer"] == "recorded"


async def test_times_are_told_in_utc_whatever_the_database_thinks(server: Calls) -> None:
    await server.connection.execute("set timezone = 'America/New_York'")
    await server.value("insert into payment_jobs (type, run_at) values ('a', '0001-01-01 00:00+00')")
    assert (await server.take())["run_at"] == "0001-01-01T00:00:00+00:00"
