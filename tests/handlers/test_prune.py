"""Old rows go, in as many calls as it takes, and the count of what went comes back."""

import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta

import pytest
from pydantic import ValidationError

from handlers.clients.database import Database
from handlers.clients.retention import Retention
from handlers.maintenance import prune as file
from handlers.maintenance.prune import ROUNDS, Prune, prune
from listener import ConfigError
from tests.handlers.conftest import Owner

KEPT = Retention()
MoveClock = Callable[[timedelta], Awaitable[None]]


async def test_finished_jobs_go_after_a_week(db: Database, owner: Owner, move_clock: MoveClock) -> None:
    await owner.execute("insert into payment_jobs (type) values ('a'), ('b'), ('c')")
    await owner.execute("select cancel(array(select id from jobs where type <> 'c'))")
    await move_clock(timedelta(days=6))
    said = await prune(Prune(), db=db, kept=KEPT)
    assert (said["jobs"], said["more"]) == (0, False)
    await move_clock(timedelta(days=8))
    said = await prune(Prune(), db=db, kept=KEPT)
    assert (said["jobs"], said["more"]) == (2, False)
    assert {"failed_jobs", "stale_outcomes", "alerts", "stripe_events", "broker_callbacks"} < said.keys()
    assert await owner.fetchval("select array_agg(type) from jobs") == ["c"]


async def test_the_days_can_be_chosen_in_either_spelling(
    db: Database, owner: Owner, move_clock: MoveClock
) -> None:
    await owner.execute("insert into payment_jobs (type) values ('a')")
    await owner.execute("select cancel(array(select id from jobs))")
    await move_clock(timedelta(hours=13))
    payload = Prune.model_validate({"completedDays": 0.5, "failed_days": 1})
    assert (await prune(payload, db=db, kept=Retention()))["jobs"] == 1


async def test_a_run_ends_although_more_is_left(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    async def endless(db: Database, function: str, **arguments: object) -> Mapping[str, object]:
        return {"jobs": 5000, "failed_jobs": 1, "alerts": 0, "more": True}

    monkeypatch.setattr(file, "call", endless)
    assert await prune(Prune(), db=db, kept=KEPT) == {
        "jobs": 5000 * ROUNDS,
        "failed_jobs": ROUNDS,
        "alerts": 0,
        "more": True,
    }


def test_days_before_now_are_refused() -> None:
    with pytest.raises(ValidationError):
        Prune(completed_days=-1)


async def test_the_settings_are_the_policy_and_a_job_may_differ_once(
    db: Database, owner: Owner, move_clock: MoveClock
) -> None:
    kept = Retention.of({"PULSE_KEEP_COMPLETED_DAYS": "2", "PULSE_KEEP_FAILED_DAYS": "0.5"})
    assert kept == Retention(2, 0.5)
    await owner.execute("insert into payment_jobs (type) values ('a')")
    await owner.execute("select cancel(array(select id from jobs))")
    await move_clock(timedelta(days=3))
    assert (await prune(Prune(completed_days=4), db=db, kept=kept))["jobs"] == 0
    assert (await prune(Prune(), db=db, kept=kept))["jobs"] == 1


@pytest.mark.parametrize("days", ["a week", "-1", "nan", "1e9"])
def test_a_policy_that_is_no_number_of_days_is_told_at_start(days: str) -> None:
    with pytest.raises(ConfigError, match="PULSE_KEEP_FAILED_DAYS must be a number of days"):
        Retention.of({"PULSE_KEEP_FAILED_DAYS": days})


async def test_events_of_stripe_that_nobody_can_send_again_go(
    db: Database, owner: Owner, move_clock: MoveClock
) -> None:
    """Those that were followed; Stripe shows and sends an event for thirty days."""
    event = {"type": "t", "livemode": True, "job_key": "k", "sent_at": "2026-01-01T00:00:00Z"}
    for id_, handled in (("ended", False), ("open", True)):
        words = json.dumps({**event, "id": id_, "handled": handled})
        await owner.execute("select receive_stripe_event($1::jsonb)", words)
    await move_clock(timedelta(days=39))
    await prune(Prune(), db=db, kept=Retention())
    assert await owner.fetchval("select count(*) from stripe_events") == 2
    await move_clock(timedelta(days=41))
    assert (await prune(Prune(), db=db, kept=Retention()))["more"] is False
    assert await owner.fetchval("select array_agg(id) from stripe_events") == ["open"]
