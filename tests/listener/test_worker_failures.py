"""What failed is tried again by the table, and becomes a dead letter when nothing is left to try."""

import asyncio
from datetime import timedelta

import pytest

from devstack.gateway import Gateway
from listener.errors import Reject, RetryAfter
from listener.jobs import Job, WokenBy
from listener.outcomes import Snooze
from tests.listener.working import Anything, Connection, MoveClock, Shop, dead_letters, row, runs, working
from tests.waiting import until


async def fail(_payload: Anything) -> None:
    raise RuntimeError("the provider is down")


async def look_at(shop: Shop, move_clock: MoveClock, seconds: float) -> None:
    await move_clock(timedelta(seconds=seconds))
    shop.bell.ring(WokenBy.REALTIME)


async def test_retries_after_5_10_and_15_seconds_then_a_dead_letter(
    gateway: Gateway, owner: Connection, move_clock: MoveClock
) -> None:
    keys: set[str] = set()

    async def failing(_payload: Anything, *, job: Job) -> None:
        keys.add(job.key)
        raise RuntimeError(f"attempt {job.attempt} failed")

    async with working(gateway, runs(failing)) as shop:
        id_ = await shop.job("failing", {"order": 12345})
        passed = 0.0
        for attempt, delay in enumerate([5, 10, 15], start=1):
            finished = await shop.finishes(attempt)
            assert finished.recorded.run_in == timedelta(seconds=delay)
            assert (await row(owner, id_))["last_error"] == f"RuntimeError: attempt {attempt} failed"
            # One second before it is due nothing happens: the only call of this look finds nothing.
            calls = shop.store.calls
            await look_at(shop, move_clock, passed + delay - 1)
            await until("it looked", lambda calls=calls: shop.store.calls > calls)  # type: ignore[misc]
            assert not shop.worker.running
            passed += delay + 0.1
            await look_at(shop, move_clock, passed)
        finished = await shop.finishes(4)
        assert finished.recorded.status == "failed"
        await look_at(shop, move_clock, 1000)
    assert len(shop.finished) == 4
    assert len(keys) == 1
    (letter,) = await dead_letters(owner)
    assert letter["id"] == finished.recorded.failed_job_id
    assert (letter["job_id"], letter["job_type"], letter["attempts"]) == (id_, "maintenance", 4)
    assert letter["job_data"] == '{"data": {"order": 12345}, "type": "failing"}'
    assert letter["error_message"] == "attempt 4 failed"
    assert "in failing" in letter["error_stack"]


async def test_a_policy_of_the_type_and_a_delay_of_the_provider(gateway: Gateway) -> None:
    async def throttled(_payload: Anything) -> None:
        raise RetryAfter(timedelta(minutes=7), "too many requests")

    slow = runs(fail, backoff=lambda failed: timedelta(hours=failed))
    async with working(gateway, slow, runs(throttled)) as shop:
        await shop.job("fail")
        assert (await shop.finishes(1)).recorded.run_in == timedelta(hours=1)
        await shop.job("throttled")
        assert (await shop.finishes(2)).recorded.run_in == timedelta(minutes=7)


async def test_reject_is_a_dead_letter_now(gateway: Gateway, owner: Connection) -> None:
    async def hopeless(_payload: Anything) -> None:
        raise Reject("there is no such account")

    async with working(gateway, runs(hopeless)) as shop:
        id_ = await shop.job("hopeless")
        assert (await shop.finishes(1)).recorded.status == "failed"
    (letter,) = await dead_letters(owner)
    assert (letter["job_id"], letter["attempts"], letter["error_class"]) == (id_, 1, "Reject")


async def test_snoozes_do_not_use_up_the_attempts(
    gateway: Gateway, owner: Connection, move_clock: MoveClock
) -> None:
    async def patient(_payload: Anything, *, job: Job) -> Snooze | None:
        if job.attempt < 6:
            return Snooze(timedelta(), "not yet")
        raise RuntimeError("now it fails")

    async with working(gateway, runs(patient)) as shop:
        id_ = await shop.job("patient", max_attempts=2)
        await until("it has failed once", lambda: len(shop.finished) == 6)
        assert (await shop.finishes(6)).recorded.run_in == timedelta(seconds=5)
        await look_at(shop, move_clock, 6)
        assert (await shop.finishes(7)).recorded.status == "failed"
    assert ((await row(owner, id_))["attempt"], (await dead_letters(owner))[0]["attempts"]) == (7, 2)


