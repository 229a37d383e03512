"""A job as the words of a command line name it: which queue, which data."""

import asyncio
import sys
from argparse import Namespace

from listener.errors import ConfigError
from listener.jobs import QUEUE_OF
from listener.producer import read_json


def queue_of(arguments: Namespace) -> str:
    """The one that was named, or the one in which the platform's own types live."""
    queue: str | None = arguments.queue or QUEUE_OF.get(arguments.type)
    if queue is None:
        raise ConfigError([f"Which queue is {arguments.type!r} for? Name it with --queue."])
    return queue


async def read_data(text: str) -> object:
    """Its JSON. What stands on a command line can be read by everybody on the machine, so "-" reads stdin."""
    try:
        return read_json(await asyncio.to_thread(sys.stdin.read) if text == "-" else text)
    except ValueError as error:
        raise ConfigError([f"The data is no JSON: {error}"]) from error
