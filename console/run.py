"""`pulse run`: one job in this process, with the real handler and its real resources, past the queue."""

import pdb  # noqa: T100 - it is asked for by --debugger
import sys
import traceback
from argparse import ArgumentParser, Namespace
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, redirect_stdout
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import cast
from uuid import UUID

from console.command import DONE, NOT_DONE, Command, Group
from console.document import document
from console.enqueueing import queue_of, read_data
from console.screen import Screen
from console.words import a_user
from listener.attempt import Attempt
from listener.config import process_environment, read_config
from listener.errors import ConfigError
from listener.events import Event, Swallowed
from listener.jobs import Job, WokenBy
from listener.outcomes import Cancel, Completed, Dead, Outcome, Retry, Snooze
from listener.redaction import Redactor
from listener.registry import Handler, Registry, load
from listener.resources import opened

_ENDLESS = timedelta(days=1)


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("type", metavar="TYPE", help="the type of job, for example prune")
    parser.add_argument(
        "data", metavar="JSON", nargs="?", default="{}", help="the job's data (default: {}; -: from stdin)"
    )
    parser.add_argument("--queue", help="needed for types that are not the platform's own")
    parser.add_argument("--user", type=a_user, metavar="UUID", help="the user whose job it is")
    parser.add_argument(
        "--debugger", action="store_true", help="when it fails, stop in Python's debugger where it did"
    )


async def _run(arguments: Namespace, screen: Screen) -> int:
    queue = queue_of(arguments)
    data = await read_data(arguments.data)
    if not isinstance(data, dict):
        raise ConfigError(["The data must be a JSON object, for example {}."])
    handler, registry = _found(queue, arguments.type)
    needed = [one for one in registry.resources if one.provides in handler.wants.values()]
    config = read_config(process_environment(), [setting for one in needed for setting in one.settings])
    if arguments.debugger:
        handler = replace(handler, run=_debugged(handler.run), timeout=_ENDLESS)
    now = datetime.now(UTC)
    job = Job(
        id=0,
        queue=queue,
        type=handler.type,
        data=cast("dict[str, object]", data),
        user_id=UUID(arguments.user) if arguments.user else None,
        priority=0,
        run_at=now,
        attempt=1,
        uncounted=0,
        max_attempts=1,
        created_at=now,
    )
    async with AsyncExitStack() as stack:
        if screen.as_json:  # what handlers print is no part of the document
            stack.enter_context(redirect_stdout(sys.stderr))
        resources = await stack.enter_async_context(opened(needed, config.settings))
        attempt = Attempt(
            job,
            handler,
            resources,
            woken_by=WokenBy.START,
            redactor=Redactor(config.secrets),
            emit=lambda event: _tell(event, screen),
        )
        outcome = await attempt.run()
    return _told(outcome, attempt.duration, screen)


def _found(queue: str, type_: str) -> tuple[Handler, Registry]:
    registry = load(queues=[queue])
    handler = registry.handlers.get((queue, type_))
    if handler is None:
        known = ", ".join(registry.types(queue))
        raise ConfigError([f"No handler here runs {type_!r} of the queue {queue!r}; it has {known}."])
    return handler, registry


def _debugged(run: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
    """Stops where it failed, before anything is cleaned away."""

    async def debugged(*arguments: object, **resources: object) -> object:
        try:
            return await run(*arguments, **resources)
        except Exception as error:
            traceback.print_exception(error, file=sys.stderr)
            pdb.post_mortem(error.__traceback__)
            raise

    return debugged


def _tell(event: Event, screen: Screen) -> None:
    if isinstance(event, Swallowed):
        screen.problem(f"{event.where}: {event.error}")


def _told(outcome: Outcome | None, took: timedelta, screen: Screen) -> int:
    """The outcome, which is recorded nowhere but here."""
    seconds = f"{took.total_seconds():.2f} s"
    words: dict[str, object] = {"outcome": outcome.kind if outcome else None, "seconds": took.total_seconds()}
    match outcome:
        case Completed(result):
            words["result"] = result
            screen.done(f"completed in {seconds}")
            if result is not None:
                screen.block(document(result))
        case Snooze(delay, reason):
            words |= {"delay_seconds": delay.total_seconds(), "reason": reason}
            screen.done(f"would be snoozed for {delay.total_seconds():g} s: {reason}")
        case Cancel(reason):
            words["reason"] = reason
            screen.done(f"would be cancelled: {reason}")
        case Retry(error) | Dead(error):
            words |= {"error_class": error.error_class, "error_message": error.message}
            screen.problem(f"failed after {seconds}: {error.error_class}: {error.message}")
            screen.problem_block(error.stack or "")
        case None:
            pass
    screen.answer(words)
    return NOT_DONE if isinstance(outcome, Retry | Dead) or outcome is None else DONE


COMMAND = Command(
    "run",
    Group.DEVELOP,
    "Run one job here and now, with its real handler and resources, past the queue.",
    _run,
    _arguments,
    """
    pulse run prune '{"completedDays": 3}'
    pulse run email - --debugger < job.json       # stop in the debugger where it fails
    There is no row: nothing is retried or recorded but what the handler itself does, and that is real.
    """,
)
