"""How a process of ours ends: what it says, and its exit code.

Exit codes: 0 done · 1 it did not work · 2 wrong configuration or command line.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import TypeVar, cast

from listener.config import process_environment, secrets_in
from listener.errors import ConfigError, PulseError
from listener.redaction import Redactor
from listener.uncaught import last_words

E = TypeVar("E", bound=BaseException)


def exit_code_of(work: Callable[[], Awaitable[int]]) -> int:
    """Runs the work of a process to its end, says what went wrong, and answers the exit code."""
    code = 1
    try:
        code = asyncio.run(_awaited(work))
    except* ConfigError as group:  # alone, or out of the TaskGroup of a process that was already starting
        code = 2
        _tell_problems(each for error in _errors(group) for each in error.problems)
    except* PulseError as group:
        _tell_problems(str(error) for error in _errors(group))
    except* KeyboardInterrupt:
        code = 130
    except* SystemExit:
        print("✗ something in a handler called sys.exit(); the process ends", file=sys.stderr)
    except* Exception as group:  # noqa: BLE001 - whatever it is, its text may quote a key
        for error in _errors(group):
            last_words(error)
    return code


def _tell_problems(problems: Iterable[str]) -> None:
    """On stderr, for a person. A server or a resource may have quoted a key."""
    redactor = Redactor(secrets_in(process_environment()))
    print("\n".join(f"✗ {redactor.text(problem)}" for problem in problems), file=sys.stderr)


def _errors(group: BaseExceptionGroup[E]) -> Iterator[E]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _errors(cast("BaseExceptionGroup[E]", error))
        else:
            yield error


async def _awaited(work: Callable[[], Awaitable[int]]) -> int:
    return await work()
