"""The proof that an exchange of the library sends our client order id, and looks an order up by it. Nothing is placed.

The library passes what it does not know on to the exchange, which ignores it. So that our id stands in a request proves
nothing yet, neither when an order is sent nor when it is looked for. What does:

    sent       a trial of the very request has our id in a field, and the library reads an order's client id back
               from a field of that name (`newClientOrderId` and `clientOrderId` are one name)
    looked up  a trial of the question has our id in its path, or in a field of that name, and the place of the
               exchange's own id is not there, left empty

Found in the library's version 4.5: coinbase drops `clientOrderId` and sends an id of its own making, kraken sends
`cl_ord_id` and looks it up as `userref`, and many more put `?clientOrderId=…` behind an address with an empty id.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from handlers.clients.exchange.ccxt import Request, Stopped, passage

if TYPE_CHECKING:
    from handlers.clients.broker.broker import OrderRequest
    from handlers.clients.exchange.ccxt import Exchange

PARAMS: Final = ("clientOrderId", "client_order_id", "client_oid", "cl_ord_id")
"""The names under which exchanges of the library may take our id; the first is the one that all should."""
_FIELD: Final = re.compile(r"""([\w.-]+)["']?\s*[=:]\s*["']?(?:t-)?$""")
_NO_ID_IN_PATH: Final = re.compile(r"(?<!:)//|/(?=\?|$)")
_NO_ID_IN_FIELD: Final = re.compile(
    r"""\w*(?:id|ids)(?:=(?=&|$)|["']\s*:\s*(?:["']{2}|\[\s*(?:["']{2})?\s*\]|null))""", re.IGNORECASE
)

Send = Callable[[str], Awaitable[object]]
"""Sends the order, with our id under a name."""


@dataclass(frozen=True, slots=True)
class Ways:
    """How our id travels: the parameter that carries it, and the one that asks by it, if any does."""

    sends: str
    asks: str | None


async def prove(exchange: Exchange, order: OrderRequest, send: Send) -> Ways | None:
    """By trials of this very order. None: our id would not arrive, or nobody can tell whether it would.

    Raises what the library raises when the exchange does not answer.
    """
    cid = order.client_order_id
    for name in PARAMS:
        for request in await _tried(send(name), cid):
            field = _field(request, cid)
            if field is not None and _is_read_back(exchange, order, field):
                return Ways(name, await _asks(exchange, order, field))
    return None


async def _asks(exchange: Exchange, order: OrderRequest, field: str) -> str | None:
    cid = order.client_order_id
    for name in dict.fromkeys((*PARAMS, field)):
        for request in await _tried(exchange.fetch_order("", order.symbol, {name: cid}), cid):
            if _NO_ID_IN_PATH.search(request.url) or any(map(_NO_ID_IN_FIELD.search, request.texts)):
                continue  # it would be asked for the order whose id is nothing
            path = request.url.partition("?")[0]
            if cid in path or _plain(_field(request, cid)) == _plain(field):
                return name
    return None


async def _tried(call: Awaitable[object], client_order_id: str) -> list[Request]:
    """What with our id would have gone out."""
    with passage(client_order_id, is_trial=True) as seen:
        try:
            await call
        except Stopped:
            pass
        except Exception as error:
            if not seen.asked and any(kind.__name__ == "OperationFailed" for kind in type(error).__mro__):
                raise  # the exchange did not answer what was asked before: that is no proof of anything
    return seen.asked


def _field(request: Request, client_order_id: str) -> str | None:
    """The name in front of our id."""
    for text in request.texts:
        before, found, _ = text.partition(client_order_id)
        if found and (match := _FIELD.search(before)):
            return match[1]
    return None


def _plain(name: str | None) -> str | None:
    """One name for what exchanges call a thing when it is sent and when it is shown."""
    return name and re.sub(r"[^a-z]|^(?:new|orig)", "", re.sub(r"[^a-z]", "", name.lower()))


def _is_read_back(exchange: Exchange, order: OrderRequest, field: str) -> bool:
    """Whether the library knows the field as the place of a client order id."""
    cid = order.client_order_id
    shown = re.sub(r"^new([A-Z])", lambda match: match[1].lower(), field)
    words = dict.fromkeys((field, shown, shown.replace("Id", "ID")), cid)
    try:
        market = (exchange.markets or {}).get(order.symbol)
        return exchange.parse_order({"id": "1", "status": "1"} | words, market).get("clientOrderId") == cid
    except Exception:  # noqa: BLE001 - the library's or Python's own
        return False
