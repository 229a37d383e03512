"""Alpaca's JSON and ours: an order as it is sent, and orders, fills, positions and the clock as they are answered.

Numbers come as text and stay exact. What our words cannot say of an order that was placed by hand is said as nearly as
possible; an order by an amount of money has no quantity before it has bought something, and is left out until then.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from handlers.clients.broker.broker import (
    BrokerOrder,
    BrokerPosition,
    BrokerStatus,
    Fill,
    OrderRequest,
    OrderType,
    Refused,
    Side,
    TimeInForce,
)

LONGEST_CLIENT_ID: Final = 128
_ENDS: Final = {
    "filled": BrokerStatus.FILLED,
    "canceled": BrokerStatus.CANCELED,
    "replaced": BrokerStatus.CANCELED,  # by another order, with another id
    "expired": BrokerStatus.EXPIRED,
    "rejected": BrokerStatus.REJECTED,
}
"""Whatever else Alpaca calls it, the order is alive."""
_TIMES_IN_FORCE: Final[dict[str, TimeInForce]] = {"day": "day", "gtc": "gtc", "ioc": "ioc", "fok": "fok"}
_CRYPTO: Final = re.compile(r"[A-Z0-9]+/[A-Z0-9]+")
_HELD_COIN: Final = re.compile(r"^([A-Z0-9]+)USD$")


class AlpacaOrder(BaseModel):
    """An order, as far as we read it."""

    model_config = ConfigDict(hide_input_in_errors=True)

    id: str = Field(min_length=1)
    client_order_id: str | None = None
    symbol: str | None = None
    side: str | None = None
    type: str | None = None
    time_in_force: str | None = None
    qty: Decimal | None = None
    filled_qty: Decimal | None = None
    filled_avg_price: Decimal | None = None
    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    status: str
    created_at: AwareDatetime
    updated_at: AwareDatetime | None = None
    submitted_at: AwareDatetime | None = None

    def in_our_words(self) -> BrokerOrder | None:
        """None: there are no words of ours for it, so it is none of ours."""
        filled = self.filled_qty or Decimal()
        quantity = self.qty or filled
        if not self.symbol or self.side not in {"buy", "sell"} or quantity <= 0:
            return None
        side: Side = "buy" if self.side == "buy" else "sell"
        alive = BrokerStatus.PARTIALLY_FILLED if filled else BrokerStatus.ACCEPTED
        status = _ENDS.get(self.status, alive)
        return BrokerOrder(
            broker_order_id=self.id,
            client_order_id=self.client_order_id or None,
            symbol=self.symbol,
            side=side,
            order_type=self._order_type(),
            time_in_force=_TIMES_IN_FORCE.get(self.time_in_force or "", "day"),  # those of an auction: a day
            quantity=quantity,
            status=status,
            filled_quantity=filled,
            filled_avg_price=self.filled_avg_price or None,
            updated_at=(self.updated_at or self.created_at).astimezone(UTC),
            limit_price=self.limit_price,
            stop_price=self.stop_price,
            reason="replaced" if self.status == "replaced" else None,
        )

    def _order_type(self) -> OrderType:
        """By its prices: a trailing stop is a stop with the price where it stands now."""
        match (self.limit_price is not None, self.stop_price is not None):
            case (True, True):
                return "stop_limit"
            case (True, False):
                return "limit"
            case (False, True):
                return "stop"
            case _:
                return "market"


class AlpacaFill(BaseModel):
    """An account activity of the type FILL."""

    model_config = ConfigDict(hide_input_in_errors=True)

    id: str = Field(min_length=1)
    order_id: str
    symbol: str
    qty: Decimal
    price: Decimal
    transaction_time: AwareDatetime

    def in_our_words(self) -> Fill:
        return Fill(
            broker_fill_id=self.id,
            broker_order_id=self.order_id,
            quantity=abs(self.qty),
            price=self.price,
            filled_at=self.transaction_time.astimezone(UTC),
            symbol=self.symbol,
        )


class AlpacaPosition(BaseModel):
    """What is held of one symbol."""

    model_config = ConfigDict(hide_input_in_errors=True)

    symbol: str
    qty: Decimal
    side: Literal["long", "short"]
    asset_class: str | None = None
    avg_entry_price: Decimal | None = None
    current_price: Decimal | None = None

    def in_our_words(self) -> BrokerPosition:
        quantity = -abs(self.qty) if self.side == "short" else abs(self.qty)
        symbol = self.symbol
        if self.asset_class == "crypto":  # a coin is held as BTCUSD, and traded as BTC/USD
            symbol = _HELD_COIN.sub(r"\1/USD", symbol)
        return BrokerPosition(symbol, quantity, self.avg_entry_price, self.current_price)


class AlpacaClock(BaseModel):
    """Of the market for shares."""

    model_config = ConfigDict(hide_input_in_errors=True)

    timestamp: AwareDatetime
    is_open: bool
    next_open: AwareDatetime
    next_close: AwareDatetime

    @property
    def changes_at(self) -> datetime:
        return (self.next_close if self.is_open else self.next_open).astimezone(UTC)


class AlpacaError(BaseModel):
    """What Alpaca says when it does not do something; an answer without it came from somebody on the way."""

    model_config = ConfigDict(hide_input_in_errors=True)

    message: str
    code: int | None = None


def exact(body: bytes) -> object:
    """The JSON of an answer, with its numbers as they were written. Raises ValueError."""

    def refuse(word: str) -> object:
        raise ValueError(f"{word} is no number")

    try:
        return json.loads(body, parse_float=Decimal, parse_constant=refuse)
    except RecursionError:
        raise ValueError("too deep") from None


def to_send(order: OrderRequest) -> dict[str, str]:
    """The body that places the order."""
    prices = {"limit_price": order.limit_price, "stop_price": order.stop_price}
    return {
        "symbol": order.symbol,
        "qty": f"{order.quantity:f}",
        "side": order.side,
        "type": order.order_type,
        "time_in_force": order.time_in_force,
        "client_order_id": order.client_order_id,
        **{name: f"{price:f}" for name, price in prices.items() if price is not None},
    }


def is_crypto(symbol: str) -> bool:
    """Whether it is traded around the clock."""
    return _CRYPTO.fullmatch(symbol) is not None


def objection(order: OrderRequest) -> Refused | None:
    """The rules that Alpaca states for every order."""
    if _decimals(order.quantity) > 9:
        return Refused("precision", "A quantity has at most 9 decimals here.")
    if is_crypto(order.symbol):
        if order.time_in_force not in {"gtc", "ioc"}:
            return Refused("time_in_force", "An order of a crypto pair is good till canceled (gtc), or ioc.")
        if order.order_type == "stop":
            return Refused("order_type", "A crypto pair takes market, limit and stop_limit orders.")
        return None
    if _decimals(order.quantity) > 0 and order.time_in_force != "day":
        return Refused("time_in_force", "An order of a part of a share is good for the day only.")
    for price in (order.limit_price, order.stop_price):
        if price is not None and _decimals(price) > (2 if price >= 1 else 4):
            return Refused("precision", "A price has at most 2 decimals, and 4 below one dollar.")
    return None


def _decimals(number: Decimal) -> int:
    """How many it needs: 1.50 needs one."""
    exponent = number.normalize().as_tuple().exponent
    return max(-exponent, 0) if isinstance(exponent, int) else 0
