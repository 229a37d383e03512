"""Reads a list of an exchange to its end, although the library does not say where that is.

Each exchange has its own largest page, and its own idea of what it answers when nothing is asked for. So a list that is
as long as a page could be is read on from its last time; one that cannot be read on is no answer.
"""

from collections.abc import Awaitable, Callable, Sized
from datetime import datetime
from typing import Final

from handlers.clients.broker import OutcomeUnknown
from handlers.clients.exchange_ccxt import Words

PAGE: Final = 500
_MOST_PAGES: Final = 200

Read = Callable[[int | None, int | None], Awaitable[list[Words]]]
"""From a time on, in milliseconds, so many."""


async def read_on(read: Read, since: datetime | None) -> list[Words]:
    """All from then on, or all."""
    begin = None if since is None else int(since.timestamp() * 1000)
    found = {str(one["id"]): one for one in await read(begin, None if begin is None else PAGE)}
    if not _may_be_a_page(found):
        return list(found.values())
    if begin is None:  # the newest may have come first
        begin, found = 1, {}
    for _ in range(_MOST_PAGES):
        page = {str(one["id"]): one for one in await read(begin, PAGE)}
        new = page.keys() - found.keys()
        found |= page
        if not _may_be_a_page(page):
            return list(found.values())
        last = max(int(one["timestamp"] or 0) for one in page.values())
        if not new or last <= begin:
            break
        begin = last
    raise OutcomeUnknown("The exchange's list cannot be read to its end.")


def _may_be_a_page(found: Sized) -> bool:
    """Nobody's largest page is smaller, or a crooked number."""
    return len(found) >= 20 and len(found) % 5 == 0
