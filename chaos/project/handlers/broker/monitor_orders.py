"""A periodic job: the schedulers of all workers insert one row per slot."""

from datetime import timedelta

from listener import Payload, Queue, every, handler


@every(timedelta(minutes=5))
@handler(Queue.BROKER)
async def monitor_orders(_: Payload) -> None:
    """Returns."""
