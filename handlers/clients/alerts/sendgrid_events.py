"""SendGrid's event webhook: whether a delivery is SendGrid's, and what its events mean for addresses and mails.

The signature is ECDSA over the time and the raw bytes, verified by SendGrid's own helper. Of the events only those are
kept that change something here; what people open and click is none of our business.
"""
# The library has no types of its own:
# pyright: reportUnknownMemberType=false

import binascii
import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final, cast
from uuid import UUID

from listener import Delivery, Setting

SENDGRID_WEBHOOK_KEY = Setting(
    "SENDGRID_WEBHOOK_KEY",
    "SendGrid, Settings, Mail Settings, Event Webhooks, Signature Verification: the public key",
    required=False,
    secret=False,
)
_KINDS: Final[Mapping[str, str]] = {
    "delivered": "delivered",
    "spamreport": "spam",
    "unsubscribe": "unsubscribe",
    "group_unsubscribe": "unsubscribe",
}
_DROPPED: Final[Mapping[str, str]] = {
    "bounced address": "bounce",
    "invalid": "invalid",
    "spam reporting address": "spam",
    "unsubscribed address": "unsubscribe",
}
"""Why SendGrid did not even try, where that is for good."""


class BadEvents(ValueError):
    """The delivery cannot be trusted or read. The text is a sentence without values, fit for the sender."""


def read_events(delivery: Delivery, public_key: str, tolerance: timedelta) -> list[dict[str, object]]:
    """What the events of a signed delivery mean, as `record_mail_events` takes it. Raises BadEvents."""
    _verify(delivery, public_key, tolerance)
    try:
        told: object = json.loads(delivery.body)
    except (ValueError, RecursionError):
        raise BadEvents("The body is not JSON.") from None
    if not isinstance(told, list):
        raise BadEvents("The body is JSON, but not a list of events.")
    found = [
        _meaning(cast("dict[str, object]", one))
        for one in cast("list[object]", told)
        if isinstance(one, dict)
    ]
    return [
        one | {"address": address}
        for one in found
        if one is not None
        for address in _spellings(str(one["address"]))
    ]


def _verify(delivery: Delivery, public_key: str, tolerance: timedelta) -> None:
    from sendgrid.helpers.eventwebhook import EventWebhook, EventWebhookHeader

    signature = delivery.headers.get(EventWebhookHeader.SIGNATURE.lower(), "")
    stamp = delivery.headers.get(EventWebhookHeader.TIMESTAMP.lower(), "")
    try:
        key = EventWebhook(public_key)
    except (ValueError, binascii.Error):
        raise BadEvents(
            f"{SENDGRID_WEBHOOK_KEY.name} is not a public key: {SENDGRID_WEBHOOK_KEY.where}."
        ) from None
    try:
        is_right = key.verify_signature(delivery.body.decode(), signature, stamp)
    except (ValueError, binascii.Error):  # no text, no base64, no signature
        is_right = False
    if not is_right:
        raise BadEvents("The signature does not fit the body and our key.")
    if not stamp.isascii() or not stamp.isdigit() or len(stamp) > 12:
        raise BadEvents("The time in the header is not a time.")
    if abs(delivery.received_at - datetime.fromtimestamp(int(stamp), UTC)) > tolerance:
        raise BadEvents("The signature is too old, or of a clock that is wrong.")


def _meaning(event: Mapping[str, object]) -> dict[str, object] | None:
    kind, address = event.get("event"), event.get("email")
    if not isinstance(kind, str) or not isinstance(address, str) or not _is_text(address):
        return None
    meant = _KINDS.get(kind)
    if kind == "bounce":
        meant = "blocked" if event.get("type") == "blocked" else "bounce"
    elif kind == "dropped":
        meant = _DROPPED.get(str(event.get("reason")).strip().lower(), "blocked")
    if meant is None:
        return None
    found: dict[str, object] = {"kind": meant, "address": address}
    with suppress(ValueError):  # of a mail that is none of ours; its address counts all the same
        found["delivery_id"] = str(UUID(str(event.get("delivery_id"))))
    return found


def _spellings(address: str) -> list[str]:
    """As it was sent to, and with the letters that its owner may have written the domain with."""
    name, _, domain = address.rpartition("@")
    try:
        other = f"{name}@{domain.encode('ascii').decode('idna')}"
    except UnicodeError:
        return [address]
    return [address] if other.lower() == address.lower() else [address, other]


def _is_text(address: str) -> bool:
    """Whether a table takes it: one that it does not take would take all events of its delivery with it."""
    return (
        len(address) <= 320
        and "\x00" not in address
        and not any("\ud800" <= one <= "\udfff" for one in address)
    )
