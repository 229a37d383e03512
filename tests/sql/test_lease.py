"""While an attempt is live: renewed, asked to stop, or found dead."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from tests.sql.calls import Calls, Connection

MoveClock = Callable[[timedelta], Awaitable[None]]


async def test_a_heartbeat_renews_all_leases_in_one_call(server: Calls, move_clock: MoveClock) -> None:
    await server.insert()
    await server.insert(queue="broker")
    jobs = [await server.take(), await server.take(queue="broker")]

    await move_clock(timedelta(seconds=25))
    assert await server.heartbeat(*jobs, lease_seconds=30) == {"lost": [], "cancel": []}

    await move_clock(timedelta(seconds=50))
    for queue in ("payment", "broker"):
        assert (await server.claim(queue=queue, sweep=True))["lost"] == {"retried": 0, "dead": 0}


async def test_a_lease_that_ran_out_unnoticed_is_renewed(server: Calls, move_clock: MoveClock) -> None:
    await server.insert()
    job = await server.take(lease_seconds=5)
    await move_clock(timedelta(seconds=10))

    assert (await server.heartbeat(job))["lost"] == []
    assert (await server.claim(sweep=True))["lost"]["retried"] == 0


async def test_a_row_that_somebody_has_locked_costs_no_other_its_lease(
    server: Calls, owner: Connection, move_clock: MoveClock
) -> None:
    """A transaction of somebody's own that cancelled a job, and is long. One call renews all leases of a process."""
    await server.insert()
    await server.insert()
    locked, other = (await server.claim(lease_seconds=30))["jobs"]
    await move_clock(timedelta(seconds=20))

    async with owner.transaction():
        await owner.fetchval("select cancel(array[$1::bigint])", locked["id"])
        await server.connection.execute("set statement_timeout = '1s'")
        assert await server.heartbeat(locked, other, lease_seconds=30) == {"lost": [], "cancel": []}

    lease = "select extract(epoch from lease_expires_at - clock_now())::integer from jobs where id = $1"
    assert [await owner.fetchval(lease, job["id"]) for job in (locked, other)] == [10, 30]
    assert (await server.heartbeat(locked, other))["cancel"] == [[locked["id"], 1]]


async def test_a_heartbeat_names_what_is_no_longer_the_workers(server: Calls, move_clock: MoveClock) -> None:
    for _ in range(3):
        await server.insert()
    done, lost, kept = (await server.claim(lease_seconds=5))["jobs"]
    await server.end(done)
    await server.heartbeat(kept, lease_seconds=60)
    await move_clock(timedelta(seconds=10))
    (again,) = (await server.claim(sweep=True))["jobs"]
    lease = (await server.row(again["id"]))["lease_expires_at"]

    answer = await server.heartbeat(done, lost, kept)

    assert answer == {"lost": [[done["id"], 1], [lost["id"], 1]], "cancel": []}
    assert (await server.row(again["id"]))["lease_expires_at"] == lease


async def test_a_pending_job_is_cancelled_at_once(server: Calls) -> None:
    made = await server.insert()

    assert await server.cancel(made) == {"cancelled": [made], "asked": [], "unchanged": []}
    assert await server.cancel(made, 999) == {"cancelled": [], "asked": [], "unchanged": [made, 999]}

    row = await server.row(made)
    assert row["status"] == "cancelled"
    assert row["finished_at"] is not None
    assert (await server.claim())["jobs"] == []


async def test_a_running_job_is_asked_and_its_worker_hears_of_it(server: Calls) -> None:
    await server.insert()
    job = await server.take()

    assert (await server.cancel(job["id"]))["asked"] == [job["id"]]
    assert await server.heartbeat(job) == {"lost": [], "cancel": [[job["id"], 1]]}
    assert (await server.end(job, "cancel", reason="asked"))["status"] == "cancelled"


async def test_an_end_that_came_first_stands_and_trying_again_does_not(server: Calls) -> None:
    for kind, status in (
        ("completed", "completed"),
        ("dead", "failed"),
        ("retry", "cancelled"),
        ("snooze", "cancelled"),
    ):
        await server.insert()
        job = await server.take()
        await server.cancel(job["id"])
        answer = await server.end(job, kind, delay_seconds=1)
        assert (kind, answer["status"]) == (kind, status)


