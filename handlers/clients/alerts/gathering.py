"""Lets what is sent in one moment leave as one request: many callers, few calls, and each caller gets its own outcome.

The jobs of one claim run side by side, and providers take many recipients in one request. Whoever calls `send` waits
for its own outcome and knows of nobody else:

    async with Gathering.open(post_all, most=1000) as gathering:   # beside the client, once per process
        told = await gathering.send(message)                       # in each job

    async def post_all(messages: Sequence[Message]) -> Sequence[Told]: ...   # one outcome each, in the same order

The first to come waits for company: until nobody else has come for a `linger`, and `longest` at most. Those who come
while all calls are under way go together with the next one. What becomes of it when something goes wrong:

    a caller is cancelled before its request left    its item stays behind: it was never sent
    a caller is cancelled afterwards                 the request goes on: others are in it, too
    `carry` raises                                   each caller in that request gets `NotCarried`, of its own, with
                                                     the error as its cause; other requests are untouched. A provider's
                                                     refusals are outcomes, not errors: one bad item is for `carry` to
                                                     tell from the good ones (halving)
    the block ends                                   what was begun is carried, then `send` is refused

Bounds: `most` items in a request and `at_once` requests under way. Nothing piles up behind them either, since each
caller is a job that waits, and a worker has a bounded number of them. How long a request may take, `carry` says.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Generic, TypeVar

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

LINGER: Final = timedelta(milliseconds=50)
"""Longer than the jobs of one claim lie apart when they reach their provider, shorter than anybody notices."""
LONGEST: Final = timedelta(seconds=1)
"""Jobs that keep coming do not keep the first of them waiting."""


class NotCarried(Exception):
    """The request that this item was in broke, or there will be none any more."""

    def __init__(self, message: str, *, was_sent: bool) -> None:
        super().__init__(message)
        self.was_sent = was_sent
        """False when it cannot have arrived; True when nobody but the provider knows."""


@dataclass(slots=True, eq=False)
class _Place(Generic[Item, Outcome]):
    item: Item
    told: asyncio.Future[Outcome]

    def breaks(self, message: str, *, was_sent: bool, cause: BaseException | None = None) -> None:
        """Ends the wait with an error of its own: one that many raise would gather the tracebacks of all."""
        if not self.told.done():
            error = NotCarried(message, was_sent=was_sent)
            error.__cause__ = cause
            self.told.set_exception(error)


class Gathering(Generic[Item, Outcome]):
    """One per client of a provider. Opened by `open`."""

    def __init__(
        self,
        carry: Callable[[Sequence[Item]], Awaitable[Sequence[Outcome]]],
        group: asyncio.TaskGroup,
        *,
        most: int,
        at_once: int,
        linger: timedelta,
        longest: timedelta,
    ) -> None:
        self._carry = carry
        self._group = group
        self._most = most
        self._at_once = at_once
        self._linger = linger.total_seconds()
        self._longest = longest.total_seconds()
        self._last_came = 0.0
        self._waiting: deque[_Place[Item, Outcome]] = deque()
        self._under_way = 0
        self._full: asyncio.Event | None = None
        """There while a request waits for company; set when no more go in."""
        self._closed = False
        # Requests belong to nobody in particular: their log lines do not bear the name of the job that came first.
        self._context = copy_context()

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        carry: Callable[[Sequence[Item]], Awaitable[Sequence[Outcome]]],
        *,
        most: int,
        at_once: int = 4,
        linger: timedelta = LINGER,
        longest: timedelta = LONGEST,
    ) -> "AsyncIterator[Gathering[Item, Outcome]]":
        """Carries until the block ends."""
        async with AsyncExitStack() as stack:
            group = asyncio.TaskGroup()
            gathering = cls(carry, group, most=most, at_once=at_once, linger=linger, longest=longest)
            stack.callback(gathering._give_up)  # after the group, when it was cancelled
            await stack.enter_async_context(group)
            stack.callback(gathering._close)
            yield gathering

    async def send(self, item: Item) -> Outcome:
        """The outcome of this item alone. Raises NotCarried."""
        if self._closed:
            raise NotCarried("This process is ending; nothing was sent.", was_sent=False)
        loop = asyncio.get_running_loop()
        place = _Place[Item, Outcome](item, loop.create_future())
        self._waiting.append(place)
        self._last_came = loop.time()
        if self._full is None:
            self._start(asyncio.Event())
        elif len(self._waiting) >= self._most:
            self._full.set()
        return await place.told

    def _start(self, full: asyncio.Event | None) -> None:
        """Begins a request, unless too many are under way: then the first that ends takes those who wait."""
        if self._under_way < self._at_once:
            self._under_way += 1
            self._full = full
            self._group.create_task(self._go(full), context=self._context)

    async def _go(self, full: asyncio.Event | None) -> None:
        """One request, and others after it as long as somebody waits and no other request waits for them."""
        try:
            if full is not None:
                await self._wait_for_company(full)
                self._full = None
            while self._full is None and (places := self._take()):
                if self._waiting:
                    self._start(None)
                await self._call(places)
        finally:
            self._under_way -= 1

    async def _wait_for_company(self, full: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + self._longest
        while (left := min(self._last_came + self._linger, end) - loop.time()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await full.wait()
                    return

    def _take(self) -> list[_Place[Item, Outcome]]:
        taken: list[_Place[Item, Outcome]] = []
        while self._waiting and len(taken) < self._most:
            place = self._waiting.popleft()
            if not place.told.done():  # else its caller has gone
                taken.append(place)
        return taken

    async def _call(self, places: Sequence[_Place[Item, Outcome]]) -> None:
        """Tells each its outcome. Raises no error: that would end the other requests too."""
        try:
            outcomes = await self._carry([place.item for place in places])
            told = list(zip(places, outcomes, strict=True))
        except BaseException as error:  # cancelled as well: nobody may wait for ever
            what = f"The request broke ({type(error).__name__}); it may have arrived."
            for place in places:
                place.breaks(what, was_sent=True, cause=error)
            if not isinstance(error, Exception):
                raise
            return
        for place, outcome in told:
            if not place.told.done():
                place.told.set_result(outcome)

    def _close(self) -> None:
        self._closed = True

    def _give_up(self) -> None:
        for place in self._waiting:
            place.breaks("This process is ending; nothing was sent.", was_sent=False)
