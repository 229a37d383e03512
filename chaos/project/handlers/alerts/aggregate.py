"""A periodic job: the schedulers of all workers insert one row per slot."""

from datetime import timedelta

from listener import Payload, Queue, every, handler


@every(timedelta(minutes=15))
@handler(Queue.ALERTS)
async def aggregate(_: Payload) -> None:
    """Returns."""
