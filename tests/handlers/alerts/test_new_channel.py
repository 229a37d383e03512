"""A new channel is one file: somebody writes it, and worker processes deliver by it, whoever of them is killed."""

import signal
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from tests.handlers.alerts.conftest import ALERT, Office, Person
from tests.handlers.conftest import Owner
from tests.projects import StartWorker
from tests.waiting import until

LETTER = '''
"""Alerts as letters: a file each, in the folder that is the target's address."""

import asyncio
from pathlib import Path

from handlers.clients.database import Database
from handlers.clients.alerts.delivery import AlertJob, Sending, deliver, patience
from handlers.clients.alerts.told import Sent, Told
from listener import Job, Queue, handler


@handler(Queue.ALERTS, backoff=patience)
async def letter(payload: AlertJob, *, job: Job, db: Database) -> object:
    return await deliver(db, job, payload, send)


async def send(sending: Sending) -> Told:
    path = Path(sending.target.address) / f"{sending.delivery_id}-{sending.send}"
    again = "again: " if sending.resend else ""
    await asyncio.to_thread(path.write_text, f"{again}{sending.alert.title}: {sending.alert.message}")
    if sending.alert.metadata.get("hold") and not sending.resend:
        await asyncio.Event().wait()
    return Sent(path.name)
'''


@pytest.fixture
def box(project: Path, checkout: Path, tmp_path: Path) -> Path:
    """Where the letters arrive of the project that has the new channel."""
    family = project / "handlers" / "alerts"
    family.mkdir()
    for name in ("__init__.py", "notify.py"):
        (family / name).symlink_to(checkout / "handlers" / "alerts" / name)
    (family / "letter.py").write_text(LETTER)
    box = tmp_path / "letterbox"
    box.mkdir()
    return box


def letters(box: Path) -> list[str]:
    return sorted(path.read_text() for path in box.iterdir())


async def test_a_channel_is_one_file(
    box: Path, start_worker: StartWorker, office: Office, person: Person, owner: Owner
) -> None:
    user = await person(letter=str(box))
    async with start_worker():
        await office.tell(userId=str(user), **ALERT)
        await office.tell("letter", userId=str(user), title="Only", message="by letter")
        await until("all is delivered", lambda: _all_sent(owner, 2))
    assert letters(box) == ["Filled: 10 AAPL at 190.10", "Only: by letter"]


async def test_what_a_killed_worker_had_sent_and_not_recorded_is_sent_again_once_and_marked(
    box: Path,
    start_worker: StartWorker,
    office: Office,
    person: Person,
    owner: Owner,
    move_clock: Callable[[timedelta], Awaitable[None]],
) -> None:
    async with start_worker() as first:
        await office.tell(userId=str(await person(letter=str(box))), **ALERT, metadata={"hold": True})
        await until("the letter is in the box", lambda: letters(box) == ["Filled: 10 AAPL at 190.10"])
        first.signal(signal.SIGKILL)
        await first.ends()
    await move_clock(timedelta(minutes=2))  # its lease is over, and so is its send
    async with start_worker():
        await until("it is delivered", lambda: _all_sent(owner, 1))
    assert letters(box) == ["Filled: 10 AAPL at 190.10", "again: Filled: 10 AAPL at 190.10"]
    assert await office.deliveries("status", "sends", "resends") == [("sent", 2, 1)]


async def _all_sent(owner: Owner, count: int) -> bool:
    return bool(
        await owner.fetchval(
            "select count(*) filter (where status = 'sent') = $1 from alert_deliveries", count
        )
    )
