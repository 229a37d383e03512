"""Leases are kept in one call for all, and a running attempt hears what became of its job."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from devstack.gateway import Gateway
from listener.attempt import Stop
from listener.config import Tempo
from listener.events import AttemptsLost, AttemptStopped, Available, Unavailable
from listener.heartbeat import keep_leases
from listener.jobs import WokenBy
from tests.listener.working import QUICK, Connection, Gate, MoveClock, Shop, row, runs, working
from tests.waiting import until

BEATING = Tempo(
    lease=timedelta(seconds=0.15), sweep=QUICK.sweep, grace=QUICK.grace, reconnect=timedelta(seconds=0.02)
)
"""A heartbeat every 50 ms. That leases this short do run out harms nobody: only sweeps look, and none is due."""


@asynccontextmanager
async def beating(*shops: Shop, tempo: Tempo = BEATING) -> AsyncIterator[None]:
    """Keeps the leases of these workers."""
    task = asyncio.create_task(
        keep_leases([shop.worker for shop in shops], shops[0].store, tempo, shops[0].told)
    )
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_cancel_asked_of_a_running_job(gateway: Gateway, owner: Connection) -> None:
    gate = Gate()
    async with working(gateway, runs(gate.gated)) as shop, beating(shop):
        id_ = await shop.job("gated")
        await until("the handler waits", lambda: gate.inside == 1)
        await owner.fetchval("select cancel(array[$1::bigint])", id_)
        await shop.finishes(1)
    assert gate.stopped == 1
    assert [event.why for event in shop.told.of(AttemptStopped)] == [Stop.CANCEL]
    assert (await row(owner, id_))["status"] == "cancelled"


async def test_a_lost_lease_stops_the_attempt_and_the_other_worker_owns_the_job(
    gateway: Gateway, owner: Connection, move_clock: MoveClock
) -> None:
    gate, other = Gate(), Gate()
    async with (
        working(gateway, runs(gate.gated), worker_id="slow") as slow,
        working(gateway, runs(other.gated), worker_id="other") as fast,
    ):
        fast.worker._types = []  # not yet
        id_ = await slow.job("gated")
        await until("the handler waits", lambda: gate.inside == 1)
        fast.worker._types = ["gated"]
        await move_clock(timedelta(seconds=61))
        fast.bell.ring(WokenBy.JOINED)
        await until("the sweep tells", lambda: bool(fast.told.of(AttemptsLost)))
        await until("the other runs it", lambda: other.inside == 1)
        async with beating(slow):
            await until("the attempt is stopped", lambda: gate.stopped == 1)
        assert [event.why for event in slow.told.of(AttemptStopped)] == [Stop.LOST]
        other.open.set()
        await fast.finishes(1)
    assert not slow.finished
    job = await row(owner, id_)
    assert (job["status"], job["attempt"], job["worker_id"]) == ("completed", 2, "other")


async def test_leases_are_kept_while_handlers_run_and_outcomes_wait(
    gateway: Gateway, owner: Connection
) -> None:
    gate = Gate()
    async with working(gateway, runs(gate.gated)) as shop:
        id_ = await shop.job("gated")
        await until("the handler waits", lambda: gate.inside == 1)
        claimed_until = (await row(owner, id_))["lease_expires_at"]

        async def renewed() -> bool:
            return bool((await row(owner, id_))["lease_expires_at"] != claimed_until)

        async with beating(shop):
            await until("the lease is renewed", renewed)


async def test_an_unanswered_beat_is_told_and_repeated(gateway: Gateway, owner: Connection) -> None:
    gate = Gate()
    async with working(gateway, runs(gate.gated)) as shop:
        id_ = await shop.job("gated")
        await until("the handler waits", lambda: gate.inside == 1)
        claimed_until = (await row(owner, id_))["lease_expires_at"]
        gateway.faults.rest.plan("status", "heartbeat", times=2)

        async def renewed() -> bool:
            return bool((await row(owner, id_))["lease_expires_at"] != claimed_until)

        async with beating(shop):
            await until("the lease is renewed", renewed)
            await until("that is told", lambda: bool(shop.told.of(Available)))
        gate.open.set()
        await shop.finishes(1)
    assert [event.call for event in shop.told.of(Unavailable)] == ["leases"] * 2
    assert [event.call for event in shop.told.of(Available)] == ["leases"]


async def test_all_queues_of_a_process_share_a_beat(gateway: Gateway) -> None:
    gate = Gate()
    async with (
        working(gateway, runs(gate.gated)) as one,
        working(gateway, runs(gate.gated, queue="alerts"), queue="alerts") as two,
    ):
        await one.enqueue("gated", count=2)
        await two.enqueue("gated", count=2)
        await until("all four run", lambda: gate.inside == 4)
        calls = one.store.calls + two.store.calls
        async with beating(one, two):
            await until("a beat is sent", lambda: one.store.calls + two.store.calls > calls)
            assert one.store.calls + two.store.calls == calls + 1
        assert not one.told.of(AttemptStopped)
        gate.open.set()
        await one.finishes(2)
        await two.finishes(2)


async def test_idle_workers_send_no_beats(gateway: Gateway) -> None:
    async with working(gateway) as shop:
        await shop.has_looked()
        calls = shop.store.calls
        swift = Tempo(lease=timedelta(milliseconds=3), reconnect=timedelta(milliseconds=1))
        async with beating(shop, tempo=swift):
            for _ in range(10):
                shop.bell.ring(WokenBy.REALTIME)
                before = shop.store.calls
                await until("it looked", lambda before=before: shop.store.calls > before)  # type: ignore[misc]
        assert shop.store.calls == calls + 10
