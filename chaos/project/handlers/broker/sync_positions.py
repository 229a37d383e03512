"""A periodic job: the schedulers of all workers insert one row per slot."""

from datetime import timedelta

from listener import Payload, Queue, every, handler


@every(timedelta(hours=1))
@handler(Queue.BROKER)
async def sync_positions(_: Payload) -> None:
    """Returns."""
