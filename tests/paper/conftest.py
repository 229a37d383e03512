"""What tests of the paper broker stand on: books made by hand, and accounts behind the gateway."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import web

from devstack.gateway import Gateway
from devstack.keys import LOCAL
from paper import Call, PaperBroker
from paper.face import face
from paper.rest import rest

Opens = Callable[..., Awaitable[PaperBroker]]
Notes = Callable[..., Awaitable[None]]


@pytest.fixture
async def call(gateway: Gateway) -> AsyncIterator[Call]:
    """The functions of a fresh database, through the gateway."""
    async with rest(gateway.url, LOCAL.service_role) as opened:
        yield opened


@pytest.fixture
def open_account(call: Call) -> Opens:
    """Opens an account in a market that never closes, with these settings."""

    async def opened(cash: str = "10000", **settings: Any) -> PaperBroker:
        words = {"cash": cash, "settings": {"market": "always", **settings}}
        answer = await call("open_paper_account", {"opened": words})
        return PaperBroker(call, answer["account_id"])

    return opened


@pytest.fixture
def quote(call: Call) -> Notes:
    """Notes one quote, of now or of another time."""

    async def noted(symbol: str, bid: str | None, ask: str | None, **more: str) -> None:
        await call("note_paper_quotes", {"quotes": [{"symbol": symbol, "bid": bid, "ask": ask, **more}]})

    return noted


@dataclass(frozen=True)
class Face:
    """The HTTP face, and an account's keys."""

    url: str
    broker: PaperBroker
    key_id: str
    secret: str

    @property
    def headers(self) -> dict[str, str]:
        return {"APCA-API-KEY-ID": self.key_id, "APCA-API-SECRET-KEY": self.secret}


@pytest.fixture
async def served(call: Call, open_account: Opens) -> AsyncIterator[Face]:
    """The face, with one account in a market that never closes."""
    answer = await call("open_paper_account", {"opened": {"cash": "10000", "settings": {"market": "always"}}})
    runner = web.AppRunner(face(call), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        broker = PaperBroker(call, answer["account_id"])
        yield Face(f"http://{host}:{port}", broker, answer["key_id"], answer["secret"])
    finally:
        await runner.cleanup()
