"""Fails whenever it is run, until it has no attempt left."""

from datetime import timedelta

from listener import Payload, Queue, handler


@handler(Queue.PAYMENT, backoff=lambda _: timedelta(seconds=0.3))
async def hopeless(_: Payload) -> None:
    """Raises."""
    raise ConnectionError("never")
