"""Many at the same moment: of all attempts at a delivery one sends, of all deliveries to a target one is under way."""

import asyncio
from collections import Counter
from datetime import timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

from handlers.clients.database import Database, call
from tests.handlers.alerts.conftest import ALERT, Office, Person
from tests.handlers.conftest import Owner

PACE = {"limit_seconds": 45, "one_at_a_time": True, "repeatable": False}


async def begin(db: Database, delivery_id: UUID, begun_by: str) -> dict[str, Any]:
    return dict(await call(db, "begin_delivery", delivery_id=delivery_id, begun_by=begun_by, pace=PACE))


async def test_of_many_attempts_at_a_delivery_one_sends_and_its_repeats_are_told_the_same(
    db: Database, office: Office, person: Person, owner: Owner
) -> None:
    await office.tell(userId=str(await person(pager="1")), **ALERT)
    await office.round()
    delivery = await owner.fetchval("select id from alert_deliveries")
    answers = await asyncio.gather(*(begin(db, delivery, f"job:{n % 8}") for n in range(16)))
    steps = Counter(answer["step"] for answer in answers)
    assert steps == {"send": 2, "later": 14}
    [send, again] = [answer for answer in answers if answer["step"] == "send"]
    assert send == again
    assert await office.deliveries("status", "sends", "resends") == [("sending", 1, 0)]


async def test_of_many_deliveries_to_a_target_one_is_under_way_and_the_others_wait_in_line(
    db: Database, office: Office, person: Person, owner: Owner
) -> None:
    user = await person(pager="1")
    for _ in range(12):
        await office.tell(userId=str(user), **ALERT)
    await office.round()
    rows = await owner.fetch("select id from alert_deliveries")
    answers = await asyncio.gather(*(begin(db, row["id"], str(row["id"])) for row in rows))
    assert Counter(answer["step"] for answer in answers) == {"send": 1, "later": 11}
    turns = [
        row["not_before"] for row in await owner.fetch("select not_before from alert_deliveries order by 1")
    ]
    gaps = [later - sooner for sooner, later in pairwise(turns[:-1])]  # the last has no turn: null
    assert min(gaps) >= timedelta(seconds=0.2)

    [sent] = [answer for answer in answers if answer["step"] == "send"]
    told = {"outcome": "sent", "provider_id": "m"}
    records = [
        call(db, "record_delivery", delivery_id=sent["delivery_id"], send=1, told=told, is_last=False)
        for _ in range(4)
    ]
    assert [answer["status"] for answer in await asyncio.gather(*records)] == ["sent"] * 4
    assert await owner.fetchval("select count(*) from delivery_lanes where busy_with is not null") == 0


async def test_the_same_told_at_once_by_many_is_one_alert(
    db: Database, office: Office, person: Person, owner: Owner
) -> None:
    told = {"user_id": await person(pager="1"), "title": "Filled", "dedupe_key": "order 17"}
    answers = await asyncio.gather(
        *(call(db, "route_alert", job_key=f"job {n}", told=told) for n in range(12))
    )
    assert len({answer["alert_id"] for answer in answers}) == 1
    assert await owner.fetchval("select count(*) from alerts_jobs where type = 'pager'") == 1
