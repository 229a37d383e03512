"""One at a time, of each account in the data."""

from bench.noting import Notes, Work
from listener import Job, Queue, handler


@handler(Queue.MAINTENANCE)
async def of_account(work: Work, *, job: Job, notes: Notes) -> None:
    """Works and notes it."""
    await notes.of(job, work)
