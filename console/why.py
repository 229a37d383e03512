"""`pulse why`: one sentence on why a job does not run, and what mends it."""

from argparse import ArgumentParser, Namespace
from typing import TypedDict, cast

from console.asking import operator
from console.command import DONE, NOT_DONE, Command, Group, positive
from console.screen import Colour, Screen


class _AboutJson(TypedDict):
    id: int
    queue: str
    type: str
    status: str


class _WhyJson(TypedDict):
    job: _AboutJson | None
    state: str
    sentence: str
    mend: str | None


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("id", metavar="JOB", type=positive, help="a job's id")


async def _run(arguments: Namespace, screen: Screen) -> int:
    async with operator("pulse-why") as store:
        said = cast("_WhyJson", await store.ask("why", {"job_id": arguments.id}))
    screen.answer(said)
    job, mend = said["job"], said["mend"]
    if job is not None:
        screen.say(f"{job['queue']} job {job['id']} {job['type']}: {job['status']}", Colour.BOLD)
    screen.say(said["sentence"])
    if mend is not None:
        kind = "mend" if mend.startswith("pulse ") else "mend, SQL for the owner of the database"
        screen.say(f"{kind}:", Colour.DIM)
        screen.block(mend)
    return NOT_DONE if job is None else DONE


COMMAND = Command(
    "why",
    Group.LOOK,
    "Say in one sentence why a job does not run, and what mends it.",
    _run,
    _arguments,
    """
    pulse why 4711
    pulse why 4711 --json  # with the one word for it, as `state`
    """,
)
