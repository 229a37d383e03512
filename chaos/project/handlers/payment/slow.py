"""Takes a while, so that faults meet it at work."""

import asyncio

from listener import Payload, Queue, handler


class Slow(Payload):
    seconds: float


@handler(Queue.PAYMENT)
async def slow(payload: Slow) -> dict[str, object]:
    """Waits, and has a result."""
    await asyncio.sleep(payload.seconds)
    return {"waited": payload.seconds}
