"""The words of the paper broker: orders, fills, positions and quotes, and the book of one account."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import ClassVar, Literal

Side = Literal["buy", "sell"]
OrderType = Literal["market", "limit", "stop", "stop_limit"]
TimeInForce = Literal["day", "gtc", "ioc", "fok"]
Status = Literal["accepted", "partially_filled", "filled", "canceled", "rejected", "expired"]
Dedupe = Literal["account", "open_orders", "none"]

OPEN: frozenset[Status] = frozenset({"accepted", "partially_filled"})
ZERO = Decimal(0)
EXACT = Context(prec=60, rounding=ROUND_HALF_EVEN)
"""Wide enough that no sum or product of money is ever rounded."""
_PLACES = Decimal("1e-12")


def rounded(numerator: Decimal, denominator: Decimal) -> Decimal:
    """A quotient to twelve places; what is left over stays with the one who asks, so that nothing gets lost."""
    return EXACT.divide(numerator, denominator).quantize(_PLACES, context=EXACT)


def plain(number: Decimal) -> str:
    """A number in digits alone, without zeros at the end of its decimals."""
    text = f"{number:f}"
    return (text.rstrip("0").rstrip(".") or "0") if "." in text else text


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks for."""

    client_order_id: str
    symbol: str
    side: Side
    order_type: OrderType
    time_in_force: TimeInForce
    quantity: Decimal
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """An order that was accepted, and what became of it."""

    id: str
    number: int
    """The place in the account's own order of acceptance: who came first is served first."""
    client_order_id: str
    symbol: str
    side: Side
    order_type: OrderType
    time_in_force: TimeInForce
    quantity: Decimal
    limit_price: Decimal | None
    stop_price: Decimal | None
    reserve_price: Decimal
    """What one unit is thought to cost, until it is bought or sold: buying power is held by it."""
    expires_at: datetime | None
    submitted_at: datetime
    updated_at: datetime
    triggered: bool = False
    """Whether the stop price was reached (true from the beginning where there is none)."""
    status: Status = "accepted"
    reason: str | None = None
    filled_quantity: Decimal = ZERO
    filled_value: Decimal = ZERO
    fees: Decimal = ZERO
    fills: int = 0

    @property
    def left(self) -> Decimal:
        """What is still to be filled."""
        return self.quantity - self.filled_quantity

    @property
    def is_open(self) -> bool:
        """Whether anything can still become of it."""
        return self.status in OPEN

    @property
    def filled_avg_price(self) -> Decimal | None:
        """What one unit was filled at."""
        return rounded(self.filled_value, self.filled_quantity) if self.filled_quantity else None


@dataclass(frozen=True, slots=True)
class Fill:
    """One execution of an order; `number` counts the order's own."""

    order_id: str
    number: int
    symbol: str
    side: Side
    quantity: Decimal
    price: Decimal
    fee: Decimal
    filled_at: datetime
    filled_quantity: Decimal
    """Of the order, with this one."""
    left_quantity: Decimal
    """Of the order, after it."""

    @property
    def id(self) -> str:
        """The same whenever it is asked for."""
        return f"{self.order_id}-{self.number}"


@dataclass(frozen=True, slots=True)
class Position:
    """What an account holds of one symbol; a short one is negative, and so is its cost."""

    symbol: str
    quantity: Decimal = ZERO
    cost: Decimal = ZERO
    """What the quantity was bought (or sold short) for, fees aside."""
    realized: Decimal = ZERO
    """Profit of what was closed, fees aside."""
    current_price: Decimal | None = None

    @property
    def avg_entry_price(self) -> Decimal | None:
        """What one unit was bought (or sold short) for."""
        return rounded(self.cost, self.quantity) if self.quantity else None


@dataclass(frozen=True, slots=True)
class Quote:
    """What a symbol can be sold at (bid) and bought at (ask), and how much of it; a size of None has no end.

    In a book, the sizes are what the account's own orders have left of them.
    """

    symbol: str
    at: datetime
    bid: Decimal | None
    ask: Decimal | None
    bid_size: Decimal | None = None
    ask_size: Decimal | None = None

    @property
    def middle(self) -> Decimal | None:
        """What the symbol is worth by it."""
        if self.bid is None or self.ask is None:
            return self.bid if self.ask is None else self.ask
        return (self.bid + self.ask) / 2


@dataclass(frozen=True, slots=True)
class Landing:
    """A request that is still under way and arrives later, which its client does not know."""

    at: datetime
    order_id: str
    request: Request


@dataclass(frozen=True, slots=True)
class Settings:
    """What an account's broker is like."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    market: Literal["us_equities", "always"] = "us_equities"
    dedupe: Dedupe = "account"
    shorting: bool = False
    when_closed: Literal["queue", "refuse"] = "queue"
    fee_per_order: Decimal = ZERO
    fee_percent: Decimal = ZERO
    price_places: int | None = None
    """None: the rule of US equities, 2 from one dollar on and 4 below; in a market that is always open 9."""
    quantity_places: int = 9
    holidays: Mapping[date, time | None] | None = None
    """Days without trading (None) or with an early close; None: those of US equities that `hours` knows."""


@dataclass(frozen=True, slots=True)
class Account:
    """An account in figures."""

    id: str
    cash: Decimal
    buying_power: Decimal
    long_value: Decimal
    short_value: Decimal
    fees: Decimal
    realized: Decimal
    opened_at: datetime
    shorting: bool

    @property
    def equity(self) -> Decimal:
        """What it is worth, at the quotes of now."""
        return self.cash + self.long_value + self.short_value


@dataclass(frozen=True, slots=True)
class Hours:
    """Whether a market is open, and when that changes next (None: never)."""

    is_open: bool
    changes_at: datetime | None
    opens_at: datetime
    """The next opening; `closes_at`: the next close."""
    closes_at: datetime
    now: datetime


@dataclass(slots=True)
class Book:
    """One account at one moment. The engine moves it on; what has changed is saved as a whole, or not at all."""

    id: str
    settings: Settings
    opened_at: datetime
    as_of: datetime
    cash: Decimal
    fees: Decimal = ZERO
    numbers: int = 0
    """How many orders were accepted so far."""
    orders: dict[str, Order] = field(default_factory=dict[str, Order])
    """By id: the open ones, and those that a request may collide with."""
    positions: dict[str, Position] = field(default_factory=dict[str, Position])
    market: dict[str, Quote] = field(default_factory=dict[str, Quote])
    """By symbol: the newest quote that was seen, and what is left in it."""
    landings: list[Landing] = field(default_factory=list[Landing])
    fills: list[Fill] = field(default_factory=list[Fill])
    """Those that were made since it was loaded."""


class Refused(Exception):
    """The broker refuses, and nothing was done. `code` is one word for programs."""

    def __init__(self, code: str, words: str) -> None:
        super().__init__(words)
        self.code = code


class DuplicateClientId(Exception):
    """An order with this client order id is there already."""


class Fault(Exception):
    """A fault that was asked for (paper_faults). `status` as HTTP has it: 503, 504, 429, 401; None: a cut connection.

    Whether anything was done: 503, 429 and 401 say no; 504 and a cut connection say nothing.
    """

    def __init__(self, status: int | None, after: float = 0) -> None:
        super().__init__(f"a fault that was asked for: {status or 'the connection is cut'}")
        self.status = status
        self.after = after
        """429: in how many seconds to come again."""


class Unusable(Exception):
    """The store cannot serve: no such account, or one that is changed by so many at once that no turn came."""
