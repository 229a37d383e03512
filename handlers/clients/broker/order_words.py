"""Orders between the database and a broker: what the SQL functions answer, and what they are told, in JSON.

Decimals go both ways as text, so that nothing is rounded.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal
from uuid import UUID

from pydantic import TypeAdapter

from handlers.clients.broker.account import Connection, NotOpened
from handlers.clients.broker.broker import (
    BadCredentials,
    BrokerError,
    BrokerOrder,
    NotSent,
    OrderRequest,
    OrderType,
    Refused,
    Side,
    TimeInForce,
    TooFast,
    Traits,
)
from handlers.clients.broker.brokers import Busy
from listener import Snooze

Told = dict[str, object]
"""What a `record_…` function takes."""
NOT_OPENED_FOR = timedelta(seconds=10)
"""Another worker may have what this one lacks."""


@dataclass(frozen=True, slots=True)
class Order:
    """An order as begin_order and begin_cancel tell of it."""

    id: UUID
    client_order_id: str
    broker_order_id: str | None
    symbol: str
    side: Side
    order_type: OrderType
    time_in_force: TimeInForce
    quantity: Decimal
    limit_price: Decimal | None
    stop_price: Decimal | None
    when_closed: Literal["wait", "refuse"]
    submission: int

    def request(self) -> OrderRequest:
        """What is to be sent."""
        return OrderRequest(
            client_order_id=self.client_order_id,
            symbol=self.symbol,
            side=self.side,
            order_type=self.order_type,
            time_in_force=self.time_in_force,
            quantity=self.quantity,
            limit_price=self.limit_price,
            stop_price=self.stop_price,
        )


@dataclass(frozen=True, slots=True)
class Begun:
    """What is to be done about an order, as begin_order or begin_cancel says."""

    step: Literal["submit", "look_up", "cancel", "later", "done", "unknown_order"]
    status: str | None = None
    reason: str | None = None
    delay_seconds: float | None = None
    begun_at: datetime | None = None
    order: Order | None = None
    connection: Connection | None = None

    @property
    def call(self) -> tuple[Order, Connection]:
        """Which order over which connection: there for the steps that ask the broker."""
        if self.order is None or self.connection is None:
            raise ValueError(f"the step {self.step} comes with an order and a connection")
        return self.order, self.connection


_BEGUN = TypeAdapter(Begun)


def begun(told: Mapping[str, object]) -> Begun:
    """Reads the answer of begin_order or begin_cancel."""
    return _BEGUN.validate_python(told)


def seen(order: BrokerOrder) -> Told:
    """A broker's picture of an order, as apply_broker_order reads it."""
    return {
        "broker_order_id": order.broker_order_id,
        "client_order_id": order.client_order_id,
        "symbol": order.symbol,
        "side": order.side,
        "order_type": order.order_type,
        "time_in_force": order.time_in_force,
        "quantity": str(order.quantity),
        "limit_price": _text(order.limit_price),
        "stop_price": _text(order.stop_price),
        "status": order.status,
        "filled_quantity": str(order.filled_quantity),
        "filled_avg_price": _text(order.filled_avg_price),
        "updated_at": order.updated_at.isoformat(),
        "reason": order.reason,
    }


def traits(of: Traits) -> Told:
    """What a broker is like, as record_submission and record_lookup weigh it."""
    return {
        "traits": {
            "dedupe": of.dedupe,
            "settle_seconds": of.settle.total_seconds(),
            "misses": of.misses,
            "shows_closed": of.shows_closed,
        }
    }


def no_answer(error: BrokerError, connection: Connection) -> Told:
    """Why a call brought nothing: for certain nothing was done (`not_sent`, with a code), or nobody knows."""
    match error:
        case TooFast():
            return {
                "outcome": "not_sent",
                "code": "too_fast",
                "after_seconds": error.after.total_seconds(),
            }
        case BadCredentials():
            return {
                "outcome": "not_sent",
                "code": "bad_credentials",
                "credentials_version": connection.credentials_version,
            }
        case Busy():
            return {"outcome": "not_sent", "code": "busy", "after_seconds": error.after.total_seconds()}
        case NotOpened():
            wait = NOT_OPENED_FOR.total_seconds()
            return {"outcome": "not_sent", "code": "not_opened", "after_seconds": wait}
        case NotSent():
            return {"outcome": "not_sent", "code": "no_connection"}
        case Refused():
            return {"outcome": "refused", "code": error.code, "words": str(error)}
        case _:
            return {"outcome": "unknown"}


def progress(told: Mapping[str, object]) -> dict[str, object] | Snooze:
    """What a handler answers, from what a `record_…` function did: its result, or that the job comes back."""
    again = told["again_seconds"]
    if again is None:
        return {"status": told["status"], "reason": told["reason"]}
    return Snooze(timedelta(seconds=float(str(again))), f"The order is {told['status']}.")


def _text(number: Decimal | None) -> str | None:
    return None if number is None else str(number)
