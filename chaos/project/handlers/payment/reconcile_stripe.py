"""A periodic job: the schedulers of all workers insert one row per slot."""

from datetime import timedelta

from listener import Payload, Queue, every, handler


@every(timedelta(days=1))
@handler(Queue.PAYMENT)
async def reconcile_stripe(_: Payload) -> None:
    """Returns."""
