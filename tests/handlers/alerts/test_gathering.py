"""Sends of one moment: few requests, an outcome for each caller, and nobody waits for ever."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from handlers.clients.alerts.gathering import Gathering, NotCarried
from tests.waiting import until

NO_TIME, LONG = timedelta(0), timedelta(minutes=5)


class Provider:
    """Takes requests; answers each when it is let."""

    def __init__(self, answer: Callable[[int], Any] = lambda number: -number) -> None:
        self.requests: list[list[int]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.under_way = self.most_under_way = 0
        self._answer = answer

    async def carry(self, numbers: Sequence[int]) -> Sequence[Any]:
        self.requests.append(list(numbers))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self.open.wait()
            return [self._answer(number) for number in numbers]
        finally:
            self.under_way -= 1


@asynccontextmanager
async def gathering_of(
    provider: Provider, most: int = 100, at_once: int = 4, linger: timedelta = NO_TIME
) -> AsyncIterator[Gathering[int, Any]]:
    async with Gathering[int, Any].open(
        provider.carry, most=most, at_once=at_once, linger=linger, longest=LONG
    ) as gathering:
        yield gathering


async def test_a_thousand_sends_of_one_moment_are_one_request_and_each_hears_its_own() -> None:
    provider = Provider()
    async with gathering_of(provider, most=1000, linger=LONG) as gathering:
        heard = await asyncio.gather(*(gathering.send(number) for number in range(1000)))
    assert heard == [-number for number in range(1000)]
    assert [len(one) for one in provider.requests] == [1000]


async def test_those_who_keep_coming_do_not_keep_the_first_waiting_for_ever() -> None:
    provider = Provider()
    async with (
        Gathering[int, Any].open(
            provider.carry, most=10**9, linger=timedelta(minutes=5), longest=timedelta(milliseconds=50)
        ) as gathering,
        asyncio.TaskGroup() as group,
    ):
        first = group.create_task(gathering.send(0))
        others: list[asyncio.Task[Any]] = []
        while not first.done():
            others.append(group.create_task(gathering.send(1)))
            await asyncio.sleep(0)
        assert first.result() == 0
    assert provider.requests[0][0] == 0


async def test_one_that_is_alone_leaves_alone() -> None:
    provider = Provider()
    async with gathering_of(provider) as gathering:
        assert await gathering.send(7) == -7
        assert await gathering.send(8) == -8
    assert provider.requests == [[7], [8]]


async def test_no_request_is_larger_and_no_more_are_under_way_than_agreed() -> None:
    provider = Provider()
    provider.open.clear()
    async with (
        gathering_of(provider, most=10, at_once=3, linger=LONG) as gathering,
        asyncio.TaskGroup() as group,
    ):
        sends = [group.create_task(gathering.send(number)) for number in range(95)]
        await until("three are under way", lambda: provider.under_way == 3)
        provider.open.set()
    assert [one.result() for one in sends] == [-number for number in range(95)]
    assert sorted(len(one) for one in provider.requests) == [5, *[10] * 9]
    assert provider.most_under_way == 3


async def test_those_who_come_while_all_are_under_way_go_together() -> None:
    provider = Provider()
    provider.open.clear()
    async with gathering_of(provider, at_once=1) as gathering, asyncio.TaskGroup() as group:
        group.create_task(gathering.send(1))
        await until("the first has left", lambda: provider.requests == [[1]])
        for number in range(2, 30):
            group.create_task(gathering.send(number))
            await asyncio.sleep(0)
        provider.open.set()
    assert provider.requests == [[1], list(range(2, 30))]


async def test_a_caller_that_is_cancelled_before_its_request_left_is_not_in_it() -> None:
    provider = Provider()
    provider.open.clear()
    async with gathering_of(provider, at_once=1) as gathering, asyncio.TaskGroup() as group:
        group.create_task(gathering.send(1))
        await until("the first has left", lambda: provider.requests == [[1]])
        gone, stays = (group.create_task(gathering.send(number)) for number in (2, 3))
        await asyncio.sleep(0)
        gone.cancel()
        provider.open.set()
        assert await stays == -3
    assert provider.requests == [[1], [3]]


async def test_a_caller_that_is_cancelled_later_does_not_take_the_others_with_it() -> None:
    provider = Provider()
    provider.open.clear()
    async with gathering_of(provider) as gathering, asyncio.TaskGroup() as group:
        sends = [group.create_task(gathering.send(number)) for number in range(3)]
        await until("they have left together", lambda: provider.requests == [[0, 1, 2]])
        sends[0].cancel()  # the one that came first and, in other designs, carries
        provider.open.set()
        assert [await sends[1], await sends[2]] == [-1, -2]


async def test_a_request_that_breaks_is_told_to_each_in_it_and_to_nobody_else() -> None:
    def answer(number: int) -> int:
        if number == 1:
            raise ZeroDivisionError
        return -number

    provider = Provider(answer)
    async with gathering_of(provider, most=3, at_once=1, linger=LONG) as gathering:
        heard = await asyncio.gather(*(gathering.send(number) for number in range(6)), return_exceptions=True)
    assert [type(one) for one in heard] == [NotCarried] * 3 + [int] * 3
    broken = [one for one in heard if isinstance(one, NotCarried)]
    assert len({id(one) for one in broken}) == 3
    assert all(one.was_sent and isinstance(one.__cause__, ZeroDivisionError) for one in broken)


async def test_outcomes_that_are_too_few_are_nobodys() -> None:
    async def carry(numbers: Sequence[int]) -> Sequence[int]:
        return numbers[1:]

    async with Gathering[int, int].open(carry, most=10, linger=NO_TIME) as gathering:
        heard = await asyncio.gather(*(gathering.send(n) for n in range(3)), return_exceptions=True)
    assert [type(one) for one in heard] == [NotCarried] * 3


async def test_what_was_begun_is_carried_to_its_end_and_then_nothing_is_taken() -> None:
    provider = Provider()
    provider.open.clear()
    async with asyncio.TaskGroup() as group:
        async with gathering_of(provider) as gathering:
            begun = group.create_task(gathering.send(1))
            await until("it has left", lambda: provider.requests == [[1]])
            group.create_task(_open_later(provider))
        assert await begun == -1
        with pytest.raises(NotCarried, match="nothing was sent") as refused:
            await gathering.send(2)
    assert not refused.value.was_sent
    assert provider.requests == [[1]]


async def _open_later(provider: Provider) -> None:
    await asyncio.sleep(0)
    provider.open.set()


async def test_when_the_process_is_cancelled_nobody_waits_for_ever() -> None:
    provider = Provider()
    provider.open.clear()
    here: asyncio.Future[Gathering[int, Any]] = asyncio.get_running_loop().create_future()

    async def process() -> None:
        async with gathering_of(provider, at_once=1) as gathering:
            here.set_result(gathering)
            await asyncio.Event().wait()

    running = asyncio.ensure_future(process())
    gathering = await here
    sends = [asyncio.ensure_future(gathering.send(1))]
    await until("the first has left", lambda: provider.requests == [[1]])
    sends.append(asyncio.ensure_future(gathering.send(2)))
    await asyncio.sleep(0)
    running.cancel()
    left, stayed = await asyncio.gather(*sends, return_exceptions=True)
    assert [type(one) for one in (left, stayed)] == [NotCarried] * 2
    assert [getattr(one, "was_sent", None) for one in (left, stayed)] == [True, False]
    assert running.cancelled()
