"""One row `{}` finds what is due and each step is taken once, whoever bills the subscription."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import ValidationError

from devstack.stripe.double import StripeDouble
from handlers.clients.database import Database
from handlers.clients.stripe.client import StripeClient
from handlers.payment.subscription_renewal import SubscriptionRenewal, subscription_renewal
from listener import Reject, Snooze
from tests.handlers.conftest import Attempt, Owner, a_job

MoveClock = Callable[[timedelta], Awaitable[None]]
Renew = Callable[[dict[str, Any]], Awaitable[Any]]


@pytest.fixture
def renew(db: Database, stripe: StripeClient) -> Renew:
    """One attempt at a renewal job."""

    async def attempt(data: dict[str, Any]) -> Any:
        job = a_job(data, type_="subscription_renewal")
        return await subscription_renewal(
            SubscriptionRenewal.model_validate(data), job=job, stripe=stripe, db=db
        )

    return attempt


async def test_a_sweep_fans_out_and_each_job_takes_its_step(
    renew: Renew, owner: Owner, move_clock: MoveClock
) -> None:
    tier = await owner.fetchval(
        "insert into subscription_tiers (slug, name, price_monthly) values ('pro', 'Pro', 10) returning id"
    )
    users = [uuid4() for _ in range(3)]
    for user in users:
        await owner.fetchval("select extend_paid_period($1, $2, 'manual', 'month', clock_now())", user, tier)
    await move_clock(timedelta(days=40))

    swept = await asyncio.gather(renew({}), renew({}))
    assert sum(each["enqueued"] for each in swept) == 3

    rows = await owner.fetch("select data from payment_jobs where type = 'subscription_renewal' order by id")
    for row in rows:
        assert (await renew(json.loads(row["data"])))["outcome"] == "expired"
        assert (await renew(json.loads(row["data"])))["outcome"] == "unchanged"
    found = await owner.fetch("select user_id, status from user_subscriptions")
    assert {row["user_id"]: row["status"] for row in found} == dict.fromkeys(users, "expired")
    told = await owner.fetchval(
        "select count(*) from payment_jobs where data ->> 'type' = 'subscription_expired'"
    )
    assert told == 3
    assert (await renew({}))["enqueued"] == 0


async def test_a_subscription_that_stripe_bills_is_looked_up_and_not_touched(
    renew: Renew, follow: Attempt, double: StripeDouble, owner: Owner, user_id: UUID, move_clock: MoveClock
) -> None:
    """The event that ended it was lost; a day after its period the sweep finds what Stripe says."""
    story = double.story(user_id, tells_user="subscription")
    for event in story.begin():
        await follow(event)
    before = await owner.fetchrow("select id, status, current_period_end from user_subscriptions")
    assert before is not None
    assert (await renew({"subscriptionId": str(before["id"])}))["outcome"] == "stripe"
    assert await owner.fetchrow("select id, status, current_period_end from user_subscriptions") == before

    story.cancel()
    await move_clock(before["current_period_end"] - datetime.now(UTC) + timedelta(days=1, minutes=1))
    assert (await renew({}))["enqueued"] == 1
    assert (await renew({"subscriptionId": str(before["id"])}))["mended"] == 1
    assert await owner.fetchval("select status from user_subscriptions") == "canceled"
    assert (await renew({}))["enqueued"] == 0


async def test_stripe_that_is_away_costs_no_attempt(
    renew: Renew, follow: Attempt, double: StripeDouble, owner: Owner, user_id: UUID
) -> None:
    for event in double.story(user_id, tells_user="subscription").begin():
        await follow(event)
    subscription = await owner.fetchval("select id from subscriptions")
    double.fail_next("/v1/subscriptions", 503, times=10)
    assert isinstance(await renew({"subscription_id": str(subscription)}), Snooze)


async def test_a_subscription_that_stripe_does_not_know_is_a_dead_letter(
    renew: Renew, follow: Attempt, double: StripeDouble, owner: Owner, user_id: UUID
) -> None:
    """Of test mode, or of another account: nothing would ever end it, and it gives access."""
    for event in double.story(user_id, tells_user="subscription").begin():
        await follow(event)
    double.books.subscriptions.clear()
    subscription = await owner.fetchval("select id from subscriptions")
    with pytest.raises(Reject, match="another account"):
        await renew({"subscription_id": str(subscription)})


async def test_an_unknown_subscription_is_a_dead_letter(renew: Renew) -> None:
    with pytest.raises(Reject, match="no subscription"):
        await renew({"subscriptionId": str(uuid4())})


def test_what_is_no_id_is_refused() -> None:
    with pytest.raises(ValidationError):
        SubscriptionRenewal.model_validate({"subscriptionId": "123"})
