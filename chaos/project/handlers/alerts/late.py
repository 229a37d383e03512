"""Outlives its time-out at the first attempt."""

import asyncio
from datetime import timedelta

from listener import Job, Payload, Queue, handler


@handler(Queue.ALERTS, timeout=timedelta(seconds=1), backoff=lambda _: timedelta(seconds=0.5))
async def late(_: Payload, *, job: Job) -> None:
    """Hangs once."""
    if job.attempt == 1:
        await asyncio.Event().wait()
