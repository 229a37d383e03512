"""Real workers: one is stopped (SIGSTOP) right before it sends an order, and thaws after another has sent it."""

import signal
import time
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from handlers.broker.execute_order import SUBMIT_WINDOW
from handlers.clients.database import Database, call
from tests.faults.acting import MoveClock
from tests.handlers.broker.conftest import an_account
from tests.handlers.conftest import Json, Owner
from tests.projects import StartWorker
from tests.waiting import until

RESOURCES = '''
"""A broker that takes every order as often as it is sent, and fills it at once: a file."""

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from handlers.clients.broker.broker import BrokerOrder, BrokerStatus, Dedupe, Hours, Traits
from handlers.clients.broker.brokers import Brokers
from handlers.clients.database import Database
from listener import Setting, Settings, resource
from supabase import create_async_client

BROKER = Path(os.environ["FILE_BROKER"])


def note(name: str, words: object) -> None:
    with (BROKER / name).open("a") as file:
        file.write(f"{words}\\n")


class FileBroker:
    traits = Traits(Dedupe.OPEN_ORDERS, timedelta(seconds=1), misses=1, shows_closed=True, longest_client_id=48)

    async def hours(self, symbol):
        note("asked", os.getpid())
        while not (BROKER / "gate").exists():
            await asyncio.sleep(0.01)
        return Hours(is_open=True, changes_at=None)

    def objection(self, order):
        note("weighed", os.getpid())
        return None

    async def submit(self, order):
        note("orders", order.client_order_id)
        return self.shown(order.client_order_id, order)

    def shown(self, ours, order):
        return BrokerOrder(
            ours, ours, order.symbol, order.side, order.order_type, order.time_in_force, order.quantity,
            BrokerStatus.FILLED, order.quantity, order.limit_price, datetime.now(UTC),
        )

    async def find(self, client_order_id, symbol):
        return None  # asked only while nothing has arrived

    async def close(self):
        pass


async def open_(account):
    return FileBroker()


@resource()
async def database(settings: Settings) -> AsyncIterator[Database]:
    yield await create_async_client(settings["SUPABASE_URL"], settings["SUPABASE_SERVICE_ROLE_KEY"])


@resource()
async def brokers(settings: Settings) -> AsyncIterator[Brokers]:
    db = await create_async_client(settings["SUPABASE_URL"], settings["SUPABASE_SERVICE_ROLE_KEY"])
    async with Brokers.open({"file": open_}, settings, db) as opened:
        yield opened
'''


@pytest.fixture
def file_broker(project: Path, checkout: Path, tmp_path: Path) -> Path:
    """The project gets our own execute_order, and an adapter of its own."""
    family = project / "handlers" / "broker"
    family.mkdir()
    (family / "__init__.py").touch()
    (family / "execute_order.py").symlink_to(checkout / "handlers" / "broker" / "execute_order.py")
    (project / "handlers" / "resources.py").write_text(RESOURCES)
    broker = tmp_path / "broker"
    broker.mkdir()
    return broker


async def test_a_worker_that_thaws_after_another_has_sent_its_order_sends_nothing(
    file_broker: Path, start_worker: StartWorker, db: Database, owner: Owner, move_clock: MoveClock
) -> None:
    tempo = {"sweep": 0.3, "lease": 600.0}  # no heartbeat is due: it has to know by itself
    folder = str(file_broker)
    user = uuid4()
    wish: Json = {"user_id": user, "symbol": "AAPL", "side": "buy", "order_type": "limit"}
    wish |= {"broker_connection_id": await an_account(owner, user, broker="file")}

    def wrote(name: str, pid: int) -> bool:
        file = file_broker / name
        return file.exists() and str(pid) in file.read_text().split()

    async with start_worker(tempo=tempo, FILE_BROKER=folder) as frozen:
        placed = await call(db, "place_order", placed=wish | {"quantity": "1", "limit_price": "10"})
        await until("the first is about to send it", lambda: wrote("asked", frozen.pid))
        frozen.signal(signal.SIGSTOP)
        stopped = time.monotonic()
        (file_broker / "gate").touch()
        await move_clock(timedelta(seconds=601))
        async with start_worker(tempo=tempo, FILE_BROKER=folder):

            async def is_sent() -> bool:
                return bool(await owner.fetchval("select status = 'filled' from orders"))

            await until("the second has sent it", is_sent)
            window = SUBMIT_WINDOW.total_seconds()
            await until("the window is over", lambda: time.monotonic() - stopped > window)
            frozen.signal(signal.SIGCONT)
            await until("the first goes on", lambda: wrote("weighed", frozen.pid))
    assert (file_broker / "orders").read_text().split() == ["pe" + str(placed["order_id"]).replace("-", "")]
    row = await owner.fetchrow("select status, submission, filled_quantity from orders")
    assert row is not None
    assert tuple(row) == ("filled", 2, 1)
