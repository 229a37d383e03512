"""An alert as a mail: its subject, its plain text and its HTML, for one reader."""

from datetime import datetime
from typing import Final

from babel.dates import format_datetime

from handlers.clients.alerts.alert_words import MARKS, facts_of, link_of, locale_of, zone_of
from handlers.clients.alerts.delivery import Alert, Reader
from handlers.clients.alerts.mail_frame import Block, Facts, Letter, Link, Paragraph
from handlers.clients.alerts.plain_words import one_line

AGAIN: Final = Paragraph("You may have had this mail before: the first copy was not confirmed.")
_LONGEST_LINK: Final = 10_000
_MOST_FACTS: Final = 12


def alert_letter(
    alert: Alert, reader: Reader, *, app_url: str | None, unsubscribe_url: str | None, is_resend: bool
) -> tuple[str, Letter]:
    """The subject and what the mail shows."""
    mark, colour = MARKS[alert.severity]
    url = link_of(alert, _LONGEST_LINK)
    link = Link("Open", url) if url is not None else None
    if link is None and app_url is not None:
        link = Link("Open PulseEngine", app_url)
    blocks: list[Block] = [Paragraph(alert.message, (url,) if url is not None else ())]
    blocks.append(Facts([*facts_of(alert)[:_MOST_FACTS], ("Time", _moment(alert.created_at, reader))]))
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


def _moment(at: datetime, reader: Reader) -> str:
    """A moment where the reader lives, in the reader's way."""
    return format_datetime(at, "long", tzinfo=zone_of(reader), locale=locale_of(reader))
