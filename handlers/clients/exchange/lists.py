"""Reads a list of an exchange to its end, although the library does not say where that is.

Each exchange has its own largest page, its own idea of what it answers when nothing is asked for, and begins with the
newest or with the oldest. So a list that may be only a page is read on from its last time; when that brings nothing, it
was all, or it was the newest part: which of the two, nobody can tell, so it is no answer.
"""

from collections.abc import Awaitable, Callable, Sized
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from handlers.clients.broker.broker import OutcomeUnknown
from handlers.clients.exchange.ccxt import Words

PAGE: Final = 100
"""What is asked for where the library does not know the largest page."""
_MOST_PAGES: Final = 200

Read = Callable[[int | None, int | None], Awaitable[list[Words]]]
"""From a time on, in milliseconds, so many."""


@dataclass(frozen=True, slots=True)
class Pages:
    """What is known of a list. `largest`: of its pages. `ascends`: whether it surely begins with the oldest."""

    largest: int | None = None
    ascends: bool = False

    async def all(self, read: Read, since: datetime | None) -> list[Words]:
        """All from then on, or all."""
        begin = None if since is None else int(since.timestamp() * 1000)
        limit = self.largest or PAGE
        page = _by_id(await read(begin, None if begin is None else limit))
        if begin is None:
            if not _may_be_a_page(page):
                return list(page.values())
            page = _by_id(await read(1, limit))  # the newest may have come first
        found = dict(page)
        turns = 0
        while self._may_be_full(page):
            last = max(int(one["timestamp"] or 0) for one in page.values())
            page = _by_id(await read(last, limit))
            new = page.keys() - found.keys()
            if (not new and (not self.ascends or self._may_be_full(page))) or (
                turns := turns + 1
            ) > _MOST_PAGES:
                raise OutcomeUnknown("The exchange's list cannot be read to its end.")
            found |= page
        return list(found.values())

    def _may_be_full(self, page: Sized) -> bool:
        return _may_be_a_page(page) if self.largest is None else len(page) >= self.largest


def _may_be_a_page(found: Sized) -> bool:
    """Nobody's pages are smaller than twenty, or of a crooked number."""
    return len(found) >= 20 and len(found) % 5 == 0


def _by_id(page: list[Words]) -> dict[str, Words]:
    return {str(one["id"]): one for one in page}
