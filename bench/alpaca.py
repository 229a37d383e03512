"""A stand-in for Alpaca that takes no time: it notes when each order arrives, and hangs for those whose key says so."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from aiohttp import web

WORKS, HANGS = "works", "hangs"
"""Keys of accounts."""


class Alpaca:
    """Its address, and what has arrived, by our id and the monotonic clock."""

    def __init__(self) -> None:
        self.url = ""
        self.arrived: dict[str, float] = {}
        self._news = asyncio.Event()
        self._ended = asyncio.Event()

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator["Alpaca"]:
        """Serves until the block ends."""
        alpaca = cls()
        app = web.Application()
        app.router.add_get("/v2/clock", alpaca._clock)
        app.router.add_post("/v2/orders", alpaca._take)
        app.router.add_get("/v2/orders:by_client_order_id", alpaca._find)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0, shutdown_timeout=0.1).start()
            alpaca.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield alpaca
        finally:
            alpaca._ended.set()
            await runner.cleanup()

    async def has(self, client_order_id: str) -> float:
        """When the order arrived; waits for it."""
        async with asyncio.timeout(60):
            while client_order_id not in self.arrived:
                self._news.clear()
                await self._news.wait()
        return self.arrived[client_order_id]

    async def _take(self, request: web.Request) -> web.Response:
        now = time.monotonic()
        order = await request.json()
        self.arrived.setdefault(order["client_order_id"], now)
        self._news.set()
        await self._hang_perhaps(request)
        at = datetime.now(UTC).isoformat()
        known = {"id": f"b-{order['client_order_id']}", "status": "filled", "filled_qty": order["qty"]}
        return web.json_response(
            {**order, **known, "filled_avg_price": "200", "created_at": at, "updated_at": at}
        )

    async def _clock(self, request: web.Request) -> web.Response:
        await self._hang_perhaps(request)
        now = datetime.now(UTC)
        later = (now + timedelta(hours=6)).isoformat()
        return web.json_response(
            {"timestamp": now.isoformat(), "is_open": True, "next_open": later, "next_close": later}
        )

    async def _find(self, request: web.Request) -> web.Response:
        await self._hang_perhaps(request)
        return web.json_response({"code": 40410000, "message": "order not found"}, status=404)

    async def _hang_perhaps(self, request: web.Request) -> None:
        if request.headers.get("APCA-API-KEY-ID") == HANGS:
            await self._ended.wait()
