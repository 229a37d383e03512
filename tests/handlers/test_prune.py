"""Old rows go, in as many calls as it takes, and the count of what went comes back."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta

import pytest
from pydantic import ValidationError

from handlers.clients.database import Database
from handlers.maintenance import prune as file
from handlers.maintenance.prune import ROUNDS, Prune, prune
from tests.handlers.conftest import Owner

MoveClock = Callable[[timedelta], Awaitable[None]]


async def test_finished_jobs_go_after_a_week(db: Database, owner: Owner, move_clock: MoveClock) -> None:
    await owner.execute("insert into payment_jobs (type) values ('a'), ('b'), ('c')")
    await owner.execute("select cancel(array(select id from jobs where type <> 'c'))")
    await move_clock(timedelta(days=6))
    assert await prune(Prune(), db=db) == {"jobs": 0, "failed_jobs": 0, "stale_outcomes": 0, "more": False}
    await move_clock(timedelta(days=8))
    assert await prune(Prune(), db=db) == {"jobs": 2, "failed_jobs": 0, "stale_outcomes": 0, "more": False}
    assert await owner.fetchval("select array_agg(type) from jobs") == ["c"]


async def test_the_days_can_be_chosen_in_either_spelling(
    db: Database, owner: Owner, move_clock: MoveClock
) -> None:
    await owner.execute("insert into payment_jobs (type) values ('a')")
    await owner.execute("select cancel(array(select id from jobs))")
    await move_clock(timedelta(hours=13))
    payload = Prune.model_validate({"completedDays": 0.5, "failed_days": 1})
    assert (await prune(payload, db=db))["jobs"] == 1


async def test_a_run_ends_although_more_is_left(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    async def endless(db: Database, function: str, **arguments: object) -> Mapping[str, object]:
        return {"jobs": 5000, "failed_jobs": 1, "stale_outcomes": 0, "more": True}

    monkeypatch.setattr(file, "call", endless)
    assert await prune(Prune(), db=db) == {
        "jobs": 5000 * ROUNDS,
        "failed_jobs": ROUNDS,
        "stale_outcomes": 0,
        "more": True,
    }


def test_days_before_now_are_refused() -> None:
    with pytest.raises(ValidationError):
        Prune(completed_days=-1)
