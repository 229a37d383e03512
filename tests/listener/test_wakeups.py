"""A bell: no ring is lost, and a thousand cost one look."""

import asyncio

from listener.jobs import WokenBy
from listener.wakeups import Bell


async def test_a_ring_before_the_wait_is_kept() -> None:
    bell = Bell()
    bell.ring(WokenBy.REALTIME)
    assert await bell.wait(None) is WokenBy.REALTIME


async def test_many_rings_are_one() -> None:
    bell = Bell()
    for _ in range(1000):
        bell.ring(WokenBy.REALTIME)
    assert await bell.wait(None) is WokenBy.REALTIME
    assert await bell.wait(0) is None


async def test_the_first_reason_counts_and_free_gives_way() -> None:
    bell = Bell()
    for reason in (WokenBy.FREE, WokenBy.JOINED, WokenBy.REALTIME, WokenBy.FREE):
        bell.ring(reason)
    assert await bell.wait(None) is WokenBy.JOINED


async def test_a_ring_wakes_the_waiter() -> None:
    bell = Bell()
    waiter = asyncio.create_task(bell.wait(None))
    await asyncio.sleep(0)
    bell.ring(WokenBy.FREE)
    assert await waiter is WokenBy.FREE


async def test_silence_answers_none_and_loses_nothing() -> None:
    bell = Bell()
    assert await bell.wait(0) is None
    assert await bell.wait(0.001) is None
    bell.ring(WokenBy.REALTIME)
    assert await bell.wait(0) in {WokenBy.REALTIME, None}


async def test_a_cancelled_wait_takes_no_ring_with_it() -> None:
    bell = Bell()
    waiter = asyncio.create_task(bell.wait(None))
    await asyncio.sleep(0)
    bell.ring(WokenBy.REALTIME)
    waiter.cancel()
    await asyncio.wait({waiter})
    assert waiter.cancelled()
    assert await bell.wait(1) is WokenBy.REALTIME
