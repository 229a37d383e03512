"""Does its work at once, as most jobs do."""

from listener import Payload, Queue, handler


@handler(Queue.PAYMENT)
async def quick(_: Payload) -> None:
    """Returns."""
