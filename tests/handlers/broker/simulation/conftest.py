"""The handlers' clock is that of the run, and their hard time-outs, which are real, do not interfere with it."""

import pytest

from handlers.broker import execute_order as handler_file
from handlers.clients.broker import guard
from tests.handlers.broker.simulation.virtual_time import Clock


@pytest.fixture(autouse=True)
def virtual_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler_file, "time", Clock)
    monkeypatch.setattr(guard, "CALL", guard.CALL * 100)
