"""`pulse cancel`: stops jobs for good."""

from argparse import ArgumentParser, Namespace
from typing import cast

from console.asking import operator
from console.command import DONE, NOT_DONE, Command, Group, positive
from console.screen import Screen


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("ids", metavar="JOB", type=positive, nargs="+", help="ids of jobs")


async def _run(arguments: Namespace, screen: Screen) -> int:
    async with operator("pulse-cancel") as store:
        said = cast("dict[str, list[int]]", await store.ask("cancel", {"job_ids": arguments.ids}))
    screen.answer(said)
    for id_ in said["cancelled"]:
        screen.done(f"job {id_} is cancelled")
    for id_ in said["asked"]:
        screen.done(f"job {id_} runs, and was asked to stop: its worker hears of it with its next heartbeat")
    for id_ in said["unchanged"]:
        screen.problem(f"job {id_}: it has ended before, or there is none of that id")
    return NOT_DONE if said["unchanged"] else DONE


COMMAND = Command(
    "cancel",
    Group.ACT,
    "Cancel jobs: pending ones at once, running ones are asked to stop.",
    _run,
    _arguments,
    "pulse cancel 123 124",
)
