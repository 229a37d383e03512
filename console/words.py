"""Times and numbers as a person says them, and how a person says them to us."""

import re
import shlex
from argparse import ArgumentTypeError
from datetime import UTC, datetime, timedelta
from uuid import UUID

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_SPAN = re.compile(r"(\d{1,6})([smhdw])")
_STEPS = ((86400 * 2, 86400, "d"), (3600 * 2, 3600, "h"), (60 * 2, 60, "min"))


def moment(text: object) -> datetime | None:
    """A time as the database wrote it."""
    return datetime.fromisoformat(text) if isinstance(text, str) else None


def span(length: timedelta) -> str:
    """How long, in the one unit that fits: "41 s", "3 min", "5 h", "12 d"."""
    seconds = max(length.total_seconds(), 0.0)
    for least, unit, name in _STEPS:
        if seconds >= least:
            return f"{int(seconds // unit)} {name}"
    return f"{seconds:.0f} s"


def since(then: datetime | None, now: datetime) -> str:
    """How long ago, or how soon."""
    if then is None:
        return "—"
    return f"in {span(then - now)}" if then > now else f"{span(now - then)} ago"


def when(then: datetime | None, now: datetime) -> str:
    """How long ago, and at which moment."""
    return "—" if then is None else f"{since(then, now)}, {then.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def number(count: int) -> str:
    """With a comma in each thousand."""
    return f"{count:,}"


def things(count: int, one: str, many: str | None = None) -> str:
    """So many: 1 job, 2 jobs."""
    return f"{number(count)} {one if count == 1 else many or one + 's'}"


def quoted(word: str) -> str:
    """A word as one types it into a shell."""
    return shlex.quote(word)


def a_span(text: str) -> timedelta:
    """The type of an argument such as 30s, 15m, 2h, 7d or 4w."""
    found = _SPAN.fullmatch(text.strip().lower())
    if found is None:
        raise ArgumentTypeError(f"{text!r} is no length of time, such as 30s, 15m, 2h, 7d or 4w")
    return timedelta(seconds=int(found[1]) * _UNITS[found[2]])


def a_user(text: str) -> str:
    """The type of an argument that is a user's id."""
    try:
        return str(UUID(text))
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is no user id (a UUID)") from None
