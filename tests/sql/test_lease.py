"""While an attempt is live: renewed, asked to stop, or found dead."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

from tests.sql.calls import Calls

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


async def test_a_heartbeat_names_what_is_no_longer_the_workers(server: Calls, move_clock: MoveClock) -> None:
    for _ in range(3):
        await server.insert()
    done, lost, kept = (await server.claim(lease_seconds=5))["jobs"]
    await server.end(done)
    await server.heartbeat(kept, lease_seconds=60)
    await move_clock(timedelta(seconds=10))
    await server.claim(sweep=True)
    await move_clock(timedelta(seconds=16))
    again = await server.take()
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
    now = timedelta()
    for attempt, delay in ((1, 5), (2, 10)):
        assert (await server.take(lease_seconds=5))["attempt"] == attempt
        now += timedelta(seconds=6)
        await move_clock(now)
        swept = await server.claim(sweep=True)
        assert (swept["jobs"], swept["lost"]) == ([], {"retried": 1, "dead": 0})
        assert swept["next_in_seconds"] == delay
        now += timedelta(seconds=delay + 1)
        await move_clock(now)

    await server.take(lease_seconds=5, worker_id="w13")
    await move_clock(now + timedelta(seconds=6))
    assert (await server.claim(sweep=True))["lost"] == {"retried": 0, "dead": 1}

    letter = await server.connection.fetchrow("select * from failed_jobs")
    assert letter is not None
    assert (letter["job_id"], letter["attempts"], letter["error_class"]) == (made, 3, "WorkerVanished")
    assert letter["error_message"].startswith("worker w13 vanished")
    assert (await server.row(made))["status"] == "failed"


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
