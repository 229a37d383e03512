"""What stands around a process of workers: its configuration, its log and its signals."""

import asyncio
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import FrameType

from listener.config import DOOR_TOKEN, Config, Tempo, process_environment, read_config
from listener.errors import ConfigError
from listener.metrics import tell_on
from listener.registry import Registry, load
from listener.service import Plan, Service
from listener.uncaught import for_loop, leave_without_threads, tell_by_place

_LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


def configured(queues: Sequence[str] | None, *, runs: bool, listens: bool) -> tuple[Config, Registry]:
    """Loads the handlers and reads the environment; every fault of both is in the one ConfigError."""
    problems: list[str] = []
    if queues is not None and not queues:  # an unset variable: such a process would run nothing and look well
        problems.append("--queues is empty: name at least one queue, or leave it out for all.")
    registry = Registry({}, (), ())
    try:
        registry = load(queues=queues)
    except ConfigError as error:
        problems += error.problems
    if runs and not problems and not registry.handlers:
        problems.append(
            "There is no handler: write one at handlers/<queue>/<type>.py, or go to the project's folder."
        )
    declared = [
        *(registry.handler_settings if runs else []),
        *(registry.webhook_settings if listens else []),
        DOOR_TOKEN,
    ]
    try:
        config = read_config(process_environment(), declared)
    except ConfigError as error:
        raise ConfigError([*problems, *error.problems]) from None
    if problems:
        raise ConfigError(problems)
    return config, registry


async def serve(
    config: Config, registry: Registry, plan: Plan, log_level: str, tempo: Tempo | None = None
) -> int:
    """Is one process of workers until it has drained."""
    if log_level not in _LOG_LEVELS:
        raise ConfigError(
            [f"The log level (--log-level, PULSE_LOG_LEVEL) is one of {', '.join(_LOG_LEVELS)}."]
        )
    service = Service(config, registry, plan, tempo=tempo)
    tell_on(sys.stdout, service.redactor, log_level)
    loop = asyncio.get_running_loop()
    loop.set_default_executor(threads := ThreadPoolExecutor())
    loop.set_exception_handler(for_loop(service.metrics))
    tell_by_place(service.metrics)
    logging.captureWarnings(capture=True)
    _on_signal(signal.SIGTERM, service.drain)
    _on_signal(signal.SIGINT, service.stop)
    # On a terminal it means that the terminal has gone; else it is how operators ask daemons to read again.
    _on_signal(signal.SIGHUP, service.drain if sys.stdin.isatty() else service.look_at_keys)
    await service.run()
    leave_without_threads(threads)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    return 0


def _on_signal(number: signal.Signals, act: Callable[[], None]) -> None:
    """For good, unlike the loop's own handlers: a further signal must not turn a good end into a death by signal.

    One that comes in the very instant in which the loop falls asleep is heard when it wakes, within a second
    (`stillness.py` asks it for a sign).
    """
    loop = asyncio.get_running_loop()

    def handle(_number: int, _frame: FrameType | None) -> None:
        with suppress(RuntimeError):  # the loop has closed: the end is near
            loop.call_soon_threadsafe(act)

    signal.signal(number, handle)


def door_port(wanted: int | None) -> tuple[int, bool]:
    """The door's port, and whether it must be that one; None leaves it to PORT."""
    given = process_environment().get("PORT", "") if wanted is None else str(wanted)
    if not given:
        return 8000, False
    if not given.isascii() or not given.isdigit() or int(given) > 65535:
        raise ConfigError(["The port of the door (--port, PORT) must be a number from 0 to 65535."])
    return int(given), True
