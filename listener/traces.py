"""Carries the trace that a piece of work belongs to, as W3C Trace Context words it, from one row to the next.

    00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01      version, trace, span, flags

It is a word and no more: nothing here measures or sends. What runs in an attempt, or for a request of the door, finds
it in its context; tasks and threads that it begins inherit it.
"""

import re
from contextvars import ContextVar

_FORM = re.compile("00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")

_current: ContextVar[str | None] = ContextVar("trace of the work at hand", default=None)


def carry(trace: str | None) -> None:
    """From now on the work in this context belongs to that trace; to none, if what is given is no trace."""
    _current.set(trace if trace is not None and _FORM.fullmatch(trace) else None)


def traceparent() -> str | None:
    """The trace of the work at hand: the header `traceparent` of whatever it asks others to do."""
    return _current.get()
