"""A periodic job: the schedulers of all workers insert one row per slot."""

from listener import Payload, Queue, handler


@handler(Queue.BROKER)
async def monitor_orders(_: Payload) -> None:
    """Returns."""
