"""The paper broker over HTTP, as a part of Alpaca's trading API: who has a client for that has one for this.

`POST /paper/faults` with {"kind", "operation"?, "remaining"?, "probability"?, "seed"?, "seconds"?} lets a fault befall
the account's coming calls (paper/faults.py), `DELETE /paper/faults` ends them all.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from paper import asking, shapes
from paper.asking import Answered
from paper.broker import PaperBroker
from paper.faults import KINDS
from paper.rest import DatabaseFailed
from paper.store import Call, Store
from paper.words import DuplicateClientId, Fault, Refused, Unusable

_routes = web.RouteTableDef()
_BROKER = web.RequestKey("broker", PaperBroker)
_WORDS = {
    401: {"code": 40110000, "message": "request is not authorized"},
    429: {"code": 42910000, "message": "rate limit exceeded"},
    503: {"code": 50310000, "message": "service unavailable"},
    504: {"code": 50410000, "message": "gateway timeout"},
}
_STATUSES = {"open": True, "closed": False, "all": None}


def face(call: Call) -> web.Application:
    """The application, over a database."""
    app = web.Application(middlewares=[_errors, _Doorkeeper(call).let_in])
    app.add_routes(_routes)
    return app


class _Doorkeeper:
    """Knows whose key a request carries."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._brokers: dict[tuple[str, str], PaperBroker] = {}

    @property
    def let_in(self) -> Any:
        """As a middleware: sets the account that a request is about."""

        @web.middleware
        async def middleware(request: web.Request, handler: Callable[..., Awaitable[Any]]) -> Any:
            names = "APCA-API-KEY-ID", "APCA-API-SECRET-KEY"
            key, secret = (request.headers.get(name, "") for name in names)
            if (key, secret) not in self._brokers:
                account_id = await Store(self._call).account_of(key, secret)
                if account_id is None:
                    raise Answered(*asking.UNAUTHORIZED)
                self._brokers.setdefault((key, secret), PaperBroker(self._call, account_id))
            request[_BROKER] = self._brokers[key, secret]
            return await handler(request)

        return middleware


@web.middleware
async def _errors(request: web.Request, handler: Callable[..., Awaitable[Any]]) -> Any:
    """What was raised, as the API answers it."""
    try:
        try:
            return await handler(request)
        except Refused as refused:
            raise Answered.of(refused) from None
        except DuplicateClientId:
            raise Answered(*asking.DUPLICATE) from None
        except (DatabaseFailed, Unusable):
            raise Answered(500, 50010000, "internal server error occurred") from None
    except Answered as answered:
        return web.json_response(answered.body, status=answered.status)
    except Fault as fault:
        if fault.status is None:
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=500)
        headers = {"Retry-After": f"{fault.after:.0f}"} if fault.status == 429 else {}
        return web.json_response(_WORDS[fault.status], status=fault.status, headers=headers)


@_routes.post("/v2/orders")
async def place(request: web.Request) -> web.Response:
    order = await request[_BROKER].submit(asking.request_of(await request.read()))
    return web.json_response(shapes.told_order(order))


@_routes.get("/v2/orders")
async def list_orders(request: web.Request) -> web.Response:
    query = request.query
    status = query.get("status") or "open"
    if status not in _STATUSES:
        raise Answered(422, 42210000, "invalid status")
    wanted = {
        "open": _STATUSES[status],
        "after": asking.time_of(query, "after"),
        "until": asking.time_of(query, "until"),
        "ascending": query.get("direction") == "asc",
        "limit": asking.whole_of(query, "limit", 50, 500),
        "symbols": query["symbols"].split(",") if query.get("symbols") else None,
        "sides": [query["side"]] if query.get("side") else None,
    }
    return web.json_response([shapes.told_order(order) for order in await request[_BROKER].orders(wanted)])


@_routes.delete("/v2/orders")
async def cancel_all(request: web.Request) -> web.Response:
    ended = await request[_BROKER].cancel_all()
    told = [{"id": order.id, "status": 200, "body": shapes.told_order(order)} for order in ended]
    return web.json_response(told, status=207)


