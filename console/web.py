"""`pulse web`: the door alone, for processes that only receive."""

from argparse import Namespace

from console.command import Command, Group
from console.screen import Screen
from console.serving import door_arguments
from listener import process
from listener.service import Plan


async def _run(arguments: Namespace, _: Screen) -> int:
    config, registry = process.configured(None, runs=False, listens=True)
    port, exact = process.door_port(arguments.port)
    plan = Plan(queues=(), host=arguments.host, port=port, exact_port=exact, schedules=False)
    return await process.serve(config, registry, plan, arguments.log_level)


COMMAND = Command(
    "web",
    Group.RUN,
    "Open the door alone: webhooks and POST / insert jobs, other processes run them.",
    _run,
    door_arguments,
    "pulse web --host 0.0.0.0 --port $PORT",
    has_json=False,
)
