"""A periodic job: the schedulers of all workers insert one row per slot."""

from datetime import timedelta

from listener import Payload, Queue, every, handler


@every(timedelta(hours=1))
@handler(Queue.MAINTENANCE)
async def prune(_: Payload) -> None:
    """Returns."""
