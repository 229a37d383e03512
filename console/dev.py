"""`pulse dev`: the development stack."""

from argparse import Namespace

from console.becoming import become
from console.command import Command, Group
from console.screen import Screen


async def _run(arguments: Namespace, _: Screen) -> int:
    become("devstack", "The development stack", arguments.words)


COMMAND = Command(
    "dev",
    Group.DEVELOP,
    "The development stack, a Supabase on this machine: start, stop, reset, status …",
    _run,
    has_json=False,
    forwards=True,
)