@pytest.mark.parametrize("error", [SystemExit(1), asyncio.CancelledError(), TimeoutError()], ids=repr)
async def test_a_handler_cannot_end_the_worker(gateway: Gateway, error: BaseException) -> None:
    async def rude(_payload: Anything) -> None:
        raise error

    async def polite(_payload: Anything) -> None:
        pass

    async with working(gateway, runs(rude), runs(polite)) as shop:
        await shop.job("rude")
        assert (await shop.finishes(1)).recorded.run_in == timedelta(seconds=5)
        await shop.job("polite")
        assert (await shop.finishes(2)).recorded.status == "completed"


@pytest.mark.parametrize("how", ["its own task", "from another task"])
async def test_a_handler_that_is_cancelled_by_its_own_doing_has_failed(
    gateway: Gateway, owner: Connection, how: str
) -> None:
    async def cancels(_payload: Anything) -> None:
        task = asyncio.current_task()
        assert task is not None
        if how == "its own task":
            task.cancel()
        else:
            asyncio.get_running_loop().call_soon(task.cancel)
        await asyncio.Event().wait()

    async def polite(_payload: Anything) -> None:
        pass

    async with working(gateway, runs(cancels), runs(polite)) as shop:
        id_ = await shop.job("cancels", max_attempts=1)
        assert (await shop.finishes(1)).recorded.status == "failed"
        await shop.job("polite")
        assert (await shop.finishes(2)).recorded.status == "completed"
    (letter,) = await dead_letters(owner)
    assert (letter["job_id"], letter["error_class"]) == (id_, "CancelledError")
    assert "cancelled its own task" in letter["error_message"]
    assert "in cancels" in letter["error_stack"]


async def test_a_time_out_is_a_failure_that_counts(gateway: Gateway, owner: Connection) -> None:
    async def endless(_payload: Anything) -> None:
        await asyncio.Event().wait()

    async with working(gateway, runs(endless, timeout=timedelta(milliseconds=30))) as shop:
        id_ = await shop.job("endless", max_attempts=1)
        assert (await shop.finishes(1)).recorded.status == "failed"
    (letter,) = await dead_letters(owner)
    assert (letter["job_id"], letter["error_class"]) == (id_, "TimedOut")


async def test_a_replayed_dead_letter_is_the_same_job_with_a_fresh_allowance(
    gateway: Gateway, owner: Connection
) -> None:
    keys: list[tuple[str, int]] = []

    async def fails_first(_payload: Anything, *, job: Job) -> None:
        keys.append((job.key, job.attempt))
        if job.attempt == 1:
            raise Reject("not yet")

    async with working(gateway, runs(fails_first)) as shop:
        id_ = await shop.job("fails_first")
        dead = (await shop.finishes(1)).recorded.failed_job_id
        assert dead is not None
        assert await shop.store.replay([dead]) == ({dead: id_}, [])
        assert await shop.store.replay([dead, 999]) == ({}, [dead, 999])
        shop.bell.ring(WokenBy.REALTIME)
        assert (await shop.finishes(2)).recorded.status == "completed"
    assert keys == [(keys[0][0], 1), (keys[0][0], 2)]


async def test_an_error_text_that_the_database_cannot_store_is_still_a_retry(
    gateway: Gateway, owner: Connection
) -> None:
    async def binary(_payload: Anything) -> None:
        raise RuntimeError("answer was \x00\x01 \ud800 bytes")

    async with working(gateway, runs(binary)) as shop:
        id_ = await shop.job("binary")
        assert (await shop.finishes(1)).recorded.run_in == timedelta(seconds=5)
    assert (await row(owner, id_))["last_error"].startswith("RuntimeError: answer was ")
