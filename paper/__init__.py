"""The paper broker: our own simulated broker, on which people trade without money. Its face is `PaperBroker`."""

from paper.broker import PaperBroker
from paper.store import Call
from paper.words import (
    Account,
    DuplicateClientId,
    Fault,
    Fill,
    Hours,
    Order,
    Position,
    Refused,
    Request,
    Unusable,
)

__all__ = [
    "Account",
    "Call",
    "DuplicateClientId",
    "Fault",
    "Fill",
    "Hours",
    "Order",
    "PaperBroker",
    "Position",
    "Refused",
    "Request",
    "Unusable",
]
