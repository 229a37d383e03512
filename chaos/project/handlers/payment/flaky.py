"""Fails some times, then works."""

from datetime import timedelta

from listener import Job, Payload, Queue, handler


class Flaky(Payload):
    times: int


@handler(Queue.PAYMENT, backoff=lambda _: timedelta(seconds=0.5))
async def flaky(payload: Flaky, *, job: Job) -> None:
    """Raises on the first attempts."""
    if job.attempt <= payload.times:
        raise ConnectionError("not yet")
