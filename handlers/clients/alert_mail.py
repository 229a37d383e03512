"""An alert as a mail: its subject, its plain text and its HTML, for one reader."""

from collections.abc import Mapping
from datetime import datetime, tzinfo
from typing import Final

from babel.core import Locale, UnknownLocaleError
from babel.dates import format_datetime, get_timezone

from handlers.clients.delivery import Alert, Reader, Severity
from handlers.clients.mail_frame import Block, Facts, Letter, Link, Paragraph, is_link
from handlers.clients.plain_words import one_line

MARKS: Final[Mapping[Severity, tuple[str, str]]] = {
    "info": ("Notice", "#2563eb"),
    "warning": ("Warning", "#b45309"),
    "error": ("Error", "#dc2626"),
    "critical": ("Critical", "#991b1b"),
}
AGAIN: Final = Paragraph("You may have had this mail before: the first copy was not confirmed.")
_MOST_FACTS: Final = 12


def alert_letter(
    alert: Alert, reader: Reader, *, app_url: str | None, unsubscribe_url: str | None, is_resend: bool
) -> tuple[str, Letter]:
    """The subject and what the mail shows.

    The one link that an alert may bring along is `url` in its metadata: whoever made the alert wrote it there.
    """
    mark, colour = MARKS[alert.severity]
    url = str(alert.metadata.get("url") or "")
    link = Link("Open", url) if is_link(url) else None
    if link is None and app_url is not None:
        link = Link("Open PulseEngine", app_url)
    blocks: list[Block] = [Paragraph(alert.message, (url,) if is_link(url) else ())]
    blocks.append(Facts([*_facts(alert), ("Time", _moment(alert.created_at, reader))]))
    if is_resend:
        blocks.append(AGAIN)
    letter = Letter(
        title=alert.title,
        blocks=blocks,
        why=_why(alert),
        mark=mark,
        colour=colour,
        button=link,
        unsubscribe=None if unsubscribe_url is None else Link("Unsubscribe", unsubscribe_url),
    )
    title = one_line(alert.title, 140)
    return (f"{mark}: {title}" if alert.severity in ("error", "critical") else title), letter


def _why(alert: Alert) -> str:
    if alert.user_id is None:
        return "You get this because this address is told what the platform's operators have to know."
    return "You get this because alerts by e-mail are on in your PulseEngine account."


def _facts(alert: Alert) -> list[tuple[str, str]]:
    """What the metadata says in one word each; ids and addresses only to operators, whom they help."""
    found = [
        (name.replace("_", " ").capitalize(), _value(value))
        for name, value in alert.metadata.items()
        if isinstance(value, str | int | float | bool)
        and not (alert.user_id is not None and (name == "url" or name.endswith(("id", "Id", "_hash"))))
        and str(value).strip()
    ]
    return found[:_MOST_FACTS]


def _value(value: str | float) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def _moment(at: datetime, reader: Reader) -> str:
    """A moment where the reader lives, in the reader's way."""
    return format_datetime(at, "long", tzinfo=zone_of(reader), locale=locale_of(reader))


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
