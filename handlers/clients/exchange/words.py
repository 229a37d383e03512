"""An exchange's orders, trades and holdings, in the library's words and in ours.

The library's numbers are floats. `Decimal(str(…))` of one is what the exchange wrote, up to 15 digits; a number of ours
with more does not go out.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Final, cast

from handlers.clients.broker.broker import (
    BrokerOrder,
    BrokerPosition,
    BrokerStatus,
    Fill,
    OrderRequest,
    OrderType,
    OutcomeUnknown,
    Side,
    TimeInForce,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from handlers.clients.exchange.ccxt import Words

_ENDS: Final = {
    "canceled": BrokerStatus.CANCELED,
    "expired": BrokerStatus.EXPIRED,
    "rejected": BrokerStatus.REJECTED,
}
_TIMES_IN_FORCE: Final[dict[str, TimeInForce]] = {"GTC": "gtc", "IOC": "ioc", "FOK": "fok", "DAY": "day"}
_LONG_AGO: Final = datetime.fromtimestamp(0, UTC)
"""When an exchange says no time: older than any other picture."""


def number(found: object) -> Decimal | None:
    """Exactly what was written, if it is a number."""
    if found is None or found == "":
        return None
    try:
        value = Decimal(str(found))
    except InvalidOperation:
        raise OutcomeUnknown("The exchange's answer has a number that is none.") from None
    if not value.is_finite():
        raise OutcomeUnknown("The exchange's answer has a number that is none.")
    return value


def inner(found: Words, name: str) -> Words:
    """What is under the name, empty if nothing is."""
    return cast("Words", found.get(name) or {})


def moment(milliseconds: object) -> datetime | None:
    """A time of the library's: whole milliseconds since 1970."""
    value = number(milliseconds)
    return (
        None
        if value is None
        else datetime.fromtimestamp(int(value) // 1000, UTC).replace(microsecond=int(value) % 1000 * 1000)
    )


def order_of(found: Words, sent: OrderRequest | None = None) -> BrokerOrder | None:
    """In our words; what an exchange does not repeat is as it was sent. None: we have no words for it."""
    side = found.get("side") or (sent and sent.side)
    quantity = number(found.get("amount")) or (sent and sent.quantity)
    symbol = found.get("symbol") or (sent and sent.symbol)
    if not found.get("id"):
        raise OutcomeUnknown("The exchange answered without the order's id.")
    if side not in {"buy", "sell"} or not quantity or quantity < 0 or not symbol:
        return None
    filled = number(found.get("filled")) or Decimal()
    limit = number(found.get("price")) or (sent.limit_price if sent else None)
    stop = number(found.get("triggerPrice") or found.get("stopPrice")) or (sent.stop_price if sent else None)
    order_type = _order_type(str(found.get("type") or (sent and sent.order_type)), limit, stop)
    said = _TIMES_IN_FORCE.get(str(found.get("timeInForce") or "").upper())
    buys: Side = "buy" if side == "buy" else "sell"
    return BrokerOrder(
        broker_order_id=str(found["id"]),
        client_order_id=found.get("clientOrderId") or None,
        symbol=str(symbol),
        side=buys,
        order_type=order_type,
        time_in_force=said or (sent.time_in_force if sent else "gtc"),
        quantity=quantity,
        status=_status(found.get("status"), filled, quantity),
        filled_quantity=filled,
        filled_avg_price=number(found.get("average")) or None,
        updated_at=max(filter(None, (moment(found.get(name)) for name in _TIMES)), default=_LONG_AGO),
        limit_price=limit if order_type in {"limit", "stop_limit"} else None,
        stop_price=stop if order_type in {"stop", "stop_limit"} else None,
    )


_TIMES: Final = ("timestamp", "lastTradeTimestamp", "lastUpdateTimestamp")


def _status(said: object, filled: Decimal, quantity: Decimal) -> BrokerStatus:
    if said == "closed":  # whether by its fills, or because the rest is not wanted any more
        return BrokerStatus.FILLED if filled >= quantity else BrokerStatus.CANCELED
    alive = BrokerStatus.PARTIALLY_FILLED if filled else BrokerStatus.ACCEPTED
    return _ENDS.get(str(said), alive)


def _order_type(said: str, limit: Decimal | None, stop: Decimal | None) -> OrderType:
    """`price` may be that of the fills, so the word decides as far as it can."""
    is_limit = limit is not None and ("limit" in said or said not in {"market", "stop"})
    if stop is not None:
        return "stop_limit" if is_limit else "stop"
    return "limit" if is_limit else "market"


def fill_of(found: Words) -> Fill | None:
    """In our words. None: an exchange that does not say of which order it is."""
    quantity, price = number(found.get("amount")), number(found.get("price"))
    at = moment(found.get("timestamp"))
    if not found.get("id") or not found.get("order") or not quantity or not price or at is None:
        return None
    return Fill(
        # A trade of two orders of ours has one id, and some exchanges count the trades of each symbol by themselves.
        broker_fill_id=f"{found.get('symbol') or ''}:{found['order']}:{found['id']}",
        broker_order_id=str(found["order"]),
        quantity=quantity,
        price=price,
        filled_at=at,
        commission=number(inner(found, "fee").get("cost")),
        symbol=found.get("symbol"),
    )


def positions_of(found: Iterable[Words]) -> Iterator[BrokerPosition]:
    """Contracts that are held: so many, as orders and executions count them, with the price of one contract."""
    for one in found:
        held = number(one.get("contracts"))
        size = number(one.get("contractSize")) or Decimal(1)
        if held:
            quantity = -abs(held) if one.get("side") == "short" else abs(held)
            entry, now = number(one.get("entryPrice")), number(one.get("markPrice"))
            yield BrokerPosition(
                str(one["symbol"]), quantity, entry * size if entry else None, now * size if now else None
            )


def balances_of(found: Words, quote: str, symbols: Iterable[str]) -> Iterator[BrokerPosition]:
    """Coins that are held, by the symbol under which they are traded for `quote`; that itself is money."""
    known = set(symbols)
    for coin, amount in inner(found, "total").items():
        held = number(amount)
        if held and coin != quote:
            pair = f"{coin}/{quote}"
            yield BrokerPosition(pair if pair in known else str(coin), held, None, None)
