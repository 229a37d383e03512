"""A broker as the platform sees it: the words for orders, fills and positions, and what an adapter must do.

An adapter translates one broker's API into these words. It keeps nothing, retries nothing, and never guesses: money is
doubled or lost where an unknown outcome is taken for a refusal. So what `submit` saw is told in one of these ways:

    what was seen                                                  told as             an order is there
    -------------------------------------------------------------  ------------------  -----------------
    the broker's order                                             BrokerOrder         yes
    this client order id is taken                                  DuplicateClientId   yes: an earlier one of ours
    refused for what the order says, or what the account has       Refused             no
    refused since we ask too often                                 TooFast             no
    refused since the credentials are not good (any more)          BadCredentials      no
    nothing left this machine (no address, no connection)          NotSent             no
    all else: time-out, a cut connection, 5xx, an odd answer       OutcomeUnknown      nobody knows yet

What a broker does with a client order id that it has seen before is its `dedupe`:

    account       refuses it for ever: the same order may be sent again under the same id
    open_orders   refuses it while that order is open: sent again only after a look that also shows closed orders
    none          takes it: what may have arrived is never sent again by a program
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Literal, Protocol

Side = Literal["buy", "sell"]
OrderType = Literal["market", "limit", "stop", "stop_limit"]
TimeInForce = Literal["day", "gtc", "ioc", "fok"]


class Dedupe(StrEnum):
    """See the table above."""

    ACCOUNT = "account"
    OPEN_ORDERS = "open_orders"
    NONE = "none"


class BrokerStatus(StrEnum):
    """Where an order stands at its broker, in our words."""

    ACCEPTED = "accepted"
    PARTIALLY_FILLED = "partially_filled"
    FILLED = "filled"
    CANCELED = "canceled"
    REJECTED = "rejected"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class OrderRequest:
    """What is to be sent."""

    client_order_id: str
    symbol: str
    side: Side
    order_type: OrderType
    time_in_force: TimeInForce
    quantity: Decimal
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None


@dataclass(frozen=True, slots=True)
class BrokerOrder:
    """An order as its broker shows it."""

    broker_order_id: str
    client_order_id: str | None
    symbol: str
    side: Side
    order_type: OrderType
    time_in_force: TimeInForce
    quantity: Decimal
    status: BrokerStatus
    filled_quantity: Decimal
    """All of it so far, not since the last look."""
    filled_avg_price: Decimal | None
    updated_at: datetime
    """By the broker's clock: of two pictures the newer one."""
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    reason: str | None = None
    """The broker's own word for why it was rejected, canceled or expired."""


@dataclass(frozen=True, slots=True)
class Fill:
    """One execution."""

    broker_fill_id: str
    broker_order_id: str
    quantity: Decimal
    price: Decimal
    filled_at: datetime
    commission: Decimal | None = None
    symbol: str | None = None
    """What was traded, where the broker says so: the order of it may be one that was placed by hand."""


@dataclass(frozen=True, slots=True)
class BrokerPosition:
    """What an account holds of one symbol; a short one is negative."""

    symbol: str
    quantity: Decimal
    avg_entry_price: Decimal | None
    current_price: Decimal | None


@dataclass(frozen=True, slots=True)
class Hours:
    """Whether orders of a market are executed now, and when that changes."""

    is_open: bool
    changes_at: datetime | None
    """When it closes, or opens again. None: never."""


@dataclass(frozen=True, slots=True)
class Traits:
    """What one broker is like, as far as sending an order once depends on it."""

    dedupe: Dedupe
    settle: timedelta
    """So long after a submission whose answer is not known, an order that cannot be found was not accepted."""
    misses: int
    """How many looks in vain, after that, say so."""
    shows_closed: bool
    """Whether `find` also finds orders that are filled or canceled."""
    longest_client_id: int


@dataclass(frozen=True, slots=True)
class Credentials:
    """What opens an account: the names that the adapter documents, with their secrets."""

    values: dict[str, str] = field(repr=False)


class BrokerError(Exception):
    """The base: its text is a sentence without secrets, fit for a log and a row."""


class Refused(BrokerError):
    """The broker (or a rule of it that the adapter knows) refused the order: there is none. `code` is one word."""

    def __init__(self, code: str, words: str) -> None:
        super().__init__(words)
        self.code = code


class DuplicateClientId(BrokerError):
    """An order with this client order id is there already."""


class TooFast(BrokerError):
    """Refused since we ask too often: nothing was done. `after`: when to ask again."""

    def __init__(self, after: timedelta) -> None:
        super().__init__(f"asked too often; again in {after.total_seconds():.0f} s")
        self.after = after


class BadCredentials(BrokerError):
    """The broker does not let these credentials in: nothing was done."""


class NotSent(BrokerError):
    """Nothing left this machine."""


class OutcomeUnknown(BrokerError):
    """It may have been done or not."""


class BrokerAdapter(Protocol):
    """One account at one broker. Every call has a hard time-out of its own and raises nothing but BrokerError.

    Reads raise TooFast, BadCredentials, NotSent or OutcomeUnknown (here: no answer); never an empty answer instead.
    """

    @property
    def traits(self) -> Traits:
        """What this broker is like."""
        ...

    def objection(self, order: OrderRequest) -> Refused | None:
        """Why the broker would refuse this order, as far as can be said without asking: precision, size, symbol."""
        ...

    async def submit(self, order: OrderRequest) -> BrokerOrder:
        """Sends it, once. Raises as the table says."""
        ...

    async def find(self, client_order_id: str, symbol: str) -> BrokerOrder | None:
        """The order with our id; None only when the broker says that it knows none."""
        ...

    async def get(self, broker_order_id: str, symbol: str) -> BrokerOrder | None:
        """The order with the broker's id; None only when the broker says that it knows none."""
        ...

    async def cancel(self, broker_order_id: str, symbol: str) -> None:
        """Asks for it. Returns when asked for, or when there is nothing left to cancel: `get` tells which."""
        ...

    async def open_orders(self) -> Sequence[BrokerOrder]:
        """All of them, ours and others; never a part."""
        ...

    async def fills(self, since: datetime) -> Sequence[Fill]:
        """Those since then, oldest first; perhaps a few older ones."""
        ...

    async def positions(self) -> Sequence[BrokerPosition]:
        """All of them; never a part."""
        ...

    async def hours(self, symbol: str) -> Hours:
        """Of the symbol's market. Asked before each submission: an adapter keeps what it knows until it changes."""
        ...

    async def close(self) -> None:
        """Lets go of connections."""
        ...
