"""A periodic job: the schedulers of all workers insert one row per slot."""

from listener import Payload, Queue, handler


@handler(Queue.ALERTS)
async def aggregate(_: Payload) -> None:
    """Returns."""
