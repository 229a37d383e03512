"""How a worker ends, and how one attempt is stopped while the others go on."""

import asyncio
from contextlib import suppress
from datetime import timedelta

from devstack.gateway import Gateway
from listener.attempt import Stop
from listener.events import Claimed, Event
from listener.jobs import NewJob, WokenBy
from listener.outcomes import Answer
from tests.listener.working import QUEUE, Anything, Connection, Gate, MoveClock, row, runs, working
from tests.waiting import until


async def test_what_runs_finishes_and_nothing_new_is_claimed(gateway: Gateway, owner: Connection) -> None:
    gate = Gate()
    async with working(gateway, runs(gate.gated), places=2) as shop:
        first, second, third = await shop.enqueue("gated", count=3)
        await shop.runs_jobs(2)
        shop.worker.drain()
        gate.open.set()
        await shop.drained()
        assert [(await row(owner, id_))["status"] for id_ in (first, second, third)] == [
            "completed",
            "completed",
            "pending",
        ]
        assert (await row(owner, third))["attempt"] == 0


async def test_a_stopped_attempt_is_handed_back_uncounted(gateway: Gateway, owner: Connection) -> None:
    gate = Gate()
    async with working(gateway, runs(gate.gated)) as shop:
        id_ = await shop.job("gated")
        await until("the handler waits", lambda: gate.inside == 1)
    assert gate.stopped == 1
    job = await row(owner, id_)
    assert (job["status"], job["attempt"], job["uncounted"]) == ("pending", 1, 1)
    assert job["run_at"] <= job["updated_at"]


async def test_an_attempt_that_has_not_begun_never_begins(gateway: Gateway, owner: Connection) -> None:
    gate = Gate()
    async with working(gateway, runs(gate.gated)) as shop:

        def stop_at_once(event: Event) -> None:
            """Claimed, but no handler has begun yet."""
            shop.told(event)
            if isinstance(event, Claimed):
                asyncio.get_running_loop().call_soon(shop.worker.stop_all, Stop.CANCEL)

        shop.worker._emit = stop_at_once
        id_ = await shop.job("gated")
        await shop.finishes(1)
    assert gate.inside == 0
    assert (await row(owner, id_))["status"] == "cancelled"


async def test_a_claim_under_way_when_the_drain_begins_is_handed_back(
    gateway: Gateway, owner: Connection
) -> None:
    gate = Gate()
    async with working(gateway, runs(gate.gated)) as shop:
        await shop.has_looked()
        (id_,) = [one.id for one in await shop.store.enqueue([NewJob(QUEUE, "gated")])]
        async with owner.transaction():
            await owner.execute("lock table maintenance_jobs in exclusive mode")
            calls = shop.store.calls
            shop.bell.ring(WokenBy.REALTIME)
            await until("the claim is sent", lambda: shop.store.calls > calls)
            shop.worker.drain()
        await shop.drained()
    assert gate.inside == 0
    job = await row(owner, id_)
    assert (job["status"], job["attempt"], job["uncounted"]) == ("pending", 1, 1)


async def test_a_handler_that_finishes_in_spite_of_the_stop_has_finished(
    gateway: Gateway, owner: Connection
) -> None:
    inside = asyncio.Event()

    async def stubborn(_payload: Anything) -> dict[str, object]:
        inside.set()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return {"sent": True}

    async with working(gateway, runs(stubborn)) as shop:
        id_ = await shop.job("stubborn")
        await inside.wait()
    assert tuple(await row(owner, id_))[2] == "completed"


async def test_a_stale_outcome_changes_nothing_and_is_told(
    gateway: Gateway, owner: Connection, move_clock: MoveClock
) -> None:
    gate = Gate()
    async with working(gateway, runs(gate.gated)) as shop:
        id_ = await shop.job("gated")
        await until("the handler waits", lambda: gate.inside == 1)
        await move_clock(timedelta(seconds=61))
        await owner.fetchval("select end_lost_attempts($1)", QUEUE)
        await owner.execute(
            "update jobs set run_at = run_at + interval '1 hour'"
        )  # or the worker takes it again
        gate.open.set()
        finished = await shop.finishes(1)
    assert finished.recorded.answer is Answer.STALE
    job = await row(owner, id_)
    assert (job["status"], job["attempt"], job["result"]) == ("pending", 1, None)
    assert await owner.fetchval("select kind from stale_outcomes where job_id = $1", id_) == "completed"
