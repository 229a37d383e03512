"""Connections to the fresh database as the roles that production uses."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import asyncpg
import pytest

from tests.sql.calls import Calls, Connection
from tests.sql.patient import Patient
from tests.sql.schedule_calls import Schedules, set_clock


@pytest.fixture
async def server(database: str) -> AsyncIterator[Calls]:
    """The functions as a worker or a server-side producer calls them: as service_role."""
    connection = await asyncpg.connect(database)
    try:
        await connection.execute("set role service_role")
        yield Calls(connection)
    finally:
        await connection.close()


@pytest.fixture
async def patient(owner: Connection) -> Patient:
    """A healthy project with a worker for the jobs of type `a`."""
    patient = Patient(owner)
    await patient.says(queues=["payment", "maintenance"], types={"payment": ["a"], "maintenance": ["prune"]})
    return patient


@pytest.fixture
async def schedules(server: Calls) -> Schedules:
    """The functions of schedules, as service_role."""
    return Schedules(server.connection)


@pytest.fixture
async def now(owner: Connection) -> datetime:
    """A full hour, at which the clock of the database stands still."""
    now = datetime(2027, 3, 28, 12, tzinfo=UTC)
    await set_clock(owner, now)
    return now
