"""`pulse pause`: holds back a queue, or one type of it."""

from argparse import ArgumentParser, Namespace
from typing import cast

from console.asking import operator
from console.command import DONE, Command, Group
from console.screen import Screen
from console.words import quoted


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("queue", metavar="QUEUE", help="which queue")
    parser.add_argument("--type", help="this type only")
    parser.add_argument("--reason", default="", metavar="TEXT", help="for those who wonder why; no secrets")


async def _run(arguments: Namespace, screen: Screen) -> int:
    asked = {"queue": arguments.queue, "type": arguments.type, "reason": arguments.reason}
    async with operator("pulse-pause") as store:
        said = cast("dict[str, bool]", await store.ask("pause_jobs", asked))
    screen.answer(said)
    what = f"{arguments.type} of {arguments.queue}" if arguments.type else arguments.queue
    if said["paused"]:
        screen.done(f"{what} is paused: what runs goes on, and nothing new of it begins")
    else:
        screen.done(f"{what} was paused already, and stays so")
    again = f"pulse resume {quoted(arguments.queue)}"
    screen.hint(
        "  " + again + (f" --type {quoted(arguments.type)}" if arguments.type else "") + " takes it back"
    )
    return DONE


COMMAND = Command(
    "pause",
    Group.ACT,
    "Pause a queue, or one type of it: what runs goes on, nothing new of it begins.",
    _run,
    _arguments,
    """
    pulse pause broker --reason 'the broker is down'
    pulse pause alerts --type push
    pulse limits                                  # what is paused
    """,
)
