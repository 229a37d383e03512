"""When to ask a broker again that said 429, by the headers of its answer."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

SHORTEST: Final = timedelta(seconds=1)
LONGEST: Final = timedelta(minutes=5)


def pause_of(headers: Mapping[str, str], otherwise: timedelta) -> timedelta:
    """What they say, within bounds; `otherwise` when they say nothing that can be read."""
    lower = {name.lower(): value.strip() for name, value in headers.items()}
    now = datetime.now(UTC)
    said = otherwise
    try:
        if word := lower.get("retry-after"):
            said = timedelta(seconds=int(word)) if word.isdecimal() else parsedate_to_datetime(word) - now
        elif word := lower.get("x-ratelimit-reset"):
            said = datetime.fromtimestamp(int(word), UTC) - now
    except (ValueError, TypeError, OverflowError, OSError):
        pass
    return min(max(said, SHORTEST), LONGEST)
