"""`pulse enqueue`: inserts one job."""

from argparse import ArgumentParser, Namespace
from typing import cast

from console.command import DONE, Command, Group
from console.enqueueing import queue_of, read_data
from console.screen import Screen
from listener.config import process_environment, read_config
from listener.jobs import NewJob
from listener.producer import enqueue_once
from listener.store import connected


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("type", metavar="TYPE", help="the type of job, for example prune")
    parser.add_argument(
        "data", metavar="JSON", nargs="?", default="{}", help="the job's data (default: {}; -: from stdin)"
    )
    parser.add_argument("--queue", help="needed for types that are not the platform's own")
    parser.add_argument("--key", help="idempotency key: a second job with the same key is the first one")


async def _run(arguments: Namespace, screen: Screen) -> int:
    config = read_config(process_environment())
    queue = queue_of(arguments)
    data = await read_data(arguments.data)
    job = NewJob(queue, arguments.type, cast("dict[str, object]", data), idempotency_key=arguments.key)
    async with connected(config.supabase_url, config.key, "pulse-enqueue", apikey=config.apikey) as store:
        enqueued = await enqueue_once(store, job)
    screen.say(str(enqueued.id))
    screen.answer({"id": enqueued.id, "created": enqueued.created})
    return DONE


COMMAND = Command(
    "enqueue",
    Group.ACT,
    "Insert one job and print its id.",
    _run,
    _arguments,
    """
    pulse enqueue prune
    pulse enqueue prune '{"completed_days": 3}' --key monday
    pulse enqueue report - --queue reports < report.json
    """,
)
