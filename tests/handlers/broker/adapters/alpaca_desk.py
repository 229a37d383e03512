"""A desk that stands where Alpaca would, an adapter that asks there, and an order as Alpaca shows it."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, cast

from aiohttp import web

from handlers.clients.alpaca.client import Alpaca
from handlers.clients.database import Database
from tests.handlers.broker.adapters.house import an_order

Json = dict[str, Any]
NO_DATABASE = cast("Database", None)  # nobody here asks it
OURS = an_order(symbol="AAPL", time_in_force="day", limit_price=Decimal("15.25"))
NOW = "2026-11-27T15:00:00.123456789Z"


def as_alpaca_shows(**words: Any) -> Json:
    return {
        "id": "61e69015-8549-4bfd-b9c3-01e75843f47d", "client_order_id": OURS.client_order_id, "symbol": "AAPL",
        "created_at": NOW, "updated_at": NOW, "submitted_at": NOW, "qty": "0.5", "filled_qty": "0",
        "filled_avg_price": None, "type": "limit", "side": "buy", "time_in_force": "day", "limit_price": "15.25",
        "stop_price": None, "status": "new",
    } | words  # fmt: skip


@dataclass
class Desk:
    """Stands where Alpaca would, and answers as a test says."""

    answer: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
    requests: list[web.Request] = field(default_factory=list[web.Request])
    bodies: list[str] = field(default_factory=list[str])

    def says(self, body: object, status: int = 200, **headers: str) -> None:
        async def answer(_: web.Request) -> web.Response:
            text = body if isinstance(body, str) else json.dumps(body)
            return web.Response(
                status=status, text=text, headers={k.replace("_", "-"): v for k, v in headers.items()}
            )

        self.answer = answer

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.bodies.append(await request.text())
        assert self.answer is not None
        return await self.answer(request)


@asynccontextmanager
async def asked_at(base: str) -> AsyncIterator[Alpaca]:
    adapter = Alpaca(base, {"APCA-API-KEY-ID": "PK1", "APCA-API-SECRET-KEY": "s1"})
    try:
        yield adapter
    finally:
        await adapter.close()
