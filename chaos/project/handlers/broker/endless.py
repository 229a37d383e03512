"""Never ends by itself: somebody has to cancel it."""

import asyncio

from listener import Payload, Queue, handler


@handler(Queue.BROKER)
async def endless(_: Payload) -> None:
    """Waits for its cancellation."""
    await asyncio.Event().wait()
