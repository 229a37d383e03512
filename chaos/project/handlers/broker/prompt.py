"""Does its work at once, in a queue of its own."""

from listener import Payload, Queue, handler


@handler(Queue.BROKER)
async def prompt(_: Payload) -> dict[str, object]:
    """Has a result."""
    return {"filled": True}