async def test_a_vanished_worker_is_a_counted_attempt(server: Calls, move_clock: MoveClock) -> None:
    made = await server.insert(max_attempts=3)
    assert (await server.take(lease_seconds=5))["attempt"] == 1
    await move_clock(timedelta(seconds=6))
    swept = await server.claim(lease_seconds=5, sweep=True)
    assert ([job["attempt"] for job in swept["jobs"]], swept["lost"]) == ([2], {"retried": 1, "dead": 0})

    await move_clock(timedelta(seconds=12))
    swept = await server.claim(sweep=True)
    assert (swept["jobs"], swept["lost"]) == ([], {"retried": 1, "dead": 0})
    assert swept["next_in_seconds"] == 10, "the second time in a row it may be the job's own doing"

    await move_clock(timedelta(seconds=23))
    await server.take(lease_seconds=5, worker_id="w13")
    await move_clock(timedelta(seconds=29))
    assert (await server.claim(sweep=True))["lost"] == {"retried": 0, "dead": 1}

    letter = await server.connection.fetchrow("select * from failed_jobs")
    assert letter is not None
    assert (letter["job_id"], letter["attempts"], letter["error_class"]) == (made, 3, "WorkerVanished")
    assert letter["error_message"].startswith("worker w13 vanished")
    assert letter["error_message"].endswith("the job may kill its worker")
    assert (await server.row(made))["status"] == "failed"


async def test_what_vanished_twice_in_a_row_comes_back_one_by_one(
    server: Calls, move_clock: MoveClock
) -> None:
    """Together they would be claimed together: the one that kills its worker would take all others with it."""
    jobs = [await server.insert() for _ in range(3)]
    await server.claim(lease_seconds=5)
    await move_clock(timedelta(seconds=6))
    fresh = await server.insert()
    assert len((await server.claim(lease_seconds=5, sweep=True))["jobs"]) == 4, "the first time at once"
    await move_clock(timedelta(seconds=12))
    again = await server.claim(sweep=True)
    assert [job["id"] for job in again["jobs"]] == [fresh]
    due = await server.connection.fetch(
        "select id, extract(epoch from run_at - clock_now())::float from jobs where status = 'pending' order by run_at"
    )
    assert [tuple(row) for row in due] == [
        (id_, pytest.approx(delay, abs=0.5)) for id_, delay in zip(jobs, (10, 20, 30), strict=True)
    ]


async def test_a_snooze_or_a_failure_in_between_clears_a_job_of_killing(
    server: Calls, move_clock: MoveClock
) -> None:
    await server.insert()
    now = timedelta()
    for _ in range(2):
        job = await server.take(lease_seconds=5)
        now += timedelta(seconds=6)
        await move_clock(now)
        (job,) = (await server.claim(sweep=True))["jobs"]
        await server.end(job, "snooze", delay_seconds=0)


async def test_however_many_vanished_twice_they_are_back_within_five_minutes(
    server: Calls, move_clock: MoveClock
) -> None:
    await server.connection.execute("insert into payment_jobs (type) select 'a' from generate_series(1, 900)")
    for seconds in (6, 12):
        await server.claim(1000, lease_seconds=5, sweep=True)
        await move_clock(timedelta(seconds=seconds))
    await server.claim(0, sweep=True)
    last, apart = await server.connection.fetchrow(  # type: ignore[misc]
        "select max(extract(epoch from run_at - updated_at))::float,"
        " count(distinct run_at)::int from jobs where status = 'pending'"
    )
    assert (last, apart) == (pytest.approx(300, abs=0.1), 900)


async def test_a_vanished_workers_late_words_are_stale_whatever_they_are(
    server: Calls, move_clock: MoveClock
) -> None:
    for kind in ("retry", "completed"):
        await server.insert()
        job = await server.take(lease_seconds=5)
        await move_clock(timedelta(seconds=6))
        await server.claim(0, sweep=True)
        assert (await server.end(job, kind))["answer"] == "stale"
        await server.cancel(job["id"])
        await move_clock(timedelta())


async def test_a_cancelled_job_whose_worker_vanished_is_over(server: Calls, move_clock: MoveClock) -> None:
    made = await server.insert()
    await server.take(lease_seconds=5)
    await server.cancel(made)
    await move_clock(timedelta(seconds=6))

    assert (await server.claim(sweep=True))["lost"] == {"retried": 0, "dead": 0}
    assert (await server.row(made))["status"] == "cancelled"


async def test_a_sweep_ends_attempts_of_its_own_queue_only(server: Calls, move_clock: MoveClock) -> None:
    made = await server.insert(queue="broker")
    await server.take(queue="broker", lease_seconds=5)
    await move_clock(timedelta(seconds=6))
    await server.claim(sweep=True)
    assert (await server.row(made))["status"] == "running"
