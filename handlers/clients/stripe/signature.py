"""Tells whether a delivery comes from Stripe, without Stripe's library."""

from collections.abc import Sequence
from datetime import datetime
from typing import cast

from handlers.clients.signed_delivery import BadDelivery, check_signature, read_body


def read_signed(
    body: bytes, signature: str, secrets: Sequence[str], received_at: datetime
) -> dict[str, object]:
    """The event in a delivery that one of the secrets signed. Raises BadDelivery.

    `signature` is the header Stripe-Signature, `received_at` is aware.
    """
    check_signature(body, signature, secrets, received_at, header="Stripe-Signature")
    event = read_body(body)
    if not isinstance(event, dict) or not isinstance(event.get("id"), str):  # pyright: ignore[reportUnknownMemberType]  # a dict of anything
        raise BadDelivery("The body is JSON, but not an event: it has no id.")
    return cast("dict[str, object]", event)
