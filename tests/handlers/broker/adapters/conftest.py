"""The house with its HTTP face, and a client of it for each adapter."""

from collections.abc import AsyncIterator

import pytest

from handlers.clients.database import Database
from tests.handlers.broker.adapters.house import CONTENDERS, Client, Contender, House, client_of
from tests.handlers.conftest import Owner


@pytest.fixture(params=CONTENDERS, ids=lambda one: one.broker)
def contender(request: pytest.FixtureRequest) -> Contender:
    found = request.param
    assert isinstance(found, Contender)
    return found


@pytest.fixture
async def house(db: Database, owner: Owner) -> House:
    house = House(db, owner, "http://127.0.0.1:9")
    await house.open()
    return house


@pytest.fixture
async def client(contender: Contender, house: House) -> AsyncIterator[Client]:
    async with client_of(contender, house) as opened:
        yield opened
