"""What every channel says of an alert in the same way: how severe it is, its one link, its facts, its reader's clock.

The link is `url` in the metadata: whoever made the alert wrote it there. So it is never a fact beside: shown as words
it would be broken, like every other address that nobody made a link of.
"""

from collections.abc import Mapping
from datetime import tzinfo
from typing import Final

from babel.core import Locale, UnknownLocaleError
from babel.dates import get_timezone

from handlers.clients.alerts.delivery import Alert, Reader, Severity
from handlers.clients.alerts.mail_frame import is_link

MARKS: Final[Mapping[Severity, tuple[str, str]]] = {
    "info": ("Notice", "#2563eb"),
    "warning": ("Warning", "#b45309"),
    "error": ("Error", "#dc2626"),
    "critical": ("Critical", "#991b1b"),
}
"""A word and a colour."""


def link_of(alert: Alert, longest: int) -> str | None:
    """The one link, unless it is none, or too long for the channel."""
    url = alert.metadata.get("url")
    return url if isinstance(url, str) and is_link(url) and len(url) <= longest else None


def facts_of(alert: Alert) -> list[tuple[str, str]]:
    """What the metadata says in one word each, not yet escaped; ids and hashes only to operators, whom they help."""
    return [
        (name.replace("_", " ").capitalize(), _value(value))
        for name, value in alert.metadata.items()
        if isinstance(value, str | int | float | bool)
        and name != "url"
        and not (alert.user_id is not None and name.endswith(("id", "Id", "_hash")))
        and str(value).strip()
    ]


def _value(value: str | float) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def zone_of(reader: Reader) -> tzinfo:
    """UTC when Babel knows no such zone."""
    try:
        return get_timezone(reader.timezone)
    except (LookupError, ValueError, OSError):
        return get_timezone("UTC")


def locale_of(reader: Reader) -> Locale:
    """American English when Babel knows no such locale."""
    try:
        return Locale.parse(reader.locale.replace("-", "_"))
    except (UnknownLocaleError, ValueError):
        return Locale.parse("en_US")
