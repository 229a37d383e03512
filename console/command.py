"""What a command is: a file of this package with a `COMMAND`.

    def _arguments(parser: ArgumentParser) -> None:
        parser.add_argument("id", metavar="JOB", type=int, help="a job's id")

    async def _run(arguments: Namespace, screen: Screen) -> int:
        async with operator("pulse-why") as store:
            said = await store.ask("why", {"job_id": arguments.id})
        screen.answer(said)                     # with --json
        screen.say(…)                           # without
        return DONE

    COMMAND = Command("why", Group.LOOK, "Say why a job is not running.", _run, _arguments, "pulse why 123")

The file is called as the command (`worker_key.py` is `pulse worker-key`; a folder will do as well), and it is found by
that name: nothing else has to be told of it but the floors in pyproject.toml.
"""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum

from console.screen import Screen

DONE = 0
NOT_DONE = 1
"""It did not work, or something was found that a script should know of."""
WRONG_WORDS = 2
"""So did ConfigError: what was asked makes no sense, or the configuration does not."""


class WrongWords(Exception):
    """Raise it when the words are each fine and make no sense together; the text says what would."""


class Group(StrEnum):
    """The headings of `pulse --help`, in their order."""

    RUN = "Run"
    LOOK = "Look"
    ACT = "Act"
    SET_UP = "Set up"
    DEVELOP = "Develop"


def no_arguments(_: ArgumentParser) -> None:
    """For a command without words of its own."""


@dataclass(frozen=True, slots=True)
class Command:
    """One word after `pulse`."""

    name: str
    group: Group
    says: str
    """What it does, in one sentence: the line in `pulse --help`, and the first one of its own help."""
    run: Callable[[Namespace, Screen], Awaitable[int]]
    """Answers the exit code. ConfigError and other PulseErrors become a sentence on stderr and 2 or 1."""
    arguments: Callable[[ArgumentParser], None] = no_arguments
    examples: str = ""
    """Lines to be copied, for the end of its help; what follows two blanks and a # explains."""
    has_json: bool = True
    """Whether it takes --json, and then answers one JSON document on stdout and nothing else."""
    forwards: bool = False
    """All its words are for another program, --help too: they arrive as `words`."""


def names(text: str) -> list[str]:
    """The type of an argument that is a list with commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def positive(text: str) -> int:
    """The type of an argument that is a number from 1 on."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) < 2**63:
        raise ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)
