"""The house with its HTTP face, and a client of it for each adapter."""

import importlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from devstack.gateway import Gateway
from devstack.keys import LOCAL
from handlers.clients.alpaca.client import Alpaca
from handlers.clients.database import Database
from paper.face import face
from paper.rest import rest
from tests.doubles.proxy import answering
from tests.handlers.broker.adapters.alpaca_desk import Desk, asked_at
from tests.handlers.broker.adapters.house import CONTENDERS, Client, Contender, House, client_of
from tests.handlers.conftest import Owner

_CCXT = importlib.import_module("ccxt.async_support")
"""Here, since it takes seconds: at no test's expense, however busy the machine is."""


@pytest.fixture(params=CONTENDERS, ids=lambda one: one.broker)
def contender(request: pytest.FixtureRequest) -> Contender:
    found = request.param
    assert isinstance(found, Contender)
    return found


@pytest.fixture
async def face_url(gateway: Gateway) -> AsyncIterator[str]:
    async with rest(gateway.url, LOCAL.service_role) as call:
        runner = web.AppRunner(face(call), access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


@pytest.fixture
async def house(db: Database, owner: Owner, face_url: str) -> House:
    house = House(db, owner, face_url)
    await house.open()
    return house


@pytest.fixture(scope="session")
def ccxt() -> Any:
    """The library, which takes seconds to be imported."""
    return importlib.import_module("ccxt.async_support")


@pytest.fixture
async def client(contender: Contender, house: House, request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    if contender.broker.startswith("ccxt"):
        request.getfixturevalue("ccxt")
    async with client_of(contender, house) as opened:
        yield opened


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
async def adapter(desk: Desk) -> AsyncIterator[Alpaca]:
    """Our adapter of Alpaca, which asks at the desk."""
    async with answering(desk.handle) as url, asked_at(url) as found:
        yield found
