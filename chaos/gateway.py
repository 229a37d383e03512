"""A gateway process of the lab: `python -m chaos.gateway DSN PORT`. Each worker has its own, so that faults hit one.

It keeps production's pace and limits, and ends when its standard input does.
"""

import asyncio
import os
import sys
import threading

from devstack.gateway import Gateway


async def serve(dsn: str, port: int) -> None:
    """Says where it listens, and serves until it is killed."""
    async with Gateway(dsn, port=port, deliver_at_once=False) as gateway:
        print(gateway.url, flush=True)
        await asyncio.Event().wait()


def _end_with_the_lab() -> None:
    os.read(0, 1)  # not by way of sys.stdin, whose lock Python wants at its end
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_the_lab, daemon=True).start()
    asyncio.run(serve(sys.argv[1], int(sys.argv[2])))
