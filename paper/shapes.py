"""The paper broker's words as Alpaca's API documents its answers."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import NAMESPACE_DNS, uuid5

from paper.hours import NEW_YORK
from paper.words import Account, Fill, Hours, Order, Position, plain

Json = dict[str, Any]
_ENDED = {"filled": "filled_at", "canceled": "canceled_at", "expired": "expired_at", "rejected": "failed_at"}


def told_order(order: Order) -> Json:
    """An order."""
    ended = dict.fromkeys(_ENDED.values())
    if order.status in _ENDED:
        ended[_ENDED[order.status]] = told_time(order.updated_at)
    return {
        "id": order.id,
        "client_order_id": order.client_order_id,
        "created_at": told_time(order.submitted_at),
        "updated_at": told_time(order.updated_at),
        "submitted_at": told_time(order.submitted_at),
        **ended,
        "replaced_at": None,
        "replaced_by": None,
        "replaces": None,
        "asset_id": asset_id(order.symbol),
        "symbol": order.symbol,
        "asset_class": _asset_class(order.symbol),
        "notional": None,
        "qty": told(order.quantity),
        "filled_qty": told(order.filled_quantity),
        "filled_avg_price": told(order.filled_avg_price),
        "order_class": "simple",
        "order_type": order.order_type,
        "type": order.order_type,
        "side": order.side,
        "time_in_force": order.time_in_force,
        "limit_price": told(order.limit_price),
        "stop_price": told(order.stop_price),
        "status": "new" if order.status == "accepted" else order.status,
        "extended_hours": False,
        "legs": None,
        "trail_percent": None,
        "trail_price": None,
        "hwm": None,
        "commission": told(order.fees),
        "source": None,
        "subtag": None,
        "status_reason": order.reason,
    }


def told_fill(fill: Fill) -> Json:
    """A fill, as an activity of the account."""
    moment = fill.filled_at.astimezone(UTC)
    return {
        "id": f"{moment:%Y%m%d%H%M%S}{moment.microsecond // 1000:03}::{fill.id}",
        "activity_type": "FILL",
        "transaction_time": told_time(moment),
        "type": "partial_fill" if fill.left_quantity else "fill",
        "price": told(fill.price),
        "qty": told(fill.quantity),
        "side": fill.side,
        "symbol": fill.symbol,
        "leaves_qty": told(fill.left_quantity),
        "cum_qty": told(fill.filled_quantity),
        "order_id": fill.order_id,
        "order_status": "partially_filled" if fill.left_quantity else "filled",
        "commission": told(fill.fee),
    }


def told_position(position: Position) -> Json:
    """A position."""
    price = position.current_price or Decimal(0)
    value = position.quantity * price
    profit = value - position.cost
    share = profit / abs(position.cost) if position.cost else Decimal(0)
    return {
        "asset_id": asset_id(position.symbol),
        "symbol": position_symbol(position.symbol),
        "exchange": "CRYPTO" if "/" in position.symbol else "NASDAQ",
        "asset_class": _asset_class(position.symbol),
        "asset_marginable": False,
        "avg_entry_price": told(position.avg_entry_price),
        "qty": told(position.quantity),
        "qty_available": told(position.quantity),
        "side": "short" if position.quantity < 0 else "long",
        "market_value": told(value),
        "cost_basis": told(position.cost),
        "unrealized_pl": told(profit),
        "unrealized_plpc": told(round(share, 9)),
        "unrealized_intraday_pl": told(profit),
        "unrealized_intraday_plpc": told(round(share, 9)),
        "current_price": told(price),
        "lastday_price": told(price),
        "change_today": "0",
    }


def told_account(account: Account) -> Json:
    """The account."""
    power = told(account.buying_power)
    return {
        "id": account.id,
        "account_number": f"PAPER{account.id[:8].upper()}",
        "status": "ACTIVE",
        "crypto_status": "ACTIVE",
        "currency": "USD",
        "cash": told(account.cash),
        "buying_power": power,
        "regt_buying_power": power,
        "daytrading_buying_power": "0",
        "non_marginable_buying_power": power,
        "accrued_fees": "0",
        "portfolio_value": told(account.equity),
        "equity": told(account.equity),
        "last_equity": told(account.equity),
        "long_market_value": told(account.long_value),
        "short_market_value": told(account.short_value),
        "initial_margin": "0",
        "maintenance_margin": "0",
        "last_maintenance_margin": "0",
        "sma": "0",
        "multiplier": "1",
        "daytrade_count": 0,
        "pattern_day_trader": False,
        "trading_blocked": False,
        "transfers_blocked": False,
        "account_blocked": False,
        "trade_suspended_by_user": False,
        "shorting_enabled": account.shorting,
        "created_at": told_time(account.opened_at),
        "fees_paid": told(account.fees),
        "realized_pl": told(account.realized),
    }


def told_clock(hours: Hours) -> Json:
    """Whether the market is open, in its own time zone."""
    times = {"timestamp": hours.now, "next_open": hours.opens_at, "next_close": hours.closes_at}
    return {"is_open": hours.is_open} | {
        name: at.astimezone(NEW_YORK).isoformat() for name, at in times.items()
    }


def told_asset(symbol: str) -> Json:
    """What can be traded; a symbol with a slash is a pair of the crypto kind."""
    crypto = "/" in symbol
    return {
        "id": asset_id(symbol),
        "class": _asset_class(symbol),
        "exchange": "CRYPTO" if crypto else "NASDAQ",
        "symbol": symbol,
        "name": symbol,
        "status": "active",
        "tradable": True,
        "marginable": False,
        "shortable": not crypto,
        "easy_to_borrow": not crypto,
        "fractionable": True,
        "attributes": [],
        **({"min_order_size": "0.000000001", "min_trade_increment": "0.000000001"} if crypto else {}),
        **({"price_increment": "0.000000001"} if crypto else {}),
    }


def asset_id(symbol: str) -> str:
    """The same for a symbol everywhere."""
    return str(uuid5(NAMESPACE_DNS, symbol))


def position_symbol(symbol: str) -> str:
    """What is held of a pair is told without its slash, unlike its orders."""
    return symbol.replace("/", "")


def _asset_class(symbol: str) -> str:
    return "crypto" if "/" in symbol else "us_equity"


def told(number: Decimal | None) -> str | None:
    """A number, if there is one."""
    return None if number is None else plain(number)


def told_time(moment: datetime) -> str:
    """A time in UTC."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
