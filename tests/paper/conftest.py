"""What tests of the paper broker stand on: books made by hand, and accounts behind the gateway."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from devstack.gateway import Gateway
from devstack.keys import LOCAL
from paper import Call, PaperBroker
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
