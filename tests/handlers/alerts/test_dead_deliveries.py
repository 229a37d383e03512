"""A delivery whose job is no more is explained, and the replay of its dead letter sends it all the same."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from handlers.clients.alerts.delivery import AlertJob
from handlers.clients.database import Database, call
from listener import Job, Reject
from tests.handlers.alerts.conftest import ALERT, Office, Person, Post
from tests.handlers.conftest import Json, Owner

MoveClock = Callable[[timedelta], Awaitable[None]]


async def stands(office: Office) -> tuple[Any, ...]:
    [row] = await office.deliveries("status", "sends", "resends", "reason")
    return row


@pytest.mark.parametrize("has_begun", [False, True])
async def test_a_dead_letter_explains_its_delivery_and_replaying_it_sends(
    office: Office, person: Person, db: Database, move_clock: MoveClock, has_begun: bool
) -> None:
    """What may have arrived before the job died is marked as a second copy."""

    async def dies(payload: AlertJob, *, job: Job, db: Database) -> object:
        if has_begun:
            pace = {"limit_seconds": 45}
            await call(db, "begin_delivery", delivery_id=payload.delivery_id, begun_by=job.key, pace=pace)
        raise Reject("It is over.")

    office.runs("pager", dies)
    await office.tell(userId=str(await person(pager="1")), **ALERT)
    await office.rounds()
    assert await stands(office) == ("failed", int(has_begun), 0, "job_died")

    pager = office.channel("pager", Post())
    await call(db, "replay", job_type="alerts")
    await move_clock(timedelta(minutes=1))
    await office.rounds()
    assert await stands(office) == ("sent", 1 + has_begun, int(has_begun), None)
    assert [one.resend for one in pager.came] == [has_begun]


async def test_a_send_that_ends_after_its_job_has_died_is_no_failure(
    office: Office, person: Person, db: Database
) -> None:
    async def dies(payload: AlertJob, *, job: Job, db: Database) -> object:
        words = {"delivery_id": payload.delivery_id}
        await call(db, "begin_delivery", **words, begun_by=job.key, pace={"limit_seconds": 45})
        raise Reject("It is over.")

    office.runs("pager", dies)
    await office.tell(userId=str(await person(pager="1")), **ALERT)
    await office.rounds()
    [(delivery,)] = await office.deliveries("id")
    for outcome, status in (("refused", "failed"), ("sent", "sent")):
        told = {"outcome": outcome}
        said = await call(db, "record_delivery", delivery_id=delivery, send=1, told=told, is_last=False)
        assert said["status"] == status
    await call(db, "replay", job_type="alerts")
    office.channel("pager", Post())
    await office.rounds()
    assert await stands(office) == ("sent", 1, 0, None)


async def test_a_delivery_that_somebody_holds_keeps_no_outcome_from_being_written(
    office: Office, person: Person, db: Database, owner: Owner, move_clock: MoveClock
) -> None:
    async def dies(payload: AlertJob, *, job: Job, db: Database) -> object:
        raise Reject("It is over.")

    office.runs("pager", dies)
    await office.tell(userId=str(await person(pager="1")), **ALERT)
    await office.round()
    async with owner.transaction():
        await owner.execute("select from alert_deliveries for update")
        await office.rounds()
    assert await owner.fetchval("select count(*) from failed_jobs") == 1
    assert (await stands(office))[0] == "pending"

    office.channel("pager", Post())
    await call(db, "replay", job_type="alerts")
    await move_clock(timedelta(minutes=1))
    await office.rounds()
    assert await stands(office) == ("sent", 1, 0, None)


async def test_a_dead_letter_of_anything_else_is_written_too(office: Office, owner: Owner) -> None:
    words: list[Json] = [{"deliveryId": "17"}, {"deliveryId": None}, {"delivery_id": {"a": 1}}]
    for data in words:
        await office.tell(**data)
    await office.rounds()
    assert await owner.fetchval("select count(*) from failed_jobs") == 3


async def test_a_delivery_whose_job_was_canceled_is_explained_when_it_is_old(
    office: Office, pager: Post, person: Person, db: Database, owner: Owner, move_clock: MoveClock
) -> None:
    await office.tell(userId=str(await person(pager="1")), **ALERT)
    await office.round()
    job = await owner.fetchval("select id from jobs where type = 'pager'")
    await call(db, "cancel", job_ids=[job])
    await move_clock(timedelta(hours=47))
    await call(db, "prune")
    assert (await stands(office))[0] == "pending"
    await move_clock(timedelta(hours=49))
    await call(db, "prune")
    assert await stands(office) == ("failed", 0, 0, "too_old")
    assert pager.came == []
