"""A new channel is one file: somebody writes it, and a worker process delivers by it what was told to its queue."""

from pathlib import Path

from devstack.gateway import Gateway
from handlers.clients.database import Database
from tests.handlers.alerts.conftest import ALERT, Office, Person
from tests.handlers.conftest import Owner
from tests.projects import StartWorker
from tests.waiting import until

LETTER = '''
"""Alerts as letters: a file each, in the folder that is the target's address."""

import asyncio
from pathlib import Path

from handlers.clients.database import Database
from handlers.clients.delivery import AlertJob, Sending, Sent, Told, deliver, patience
from listener import Job, Queue, handler


@handler(Queue.ALERTS, backoff=patience)
async def letter(payload: AlertJob, *, job: Job, db: Database) -> object:
    return await deliver(db, job, payload, send)


async def send(sending: Sending) -> Told:
    path = Path(sending.target.address) / f"{sending.delivery_id}-{sending.send}"
    await asyncio.to_thread(path.write_text, f"{sending.alert.title}: {sending.alert.message}")
    return Sent(path.name)
'''


async def test_a_channel_is_one_file(
    project: Path,
    checkout: Path,
    start_worker: StartWorker,
    gateway: Gateway,
    office: Office,
    person: Person,
    owner: Owner,
    db: Database,
    tmp_path: Path,
) -> None:
    (project / "handlers" / "alerts").mkdir()
    for name in ("__init__.py", "notify.py"):
        (project / "handlers" / "alerts" / name).symlink_to(checkout / "handlers" / "alerts" / name)
    (project / "handlers" / "alerts" / "letter.py").write_text(LETTER)
    box = tmp_path / "letterbox"
    box.mkdir()
    user = await person(letter=str(box))
    async with start_worker():
        await office.tell(userId=str(user), **ALERT)
        await office.tell("letter", userId=str(user), title="Only", message="by letter")
        await until("all is delivered", lambda: _all_sent(owner, 2))
    assert sorted(path.read_text() for path in box.iterdir()) == [
        "Filled: 10 AAPL at 190.10",
        "Only: by letter",
    ]


async def _all_sent(owner: Owner, count: int) -> bool:
    return bool(
        await owner.fetchval(
            "select count(*) filter (where status = 'sent') = $1 from alert_deliveries", count
        )
    )
