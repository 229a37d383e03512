"""What the client that Alpaca itself publishes sees at the house: run as a program, beside its own packages.

It says what it saw as one JSON object. Its values are those of a broker; the test knows what they should be.
"""

import importlib
import json
import sys
import urllib.request
from collections.abc import Callable
from typing import Any

URL, KEY, SECRET = sys.argv[1:]
HEADERS = {"APCA-API-KEY-ID": KEY, "APCA-API-SECRET-KEY": SECRET}

trading: Any = importlib.import_module("alpaca.trading.client")
asked: Any = importlib.import_module("alpaca.trading.requests")
words: Any = importlib.import_module("alpaca.trading.enums")
APIError: Any = importlib.import_module("alpaca.common.exceptions").APIError


def client_with(key: str, secret: str) -> Any:
    made = trading.TradingClient(key, secret, paper=True, url_override=URL)
    vars(made)["_retry_wait"] = 0  # it would sleep
    return made


def befalls(kind: str, operation: str = "submit") -> None:
    fault = {"kind": kind, "operation": operation, "remaining": 1, "seconds": 1}
    request = urllib.request.Request(
        f"{URL}/paper/faults", json.dumps(fault).encode(), HEADERS, method="POST"
    )
    urllib.request.urlopen(request, timeout=10).close()


def refused(call: Callable[[], Any]) -> list[object]:
    """The status and the code of what is raised."""
    try:
        return ["nothing", str(call())]
    except APIError as error:
        return [error.status_code, error.code]


client = client_with(KEY, SECRET)
wish = {"symbol": "BTC/USD", "side": words.OrderSide.BUY, "time_in_force": words.TimeInForce.GTC}
limit = asked.LimitOrderRequest(**wish, qty=0.5, limit_price=15000.25, client_order_id="official limit")
market = asked.MarketOrderRequest(**wish, qty=0.25, client_order_id="official market")
placed = client.submit_order(limit)
found = client.get_order_by_client_id("official limit")
filled = client.submit_order(market)
opened = client.get_orders(asked.GetOrdersRequest(status=words.QueryOrderStatus.OPEN))
(position,) = client.get_all_positions()
saw: dict[str, object] = {
    "placed": [placed.client_order_id, placed.symbol, placed.qty, placed.limit_price, placed.status.value],
    "found": found.id == placed.id == client.get_order_by_id(placed.id).id,
    "open": [order.client_order_id for order in opened],
    "filled": [filled.status.value, filled.filled_qty, filled.filled_avg_price],
    "position": [position.symbol, position.qty, position.side.value],
    "fills": [one["order_id"] == str(filled.id) for one in client.get("/account/activities/FILL")],
    "clock": client.get_clock().is_open,
    "cash": float(client.get_account().cash) < 1_000_000,
    "taken": refused(lambda: client.submit_order(limit)),
    "no money": refused(
        lambda: client.submit_order(asked.MarketOrderRequest(**wish, qty=100_000, client_order_id="too much"))
    ),
    "no order": refused(lambda: client.get_order_by_client_id("nobody's")),
    "no keys": refused(lambda: client_with(KEY, "wrong").get_account()),
}
client.cancel_order_by_id(placed.id)
saw["canceled"] = client.get_order_by_id(placed.id).status.value
saw["too late to cancel"] = refused(lambda: client.cancel_order_by_id(placed.id))
befalls("too_fast")
again = asked.MarketOrderRequest(**wish, qty=0.1, client_order_id="official too fast")
saw["after too fast"] = client.submit_order(again).client_order_id
befalls("gateway_timeout")
lost = asked.MarketOrderRequest(**wish, qty=0.1, client_order_id="official lost")
saw["lost"] = refused(lambda: client.submit_order(lost))
saw["lost and found"] = client.get_order_by_client_id("official lost").status.value
print(json.dumps(saw))
