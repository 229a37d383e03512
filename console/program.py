"""Finds the command that was named, reads its words and runs it.

Exit codes: 0 done · 1 it did not work, or something was found · 2 wrong words or configuration · 130 after Ctrl-C.
"""

import argparse
import os
import pkgutil
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module, metadata
from typing import NoReturn

import console
from console.command import DONE, WRONG_WORDS, Command, Group, WrongWords
from console.screen import Colour, Screen, screen
from listener.ending import exit_code_of

_USAGE = "usage: pulse COMMAND [words]"
_ABOUT = "Background jobs of a Supabase project."
INTERRUPTED = 130
_HELP = {"-h", "--help", "help"}


def run(words: Sequence[str]) -> int:
    """Runs one command; answers its exit code. Wrong words leave by SystemExit(2), as everywhere in Python."""
    try:
        try:
            return _run(words)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        return _nobody_reads()
    except KeyboardInterrupt:  # before the command has begun: its own loop knows what to do
        return INTERRUPTED


def _run(words: Sequence[str]) -> int:
    if not words:
        _refuse("which command?")
    if words[0] in _HELP and len(words) > 1:
        words = [words[1], "--help"]
    if words[0] in _HELP:
        return _overview(screen())
    if words[0] == "--version":
        screen().say(f"pulse {metadata.version('pulseengine-workers')}")
        return 0
    command = _command(words[0])
    if command is None:
        near = get_close_matches(words[0], ["help", *(one.name for one in commands())], n=1)
        _refuse(f"there is no command {words[0]!r}" + (f"; did you mean {near[0]}?" if near else ""))
    if command.forwards:
        return _ran(command, argparse.Namespace(words=list(words[1:])))
    parser = _parser(command)
    given = list(words[1:])
    as_json = command.has_json and "--json" in given
    if as_json:  # wherever it stands, behind the words of a word too
        given.remove("--json")
    try:
        return _ran(command, parser.parse_args(given), as_json=as_json)
    except WrongWords as error:
        parser.error(str(error))


def commands() -> list[Command]:
    """All of them, sorted by name."""
    found = [_command(one.name) for one in pkgutil.iter_modules(console.__path__)]
    return sorted((one for one in found if one is not None), key=lambda one: one.name)


def _command(word: str) -> Command | None:
    """By its name, so that only its own file is loaded."""
    name = word.replace("-", "_")
    if not name.isidentifier() or name not in {one.name for one in pkgutil.iter_modules(console.__path__)}:
        return None
    if name == "__main__":
        return None
    found = getattr(import_module(f"console.{name}"), "COMMAND", None)
    return found if isinstance(found, Command) and word in {found.name, name} else None


def _ran(command: Command, arguments: argparse.Namespace, *, as_json: bool = False) -> int:
    on = screen(as_json=as_json)
    wrong: list[WrongWords] = []

    async def work() -> int:
        try:
            code = await command.run(arguments, on)
            on.close()
        except BrokenPipeError:
            return _nobody_reads()
        except WrongWords as error:
            wrong.append(error)
            return WRONG_WORDS
        finally:
            on.end_progress()
        return code

    code = exit_code_of(work)
    if wrong:
        raise wrong[0]
    return code


def _nobody_reads() -> int:
    """`pulse jobs | head` has seen enough: no failure, and nothing for Python to complain about at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return DONE


def _parser(command: Command) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"pulse {command.name}",
        description=command.says,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=_indented(command.examples) or None,
        allow_abbrev=False,
    )
    command.arguments(parser)
    if command.has_json:
        parser.add_argument("--json", action="store_true", help="answer one JSON document, for programs")
    return parser


def _indented(examples: str) -> str:
    lines = [line.strip() for line in examples.strip().splitlines()]
    return "\n".join(["examples:", *(f"  {line}" for line in lines)]) if examples.strip() else ""


def _overview(on: Screen) -> int:
    on.say(_USAGE)
    on.say()
    on.say(_ABOUT)
    known = commands()
    width = max(len(one.name) for one in known)
    for group in Group:
        on.say()
        on.say(group, Colour.BOLD)
        for one in known:
            if one.group is group:
                on.heading(one.name.ljust(width), one.says)
    on.say()
    on.say("pulse COMMAND --help tells more of each.")
    on.say("Exit codes: 0 done, 1 it did not work or something was found, 2 wrong words or configuration.")
    return 0


def _refuse(why: str) -> NoReturn:
    print(f"{_USAGE}\npulse: {why} (`pulse --help` lists them)", file=sys.stderr)
    sys.exit(WRONG_WORDS)
