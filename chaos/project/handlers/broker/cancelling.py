"""Finds that its work is not wanted any more."""

from listener import Cancel, Payload, Queue, handler


@handler(Queue.BROKER)
async def cancelling(_: Payload) -> Cancel:
    """Cancels its job."""
    return Cancel("no longer wanted")
