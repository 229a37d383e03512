"""A periodic job: the schedulers of all workers insert one row per slot."""

from listener import Payload, Queue, handler


@handler(Queue.PAYMENT)
async def reconcile_stripe(_: Payload) -> None:
    """Returns."""
