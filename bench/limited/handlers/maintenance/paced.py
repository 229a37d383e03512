"""So many starts in a stretch of time, of each user."""

from bench.noting import Notes, Work
from listener import Job, Queue, handler


@handler(Queue.MAINTENANCE)
async def paced(work: Work, *, job: Job, notes: Notes) -> None:
    """Works and notes it."""
    await notes.of(job, work)
