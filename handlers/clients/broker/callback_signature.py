"""Callbacks about an account at a broker: the secret that signs them, and what a delivery says once it is verified.

Whoever calls back (a broker, or a relay of yours that listens to one) has a secret for one account and one version of
it. It is computed from a master that only our processes know, so nothing is stored, and who knows one secret knows no
other. The door cannot see whether the account still has that version; the job does.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from hmac import digest
from typing import Final, cast
from uuid import UUID

from handlers.clients.signed_delivery import (
    BadDelivery,
    BadSignature,
    check_signature,
    read_body,
    secrets_in,
    signature_of,
)
from listener import Delivery, DeliveryRefused, Setting, Settings

HEADER: Final = "X-Pulse-Signature"
PATH: Final = "/webhooks/broker/{connection_id}/{version}"
BROKER_CALLBACK_SECRET: Final = Setting(
    "BROKER_CALLBACK_SECRET",
    "make one with `openssl rand -hex 32`; with a comma between, two of them while one is being rolled",
    required=False,  # without one there are no callbacks, and nobody has to have any
)
SHORTEST_MASTER: Final = 32
"""Who has one secret could try masters that are short until one fits."""
DEEPEST: Final = 20
_WORD: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]{0,63}")
_EVENT_ID: Final = re.compile(r"[!-~]{1,200}")
_VERSION: Final = re.compile(r"[1-9][0-9]{0,8}")


class NoMaster(Exception):
    """There is none, or one that is too short to be safe. The text says what to do."""


@dataclass(frozen=True, slots=True)
class CallbackMasters:
    """The masters that this process knows, for jobs that verify deliveries themselves."""

    setting: str | None = field(repr=False)

    def all(self) -> list[str]:
        """Raises NoMaster."""
        return masters_in(self.setting)


@dataclass(frozen=True, slots=True)
class Callback:
    """What somebody with the secret of an account said about it: a hint where to look, never the truth."""

    connection_id: UUID
    version: int
    event_id: str
    """The sender's own, or else computed from what was signed: the same delivery again has the same."""
    event: str
    payload: Mapping[str, object] = field(repr=False)
    received_at: datetime


def masters_in(setting: str | None) -> list[str]:
    """The masters of BROKER_CALLBACK_SECRET. Raises NoMaster."""
    masters = secrets_in(setting or "")
    if not masters:
        raise NoMaster(f"{BROKER_CALLBACK_SECRET.name} is not set: {BROKER_CALLBACK_SECRET.where}.")
    if min(map(len, masters)) < SHORTEST_MASTER:
        raise NoMaster(
            f"{BROKER_CALLBACK_SECRET.name} has to have {SHORTEST_MASTER} characters or more: "
            f"{BROKER_CALLBACK_SECRET.where}."
        )
    return masters


def callback_path(connection_id: UUID, version: int) -> str:
    """Where an account is called back, on the door."""
    return PATH.format(connection_id=connection_id, version=version)


def callback_secret(master: str, connection_id: UUID, version: int) -> str:
    """What signs the callbacks about an account."""
    return digest(master.encode(), f"{connection_id}:{version}".encode(), sha256).hex()


def sign(secret: str, body: bytes, at: datetime) -> str:
    """The header that goes with a body sent at that moment."""
    moment = f"{at.timestamp():.0f}"
    return f"t={moment},v1={signature_of(body, moment, secret)}"


def open_delivery(delivery: Delivery, settings: Settings) -> Callback:
    """What a delivery at the door says. Raises DeliveryRefused: 404 for no such place, 401 if it cannot be trusted,
    400 if it cannot be read."""
    try:
        connection_id, version = _whose(**delivery.parameters)
        masters = masters_in(settings.get(BROKER_CALLBACK_SECRET.name))
        signature = delivery.headers.get(HEADER.lower(), "")
        return open_callback(delivery.body, signature, connection_id, version, masters, delivery.received_at)
    except (NoMaster, LookupError) as error:
        raise DeliveryRefused(404, error.args[0]) from None
    except BadSignature as error:
        raise DeliveryRefused(401, str(error)) from None
    except BadDelivery as error:
        raise DeliveryRefused(400, str(error)) from None


def open_callback(
    body: bytes,
    signature: str,
    connection_id: UUID,
    version: int,
    masters: Sequence[str],
    received_at: datetime,
) -> Callback:
    """What a body says that was signed for this account. Raises BadDelivery, or BadSignature of it."""
    secrets = [callback_secret(master, connection_id, version) for master in masters]
    check_signature(body, signature, secrets, received_at, header=HEADER)
    said = read_body(body)
    if not isinstance(said, dict) or not _is_plain(cast("object", said), DEEPEST):
        raise BadDelivery(f"Send a JSON object of plain text and numbers, at most {DEEPEST} deep.")
    words = cast("dict[str, object]", said)
    event, payload = words.get("event"), words.get("payload", {})
    if not isinstance(event, str) or not _WORD.fullmatch(event):
        raise BadDelivery('Say what happened in one word, such as {"event": "order_filled"}.')
    if not isinstance(payload, dict):
        raise BadDelivery("`payload` has to be an object.")
    event_id = words.get("event_id")
    if event_id is None:
        # With the time in it: what happens twice may be said in the same words, an hour later.
        event_id = sha256(signature.partition(",")[0].encode() + b"." + body).hexdigest()
    elif not isinstance(event_id, str) or not _EVENT_ID.fullmatch(event_id):
        raise BadDelivery("`event_id` has to be 1 to 200 printable characters without spaces.")
    return Callback(connection_id, version, event_id, event, cast("dict[str, object]", payload), received_at)


def _whose(connection_id: str, version: str) -> tuple[UUID, int]:
    """The account and the version, each in its one spelling. Raises LookupError."""
    try:
        account = UUID(connection_id)
    except ValueError:
        account = None
    if account is None or str(account) != connection_id or not _VERSION.fullmatch(version):
        raise LookupError("There is nothing at this path: it ends with an account's id and a version.")
    return account, int(version)


def _is_plain(value: object, deepest: int) -> bool:
    """Whether PostgreSQL takes it as it is."""
    match value:
        case str():
            return "\0" not in value and not any("\ud800" <= letter <= "\udfff" for letter in value)
        case float():
            return math.isfinite(value)
        case dict():
            fields = cast("dict[str, object]", value)
            return deepest > 0 and all(
                _is_plain(key, 0) and _is_plain(one, deepest - 1) for key, one in fields.items()
            )
        case list():
            return deepest > 0 and all(_is_plain(one, deepest - 1) for one in cast("list[object]", value))
        case _:
            return True
