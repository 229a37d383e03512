"""Connections to the fresh database as the roles that production uses."""

from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.sql.calls import Calls, Connection
from tests.sql.patient import Patient


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
