"""One at a time, of all there are: a limit of 1."""

from bench.noting import Notes, Work
from listener import Job, Queue, handler


@handler(Queue.MAINTENANCE)
async def alone(work: Work, *, job: Job, notes: Notes) -> None:
    """Works and notes it."""
    await notes.of(job, work)
