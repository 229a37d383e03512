"""Becomes a dead letter, and works when that is replayed."""

from listener import Job, Payload, Queue, Reject, handler


@handler(Queue.MAINTENANCE)
async def healed(_: Payload, *, job: Job) -> None:
    """Rejects its first attempt; a replay brings another one."""
    if job.attempt == 1:
        raise Reject("somebody has to put something right")
