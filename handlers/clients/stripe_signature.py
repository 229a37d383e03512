"""Tells whether a delivery comes from Stripe: the signature over the raw bytes, and how old it was on arrival.

The arrival is a parameter, because a delivery may be verified in a job, long after it came. Computes only; needs
neither the network nor Stripe's library.
"""

import hmac
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import cast

TOLERANCE = timedelta(minutes=5)
"""How far the time in the signature may lie from the arrival, before or after."""


class BadDelivery(ValueError):
    """The delivery cannot be trusted or read. The text is a sentence without values, fit for the sender."""


def secrets_in(setting: str) -> list[str]:
    """The signing secrets in a setting: usually one; two, with a comma between, while one is being rolled."""
    return [secret for part in setting.split(",") if (secret := part.strip())]


def read_signed(
    body: bytes, signature: str, secrets: Sequence[str], received_at: datetime
) -> dict[str, object]:
    """The event in a delivery that one of the secrets signed. Raises BadDelivery.

    `signature` is the header Stripe-Signature, `received_at` is aware.
    """
    at, given = _parts(signature)
    if not any(_matches(body, at, given, secret) for secret in secrets):
        raise BadDelivery(
            "The signature fits none of our secrets for this endpoint, or the body is not as Stripe sent it."
        )
    if abs(received_at - _time(at)) > TOLERANCE:
        raise BadDelivery(
            f"The signature is more than {TOLERANCE.total_seconds():.0f} seconds away from the time of arrival: "
            "a replayed delivery, or a clock that is wrong."
        )
    try:
        event: object = json.loads(body.decode(), parse_constant=_no_number)
    except UnicodeDecodeError:
        raise BadDelivery("The body is not UTF-8.") from None
    except (ValueError, RecursionError):
        raise BadDelivery("The body is not JSON.") from None
    if not isinstance(event, dict) or not isinstance(event.get("id"), str):  # pyright: ignore[reportUnknownMemberType]  # a dict of anything
        raise BadDelivery("The body is JSON, but not an event: it has no id.")
    return cast("dict[str, object]", event)


def _parts(signature: str) -> tuple[str, list[str]]:
    """The time and the v1 signatures of `t=…,v1=…,v1=…`; other schemes are not ours."""
    pairs = [part.strip().partition("=") for part in signature.split(",")]
    times = [value for name, _, value in pairs if name == "t"]
    given = [value for name, _, value in pairs if name == "v1"]
    if len(times) != 1 or not given or not times[0].isascii() or not times[0].isdigit():
        raise BadDelivery("The header Stripe-Signature is missing or is not of the form t=…,v1=….")
    return times[0], given


def _matches(body: bytes, at: str, given: Sequence[str], secret: str) -> bool:
    expected = hmac.new(secret.encode(), at.encode() + b"." + body, sha256).hexdigest().encode()
    # Headers may carry bytes that are no text; "replace" lets them differ instead of raising.
    return any(hmac.compare_digest(expected, one.encode(errors="replace")) for one in given)


def _no_number(word: str) -> object:
    raise ValueError(word)  # NaN and its like, which Python reads and no other


def _time(at: str) -> datetime:
    try:
        return datetime.fromtimestamp(int(at), UTC)
    except (OverflowError, ValueError, OSError):
        raise BadDelivery("The time in the header Stripe-Signature is not a time.") from None
