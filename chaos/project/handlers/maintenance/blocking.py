"""Blocks the whole process for longer than a lease, which no handler should."""

import os
import time

from listener import Job, Payload, Queue, handler


@handler(Queue.MAINTENANCE)
async def blocking(_: Payload, *, job: Job) -> None:
    """Blocks once."""
    if job.attempt == 1:
        time.sleep(float(os.environ["CHAOS_LEASE_SECONDS"]) * 1.2)  # noqa: ASYNC251 - what is forbidden is the point
