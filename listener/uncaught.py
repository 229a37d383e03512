"""What nobody caught is told by its class and its place, never by its text, which may quote a payload or a key.

Python and asyncio print such errors whole, to stderr or into the log: of a handler's own task or thread, of an object
that is thrown away, of the process itself.
"""

import asyncio
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from listener.errors import PulseError
from listener.events import Emit, Swallowed

PATIENCE_SECONDS = 1.0
"""How long idle threads may take to end."""


_BY_PYTHON = re.compile(r"(?:Thread|Dummy|ThreadPoolExecutor|asyncio)-\d+(?:_\d+)?")


def place_of(error: BaseException) -> str:
    """The class of an error and the line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"


def tell_by_place(emit: Emit) -> None:
    """From now on errors in threads and in thrown-away objects are told as Swallowed, in few words."""
    threading.excepthook = lambda met: _tell(emit, _named(met.thread), met.exc_value)
    sys.unraisablehook = lambda met: _tell(emit, "thrown-away object", met.exc_value)


def for_loop(emit: Emit) -> Callable[[asyncio.AbstractEventLoop, dict[str, object]], None]:
    """The same for tasks that nobody waits for: an exception handler for an event loop."""

    def handle(_loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        error = context.get("exception")
        _tell(emit, "task", error if isinstance(error, BaseException) else None)

    return handle


def last_words(error: BaseException) -> None:
    """Says on stderr where the process died, frame by frame, without what was said."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    name = type(error).__name__
    sys.stderr.write(
        f"{frames}✗ {name}: the process ends. The error's text is left out, since it may be secret.\n"
    )


def leave_without_threads(executor: ThreadPoolExecutor) -> None:
    """Ends the process with exit code 1 if threads of handlers go on: Python would wait for them for ever.

    Idle ones get a moment to end. The jobs of the others have been handed back, or their leases will run out: somebody
    else may be running them already.
    """
    executor.shutdown(wait=False, cancel_futures=True)
    patience = time.monotonic() + PATIENCE_SECONDS
    while running := [_named(one) for one in threading.enumerate() if _holds_up(one)]:
        if time.monotonic() > patience:
            break
        time.sleep(0.01)
    else:
        return
    sys.stderr.write(f"still running: {', '.join(running)}; the process leaves without them\n")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _holds_up(thread: threading.Thread) -> bool:
    return not thread.daemon and thread is not threading.main_thread()


def _named(thread: threading.Thread | None) -> str:
    """By the name that Python gave it; one that a handler gave may say for whom it works."""
    given = _BY_PYTHON.match(thread.name) if thread is not None else None
    return f"thread {given[0]}" if given else "a thread with a name of its own"


def _tell(emit: Emit, where: str, error: BaseException | None) -> None:
    emit(Swallowed(where, PulseError(place_of(error) if error is not None else "something went wrong")))
