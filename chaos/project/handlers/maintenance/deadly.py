"""Kills its worker whenever it is run."""

import os
import signal

from listener import Payload, Queue, handler


@handler(Queue.MAINTENANCE)
async def deadly(_: Payload) -> None:
    """Kills the process that runs it."""
    os.kill(os.getpid(), signal.SIGKILL)
