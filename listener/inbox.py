"""Puts deliveries of one moment into the queue with one call, so that each of a burst is answered as soon as one alone.

Nothing waits for company: a delivery that finds no call under way makes one at once. Those that come meanwhile go
together with the next call, which the first of them makes.

No delivery is lost to its payload: a provider may send it once only, so what the schema of its type refuses is inserted
all the same, and a worker makes a dead letter of it.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from listener.errors import StoreRefused, StoreUnavailable
from listener.jobs import Enqueued, NewJob
from listener.store import CHECK_VIOLATION, Store

MOST: Final = 100
"""Jobs in one call."""


class _Turn(Enum):
    LEAD = "make the next call, for all who wait"
    ALONE = "somebody's job was refused: make a call of your own"


@dataclass(slots=True, eq=False)
class _Place:
    job: NewJob
    told: asyncio.Future[Enqueued | _Turn] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Inbox:
    """One per door."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._calling = False
        self._waiting: deque[_Place] = deque()

    async def enqueue(self, job: NewJob) -> Enqueued:
        """The job's id. Raises as `Store.enqueue` does, for this job alone."""
        if self._calling:
            place = _Place(job)
            self._waiting.append(place)
            try:
                told = await place.told
            except asyncio.CancelledError:
                if place.told.done() and not place.told.cancelled() and place.told.result() is _Turn.LEAD:
                    self._hand_over()
                raise
            if isinstance(told, Enqueued):
                return told
            if told is _Turn.ALONE:
                return await self._alone(job)
        self._calling = True
        try:
            return await self._call(job)
        finally:
            self._hand_over()

    async def _call(self, job: NewJob) -> Enqueued:
        """One call, for this job and those who wait."""
        others = self._take()
        try:
            first, *rest = await self._store.enqueue([job, *(other.job for other in others)])
        except StoreRefused as refusal:
            if not others:
                return await self._in_any_case(job, refusal)
            self._tell(others, [_Turn.ALONE] * len(others))
            return await self._alone(job)
        except StoreUnavailable as error:
            for other in others:
                if not other.told.done():
                    other.told.set_exception(StoreUnavailable(str(error)))
            raise
        except BaseException:  # this request was ended, or broke: the others must not wait for ever
            self._tell(others, [_Turn.ALONE] * len(others))
            raise
        self._tell(others, rest)
        return first

    async def _alone(self, job: NewJob) -> Enqueued:
        try:
            (alone,) = await self._store.enqueue([job])
        except StoreRefused as refusal:
            return await self._in_any_case(job, refusal)
        return alone

    async def _in_any_case(self, job: NewJob, refusal: StoreRefused) -> Enqueued:
        if refusal.code != CHECK_VIOLATION:
            raise refusal
        return await self._store.enqueue_delivery(job)

    def _take(self) -> list[_Place]:
        taken = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST - 1))]
        return [place for place in taken if not place.told.done()]

    def _tell(self, places: list[_Place], answers: Sequence[Enqueued | _Turn]) -> None:
        for place, answer in zip(places, answers, strict=True):
            if not place.told.done():
                place.told.set_result(answer)

    def _hand_over(self) -> None:
        while self._waiting:
            place = self._waiting.popleft()
            if not place.told.done():
                place.told.set_result(_Turn.LEAD)
                return  # still calling: the one that was told goes on
        self._calling = False
