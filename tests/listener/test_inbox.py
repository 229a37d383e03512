"""Deliveries of one moment go in together, each is answered with its own job, and none suffers for another."""

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest

from listener.errors import StoreRefused, StoreUnavailable
from listener.inbox import MOST, Inbox
from listener.jobs import Enqueued, NewJob
from listener.store import Store


class SlowStore:
    """Answers each call when it is let go; refuses jobs of the type `bad`, and fails while `down`."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.go = asyncio.Event()
        self.down = False

    async def enqueue(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
        self.calls.append([job.type for job in jobs])
        await self.go.wait()
        if self.down:
            raise StoreUnavailable("away")
        if any(job.type == "bad" for job in jobs):
            raise StoreRefused(400, "P0001", "bad does not fit")
        return [Enqueued(int(job.type), created=True) for job in jobs]


@pytest.fixture
def store() -> SlowStore:
    return SlowStore()


@pytest.fixture
def inbox(store: SlowStore) -> Inbox:
    return Inbox(cast("Store", store))


def deliver(inbox: Inbox, *types: str) -> list[asyncio.Task[Enqueued]]:
    return [asyncio.create_task(inbox.enqueue(NewJob("payment", type_))) for type_ in types]


async def settled(tasks: list[asyncio.Task[Enqueued]]) -> list[object]:
    return [
        one.id if isinstance(one, Enqueued) else type(one)
        for one in await asyncio.gather(*tasks, return_exceptions=True)
    ]


async def test_those_that_come_during_a_call_go_together_with_the_next(
    store: SlowStore, inbox: Inbox
) -> None:
    tasks = deliver(inbox, "1", "2", "3")
    await asyncio.sleep(0)
    store.go.set()
    assert await settled(tasks) == [1, 2, 3]
    assert store.calls == [["1"], ["2", "3"]]
    assert await settled(deliver(inbox, "4")) == [4]


async def test_a_burst_is_cut_into_calls_of_a_bearable_size(store: SlowStore, inbox: Inbox) -> None:
    numbers = [str(number) for number in range(2 * MOST + 50)]
    tasks = deliver(inbox, *numbers)
    await asyncio.sleep(0)
    store.go.set()
    assert await settled(tasks) == [int(number) for number in numbers]
    assert [len(call) for call in store.calls] == [1, MOST, MOST, 49]


async def test_one_that_is_refused_is_refused_alone(store: SlowStore, inbox: Inbox) -> None:
    tasks = deliver(inbox, "1", "2", "bad", "3")
    await asyncio.sleep(0)
    store.go.set()
    assert await settled(tasks) == [1, 2, StoreRefused, 3]
    assert await settled(deliver(inbox, "4")) == [4]


async def test_all_of_a_call_without_an_answer_hear_so(store: SlowStore, inbox: Inbox) -> None:
    store.down = True
    tasks = deliver(inbox, "1", "2", "3")
    await asyncio.sleep(0)
    store.go.set()
    assert await settled(tasks) == [StoreUnavailable] * 3
    store.down = False
    assert await settled(deliver(inbox, "4")) == [4]


@pytest.mark.parametrize("gone", [0, 1, 2])
async def test_a_request_that_is_ended_holds_up_no_other(store: SlowStore, inbox: Inbox, gone: int) -> None:
    tasks = deliver(inbox, "1", "2", "3")
    await asyncio.sleep(0)
    tasks[gone].cancel()
    await asyncio.sleep(0)
    store.go.set()
    expected: list[object] = [1, 2, 3]
    expected[gone] = asyncio.CancelledError
    assert await settled(tasks) == expected
    assert await settled(deliver(inbox, "4")) == [4]


async def test_one_that_is_ended_just_as_its_turn_comes_hands_it_on(store: SlowStore, inbox: Inbox) -> None:
    tasks = deliver(inbox, "1", "2", "3")
    await asyncio.sleep(0)
    tasks[0].add_done_callback(lambda _: tasks[1].cancel())
    store.go.set()
    assert (await settled(tasks))[2] == 3
    assert await settled(deliver(inbox, "4")) == [4]
