"""A few at the same time, of all there are."""

from bench.noting import Notes, Work
from listener import Job, Queue, handler


@handler(Queue.MAINTENANCE)
async def together(work: Work, *, job: Job, notes: Notes) -> None:
    """Works and notes it."""
    await notes.of(job, work)
