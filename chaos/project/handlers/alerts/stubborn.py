"""Goes on for a while when it is told to stop."""

import asyncio
from contextlib import suppress

from listener import Payload, Queue, handler


@handler(Queue.ALERTS)
async def stubborn(_: Payload) -> None:
    """Works for three seconds and three more, whoever wants it to stop."""
    for _part in range(2):
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(3)
