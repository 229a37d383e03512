"""One at a time of each account, and so many starts of each user."""

from bench.noting import Notes, Work
from listener import Job, Queue, handler


@handler(Queue.MAINTENANCE)
async def paced_account(work: Work, *, job: Job, notes: Notes) -> None:
    """Works and notes it."""
    await notes.of(job, work)
