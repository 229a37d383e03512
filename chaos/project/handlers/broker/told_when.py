"""Is told by its provider when to come back, some times."""

from datetime import timedelta

from listener import Job, Payload, Queue, RetryAfter, handler


class ToldWhen(Payload):
    times: int


@handler(Queue.BROKER)
async def told_when(payload: ToldWhen, *, job: Job) -> None:
    """Comes back when it was told to."""
    if job.attempt <= payload.times:
        raise RetryAfter(timedelta(seconds=0.4), "too many requests")
