"""Knows at once that no retry can help."""

from listener import Payload, Queue, Reject, handler


@handler(Queue.PAYMENT)
async def rejected(_: Payload) -> None:
    """Rejects its job."""
    raise Reject("nobody can help")
