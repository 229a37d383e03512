"""Tells whether a secret of ours signed a delivery: `t=…,v1=…` over the raw bytes, and how old it was on arrival.

The scheme is Stripe's and that of our brokers' callbacks. The arrival is a parameter, because a delivery may be
verified in a job, long after it came. Computes only.
"""

import hmac
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256

TOLERANCE = timedelta(minutes=5)
"""How far the time in the signature may lie from the arrival, before or after."""


class BadDelivery(ValueError):
    """The delivery cannot be trusted or read. The text is a sentence without values, fit for the sender."""


class BadSignature(BadDelivery):
    """It cannot be trusted."""


def secrets_in(setting: str) -> list[str]:
    """The secrets in a setting: usually one; two, with a comma between, while one is being rolled."""
    return [secret for part in setting.split(",") if (secret := part.strip())]


def signature_of(body: bytes, at: str, secret: str) -> str:
    """What belongs after `v1=`; `at` is what stands after `t=`."""
    return hmac.new(secret.encode(), at.encode() + b"." + body, sha256).hexdigest()


def check_signature(
    body: bytes, signature: str, secrets: Sequence[str], received_at: datetime, *, header: str
) -> None:
    """Raises BadSignature unless one of the secrets signed it, within the tolerance of its arrival, which is aware."""
    at, given = _parts(signature, header)
    if not any(_matches(body, at, given, secret) for secret in secrets):
        raise BadSignature(
            "The signature fits none of our secrets for this endpoint, or the body is not as it was sent."
        )
    if abs(received_at - _time(at, header)) > TOLERANCE:
        raise BadSignature(
            f"The signature is more than {TOLERANCE.total_seconds():.0f} seconds away from the time of arrival: "
            "a replayed delivery, or a clock that is wrong."
        )


def read_body(body: bytes) -> object:
    """Its JSON. Raises BadDelivery."""
    try:
        return json.loads(body.decode(), parse_constant=_no_number)
    except UnicodeDecodeError:
        raise BadDelivery("The body is not UTF-8.") from None
    except (ValueError, RecursionError):
        raise BadDelivery("The body is not JSON.") from None


def _parts(signature: str, header: str) -> tuple[str, list[str]]:
    """The time and the v1 signatures of `t=…,v1=…,v1=…`; other schemes are not ours."""
    pairs = [part.strip().partition("=") for part in signature.split(",")]
    times = [value for name, _, value in pairs if name == "t"]
    given = [value for name, _, value in pairs if name == "v1"]
    if len(times) != 1 or not given or not times[0].isascii() or not times[0].isdigit():
        raise BadSignature(f"The header {header} is missing or is not of the form t=…,v1=….")
    return times[0], given


def _matches(body: bytes, at: str, given: Sequence[str], secret: str) -> bool:
    expected = signature_of(body, at, secret).encode()
    # Headers may carry bytes that are no text; "replace" lets them differ instead of raising.
    return any(hmac.compare_digest(expected, one.encode(errors="replace")) for one in given)


def _no_number(word: str) -> object:
    raise ValueError(word)  # NaN and its like, which Python reads and no other


def _time(at: str, header: str) -> datetime:
    try:
        return datetime.fromtimestamp(int(at), UTC)
    except (OverflowError, ValueError, OSError):
        raise BadSignature(f"The time in the header {header} is not a time.") from None
