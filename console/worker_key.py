"""`pulse worker-key`: a key that may do no more than a worker does."""

from argparse import ArgumentParser, Namespace
from datetime import timedelta

from console.command import DONE, Command, Group
from console.screen import Screen
from listener.config import JWT_SECRET, process_environment
from listener.errors import ConfigError
from listener.keys import new_worker_key


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--days", type=int, default=365, metavar="N", help="how long it is good for (default: 365)"
    )


async def _run(arguments: Namespace, screen: Screen) -> int:
    environment = process_environment()
    problems = [JWT_SECRET.problem(environment)]
    if not 1 <= arguments.days <= 36500:
        problems.append("--days must be from 1 to 36500.")
    if found := [problem for problem in problems if problem]:
        raise ConfigError(found)
    key = new_worker_key(environment[JWT_SECRET.name], timedelta(days=arguments.days))
    screen.say(key)
    screen.answer({"key": key, "days": arguments.days})
    return DONE


COMMAND = Command(
    "worker-key",
    Group.SET_UP,
    "Print a key for workers, signed with the project's SUPABASE_JWT_SECRET.",
    _run,
    _arguments,
    "PULSE_WORKER_KEY=$(pulse worker-key --days 90)",
)
