"""`pulse chaos`: the crash lab."""

from argparse import Namespace

from console.becoming import become
from console.command import Command, Group
from console.screen import Screen


async def _run(arguments: Namespace, _: Screen) -> int:
    become("chaos", "The crash lab", arguments.words)


COMMAND = Command(
    "chaos",
    Group.DEVELOP,
    "The crash lab: a storm of faults over your own handlers.",
    _run,
    has_json=False,
    forwards=True,
)
