"""`pulse worker`: runs jobs until it is told to stop."""

from argparse import ArgumentParser, Namespace

from console.command import Command, Group, names
from console.screen import Screen
from console.serving import door_arguments
from listener import process
from listener.errors import ConfigError
from listener.service import Plan


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--queues", type=names, help="queue names, comma-separated (default: all with handlers)"
    )
    parser.add_argument(
        "--concurrency", type=int, default=50, metavar="N", help="jobs of a queue at once (default: 50)"
    )
    parser.add_argument(
        "--no-scheduler", action="store_true", help="leave the periodic jobs to other processes"
    )
    parser.add_argument("--no-door", action="store_true", help="do not open a door")
    door_arguments(parser)


async def _run(arguments: Namespace, _: Screen) -> int:
    listens = not arguments.no_door
    config, registry = process.configured(arguments.queues, runs=True, listens=listens)
    if not 1 <= arguments.concurrency <= 1000:
        raise ConfigError(["--concurrency must be from 1 to 1000."])
    port, exact = process.door_port(arguments.port)
    plan = Plan(
        queues=arguments.queues or registry.queues,
        places=arguments.concurrency,
        host=arguments.host,
        port=port if listens else None,
        exact_port=exact,
        schedules=not arguments.no_scheduler,
    )
    return await process.serve(config, registry, plan, arguments.log_level)


COMMAND = Command(
    "worker",
    Group.RUN,
    "Run the jobs of some or all queues until told to stop.",
    _run,
    _arguments,
    """
    pulse worker                                       # all queues that have handlers
    pulse worker --queues payment --concurrency 20
    """,
    has_json=False,
)
