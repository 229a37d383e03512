"""An alert, or a digest, as a notification on a device: short enough for every provider, and replaced by its own copy.

A copy of a delivery bears the same collapse keys, so that it takes the place of the first one instead of standing
beside it. Of a device that is off, Firebase keeps the notifications of four keys; whoever missed more finds all of them
in the app, where alerts are rows. What the app needs to find the alert goes along as data; the rest of it stays here:
a notification passes through the hands of Google and Apple.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Literal
from uuid import UUID

from handlers.clients.alerts.alert_words import MARKS, link_of
from handlers.clients.alerts.delivery import Alert, Sending
from handlers.clients.alerts.digest import DigestFacts, digest_title, total
from handlers.clients.alerts.plain_words import lines, one_line

MOST_BYTES: Final = 3_000
"""Of title, text and data, as JSON; Firebase and Apple take 4,096 bytes, with names and options."""
MOST_OF_TITLE: Final = 100
LONGEST_LINK: Final = 500
SHORTENED: Final = " … (shortened)"
GOOD_FOR: Final = timedelta(days=1)
"""A device that was off for longer is not told: news of yesterday."""


@dataclass(frozen=True, slots=True)
class PushMessage:
    """One notification for one device."""

    key: str
    """The collapse key: 32 hexadecimal digits, which fit everywhere."""
    kind: Literal["token", "fid"]
    address: str = field(repr=False)
    title: str = field(repr=False)
    body: str | None = field(repr=False)
    data: Mapping[str, str] = field(repr=False)
    link: str | None = field(repr=False)
    group: str
    """Notifications of one kind stand together."""
    is_urgent: bool


def push_message(alert: Alert, delivery_id: UUID, address: str, kind: str | None) -> PushMessage:
    """What one device gets."""
    link = link_of(alert, LONGEST_LINK)
    title = one_line(alert.title, MOST_OF_TITLE) or MARKS[alert.severity][0]
    data = {
        "alert_id": str(alert.id),
        "delivery_id": str(delivery_id),
        "alert_type": one_line(alert.alert_type, 100),
        "severity": alert.severity,
    } | ({"url": link} if link else {})
    room = MOST_BYTES - _bytes(title) - sum(_bytes(name) + _bytes(value) for name, value in data.items())
    return PushMessage(
        key=delivery_id.hex,
        kind="fid" if kind == "fid" else "token",
        address=address,
        title=title,
        body=_fit(lines(alert.message, MOST_BYTES), room) or None,
        data=data,
        link=link if link and link.startswith("https://") else None,
        group=one_line(alert.alert_type, 64),
        is_urgent=alert.severity != "info",
    )


def push_digest(facts: DigestFacts, sending: Sending, address: str) -> PushMessage:
    """What one device gets of a digest: its sums, and a line with the most severe of its alerts."""
    body: str | None = None
    if facts.groups:
        first = facts.groups[0]
        others = total(facts.severities) - 1
        body = f"{MARKS[first.severity][0]}: {one_line(first.title, MOST_OF_TITLE)}"
        if others > 0:
            body += f", and {others} more"
    return PushMessage(
        key=sending.delivery_id.hex,
        kind="fid" if sending.target.kind == "fid" else "token",
        address=address,
        title=one_line(digest_title(facts), MOST_OF_TITLE),
        body=body,
        data={
            "digest_id": str(sending.digest_id),
            "delivery_id": str(sending.delivery_id),
            "period": facts.period,
        },
        link=None,
        group="digest",
        is_urgent=False,
    )


def _bytes(text: str) -> int:
    """How long it is in JSON, with its quotes."""
    return len(json.dumps(text, ensure_ascii=False).encode())


def _fit(text: str, most: int) -> str:
    """As much as there is room for; a cut is marked."""
    if _bytes(text) <= most:
        return text
    left, at = most - _bytes(SHORTENED), 0
    while (cost := _bytes(text[at]) - 2) <= left:
        left -= cost
        at += 1
    return text[:at].rstrip() + SHORTENED
