"""`pulse resume`: takes a pause back."""

from argparse import ArgumentParser, Namespace
from typing import cast

from console.asking import operator
from console.command import DONE, NOT_DONE, Command, Group
from console.screen import Screen


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("queue", metavar="QUEUE", help="which queue")
    parser.add_argument("--type", help="the pause of this type; that of the whole queue is another")


async def _run(arguments: Namespace, screen: Screen) -> int:
    asked = {"queue": arguments.queue, "type": arguments.type}
    async with operator("pulse-resume") as store:
        said = cast("dict[str, bool]", await store.ask("resume_jobs", asked))
    screen.answer(said)
    what = f"{arguments.type} of {arguments.queue}" if arguments.type else arguments.queue
    if said["resumed"]:
        screen.done(f"{what} goes on: workers come back to it with their next sweep, within seconds")
        return DONE
    screen.problem(f"{what} was not paused; `pulse limits` tells what is")
    return NOT_DONE


COMMAND = Command(
    "resume",
    Group.ACT,
    "Let a paused queue, or type, go on.",
    _run,
    _arguments,
    """
    pulse resume broker
    pulse resume alerts --type push
    """,
)
