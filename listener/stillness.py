"""Says when the event loop stands still: a handler that blocks it stops leases, signals and all other jobs in silence.

A thread asks the loop for a sign, again and again. When none comes for a while it tells so, and where the loop's thread
is: the file, the line and the function, no values. It can do no more: what blocks cannot be stopped from outside. A
library that holds on to Python itself while it blocks stops this thread too; then the lease is what helps.
"""

import asyncio
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType

from listener.events import Emit, LoopAnswered, StoodStill

_LIMIT_SECONDS = 5.0
_ROUND_SECONDS = 1.0


@contextmanager
def watched(emit: Emit) -> Iterator[None]:
    """Watches the running loop within the block."""
    over = threading.Event()
    words = (asyncio.get_running_loop(), threading.get_ident(), over, emit)
    thread = threading.Thread(target=_watch, args=words, name="stillness", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=_ROUND_SECONDS)


def _watch(loop: asyncio.AbstractEventLoop, whose: int, over: threading.Event, emit: Emit) -> None:
    while not over.is_set():
        sign = threading.Event()
        began, tell_at = time.monotonic(), _LIMIT_SECONDS
        try:
            loop.call_soon_threadsafe(_answer, began, sign, emit)
        except RuntimeError:  # it has closed
            return
        while not over.is_set() and not sign.wait(min(_ROUND_SECONDS, _LIMIT_SECONDS)):
            still = time.monotonic() - began
            if still >= tell_at:
                tell_at = still * 2
                emit(StoodStill(timedelta(seconds=still), _place(sys._current_frames().get(whose))))
        over.wait(_ROUND_SECONDS)


def _answer(asked_at: float, sign: threading.Event, emit: Emit) -> None:
    """On the loop."""
    sign.set()
    emit(LoopAnswered(timedelta(seconds=time.monotonic() - asked_at)))


def _place(frame: FrameType | None) -> str:
    """Where that is, and who of the handlers called it."""
    innermost = _line(frame) if frame is not None else "an unknown place"
    outer = frame
    while outer is not None and "/handlers/" not in outer.f_code.co_filename:
        outer = outer.f_back
    return innermost if outer is None or outer is frame else f"{innermost}, called at {_line(outer)}"


def _line(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
