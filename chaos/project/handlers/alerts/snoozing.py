"""Comes back later some times without failing."""

from datetime import timedelta

from listener import Job, Payload, Queue, Snooze, handler


class Snoozing(Payload):
    times: int


@handler(Queue.ALERTS)
async def snoozing(payload: Snoozing, *, job: Job) -> Snooze | None:
    """Snoozes on the first attempts."""
    return Snooze(timedelta(seconds=0.3), "not yet") if job.attempt <= payload.times else None
