"""What webhooks lost is found: events that never came, subscriptions that moved unseen, page by page, run by run."""

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from devstack.stripe.double import StripeDouble
from handlers.clients.database import Database
from handlers.clients.stripe.client import StripeClient
from handlers.clients.stripe.sync import sync_subscription
from handlers.payment import reconcile_stripe as file
from handlers.payment.reconcile_stripe import ReconcileStripe, reconcile_stripe
from listener import Snooze
from tests.handlers.conftest import Attempt, Json, Owner, a_job

Run = Callable[[Json], Awaitable[Any]]


@pytest.fixture
def run(stripe: StripeClient, db: Database) -> Run:
    """One attempt at one run."""

    async def attempt(data: Json) -> Any:
        job = a_job(data, type_="reconcile_stripe")
        return await reconcile_stripe(ReconcileStripe.model_validate(data), job=job, stripe=stripe, db=db)

    return attempt


async def jobs(owner: Owner, type_: str) -> list[Json]:
    rows = await owner.fetch("select data from payment_jobs where type = $1 order by id", type_)
    return [json.loads(row["data"]) for row in rows]


async def test_a_reconciliation_has_two_parts(run: Run, owner: Owner) -> None:
    assert await run({}) == {"runs": 2}
    made = await jobs(owner, "reconcile_stripe")
    assert {job["part"] for job in made} == {"events", "subscriptions"}
    since = datetime.fromisoformat(made[0]["since"])
    assert timedelta(days=2.9) < datetime.now(UTC) - since < timedelta(days=3.1)


async def test_events_that_never_came_are_followed_as_if_they_had(
    run: Run, follow: Attempt, double: StripeDouble, user_id: UUID, owner: Owner
) -> None:
    events = double.story(user_id, tells_user="subscription").begin()
    lost = {event["id"] for event in events[3:6]}  # the subscription, and twice the payment
    for event in events:
        if event["id"] not in lost:
            await follow(event)
    counted = await run({"part": "events"})
    assert counted == {"events": len(events), "lost": 3, "waited": 0}
    found = await jobs(owner, "stripe_webhook")
    assert {job["id"] for job in found} == lost
    for job in found:
        await follow(job)
    assert await owner.fetchval("select status from payments") == "succeeded"
    assert (await run({"part": "events"}))["lost"] == 0


async def test_events_from_before_are_left_alone(run: Run, double: StripeDouble, user_id: UUID) -> None:
    story = double.story(user_id)
    story.now -= 10 * 86_400
    story.create()
    assert (await run({"part": "events"}))["events"] == 0
    since = datetime.now(UTC) - timedelta(days=20)
    assert (await run({"part": "events", "since": since}))["lost"] == 1


async def test_subscriptions_that_moved_unseen_are_brought_to_where_stripe_says(
    run: Run, follow: Attempt, double: StripeDouble, owner: Owner
) -> None:
    stories = [double.story(uuid4(), tells_user="subscription") for _ in range(3)]
    for story in stories:
        for event in story.begin():
            await follow(event)
    stories[0].cancel()
    stories[1].fail()
    double.story(uuid4(), tells_user="nobody").begin()
    assert await run({"part": "subscriptions"}) == {"looks": 4, "mended": 2, "unknown": 1}
    statuses = {
        row["user_id"]: row["status"]
        for row in await owner.fetch("select user_id, status from subscriptions")
    }
    assert [statuses[UUID(story.user_id)] for story in stories] == ["canceled", "past_due", "active"]
    assert await run({"part": "subscriptions"}) == {"looks": 4, "mended": 0, "unknown": 1}


@pytest.mark.parametrize("part", ["subscriptions", "events"])
async def test_many_are_taken_page_by_page_and_run_by_run(
    run: Run, double: StripeDouble, owner: Owner, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    monkeypatch.setattr(file, "PAGES", 1)
    for _ in range(55):
        double.story(uuid4(), tells_user="subscription").create()
        double.story(uuid4(), tells_user="subscription").create()
    runs: list[Json] = [{"part": part}]
    for number in range(10):
        if number < len(runs):
            await run(runs[number])
            runs = [runs[0], *await jobs(owner, "reconcile_stripe")]
    assert len(runs) == {"subscriptions": 2, "events": 5}[part]
    if part == "subscriptions":
        assert await owner.fetchval("select count(*) from subscriptions") == 110
    else:
        assert len(await jobs(owner, "stripe_webhook")) == 110


async def test_a_run_that_is_repeated_goes_on_once(
    stripe: StripeClient, db: Database, double: StripeDouble, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file, "PAGES", 1)
    for _ in range(101):
        double.story(uuid4(), tells_user="subscription").create()
    job = a_job({"part": "subscriptions"}, type_="reconcile_stripe")
    for _ in range(2):
        payload = ReconcileStripe(part="subscriptions")
        await reconcile_stripe(payload, job=job, stripe=stripe, db=db)
    assert len(await jobs(owner, "reconcile_stripe")) == 1


async def test_a_limit_of_the_rate_is_waited_for_and_nothing_is_done_twice(
    run: Run, double: StripeDouble, owner: Owner
) -> None:
    double.fail_next("/v1/subscriptions", 429, headers={"Retry-After": "30"})
    later = await run({"part": "subscriptions"})
    assert isinstance(later, Snooze)
    assert timedelta(seconds=30) <= later.delay <= timedelta(seconds=38)
    for _ in range(101):
        double.story(uuid4(), tells_user="subscription").create()
    double.fail_next("/v1/subscriptions", 429, after=1, headers={"Retry-After": "30"})
    assert (await run({"part": "subscriptions"}))["looks"] == 100
    (rest,) = await jobs(owner, "reconcile_stripe")
    assert rest["after"] is not None
    assert (await run(rest))["looks"] == 1


async def test_one_subscription_is_brought_to_where_stripe_says(
    stripe: StripeClient, follow: Attempt, db: Database, double: StripeDouble, user_id: UUID, owner: Owner
) -> None:
    story = double.story(user_id, tells_user="subscription")
    for event in story.begin():
        await follow(event)
    story.renew()
    synced = await sync_subscription(stripe, db, story.subscription["id"])
    assert synced == {"looks": 1, "mended": 1, "unknown": 0}
    ends = story.subscription["items"]["data"][0]["current_period_end"]
    ours = await owner.fetchval("select extract(epoch from current_period_end)::int from subscriptions")
    assert ours == ends
    assert await sync_subscription(stripe, db, "sub_gone") == {"looks": 0, "mended": 0, "unknown": 0}