@_routes.get("/v2/orders:by_client_order_id")
async def find_order(request: web.Request) -> web.Response:
    order = await request[_BROKER].find(request.query.get("client_order_id", ""))
    if order is None:
        raise Answered(*asking.NO_ORDER)
    return web.json_response(shapes.told_order(order))


@_routes.get("/v2/orders/{order_id}")
async def get_order(request: web.Request) -> web.Response:
    order = await request[_BROKER].get(request.match_info["order_id"])
    if order is None:
        raise Answered(*asking.NO_ORDER)
    return web.json_response(shapes.told_order(order))


@_routes.delete("/v2/orders/{order_id}")
async def cancel_order(request: web.Request) -> web.Response:
    canceled, order = await request[_BROKER].cancel(request.match_info["order_id"])
    if order is None:
        raise Answered(*asking.NO_ORDER)
    if not canceled:
        raise Answered(422, 42210000, f'order is already in "{order.status}" state')
    return web.Response(status=204)


@_routes.get("/v2/positions")
async def list_positions(request: web.Request) -> web.Response:
    return web.json_response([shapes.told_position(p) for p in await request[_BROKER].positions()])


@_routes.get("/v2/positions/{symbol:.+}")
async def get_position(request: web.Request) -> web.Response:
    wanted = request.match_info["symbol"]
    for position in await request[_BROKER].positions():
        if wanted in (shapes.position_symbol(position.symbol), shapes.asset_id(position.symbol)):
            return web.json_response(shapes.told_position(position))
    raise Answered(*asking.NO_POSITION)


@_routes.get("/v2/account")
async def get_account(request: web.Request) -> web.Response:
    return web.json_response(shapes.told_account(await request[_BROKER].account()))


@_routes.get("/v2/clock")
async def get_clock(request: web.Request) -> web.Response:
    return web.json_response(shapes.told_clock(await request[_BROKER].hours()))


@_routes.get("/v2/account/activities")
@_routes.get("/v2/account/activities/{kind}")
async def list_activities(request: web.Request) -> web.Response:
    query = request.query
    named = query.get("activity_types") or query.get("activity_type") or "FILL"
    if "FILL" not in request.match_info.get("kind", named).split(","):
        return web.json_response([])
    wanted = {
        "since": asking.time_of(query, "after"),
        "until": asking.time_of(query, "until"),
        "ascending": query.get("direction") == "asc",
        "limit": asking.whole_of(query, "page_size", 100, 100),
        "beyond": asking.place_of(query["page_token"]) if query.get("page_token") else None,
    }
    return web.json_response([shapes.told_fill(fill) for fill in await request[_BROKER].fills_page(wanted)])


@_routes.get("/v2/assets")
async def list_assets(request: web.Request) -> web.Response:
    kind = request.query.get("asset_class")
    told = [shapes.told_asset(symbol) for symbol in await request[_BROKER].symbols()]
    return web.json_response([asset for asset in told if kind in (None, asset["class"])])


@_routes.get("/v2/assets/{symbol:.+}")
async def get_asset(request: web.Request) -> web.Response:
    symbol = request.match_info["symbol"]
    if not await request[_BROKER].knows(symbol):
        raise Answered(404, 40410000, f"asset not found for {symbol}")
    return web.json_response(shapes.told_asset(symbol))


@_routes.post("/paper/faults")
async def ask_for_fault(request: web.Request) -> web.Response:
    fault = asking.words_of(await request.read())
    if fault.get("kind") not in KINDS:
        raise Answered(422, 42210000, f"invalid kind: it is one of {', '.join(sorted(KINDS))}")
    await request[_BROKER].ask_for_fault(fault)
    return web.Response(status=204)


@_routes.delete("/paper/faults")
async def end_faults(request: web.Request) -> web.Response:
    await request[_BROKER].ask_for_fault(None)
    return web.Response(status=204)
