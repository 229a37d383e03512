"""A subscriber's life, from the first event to the last, ends in our tables as Stripe tells it."""

from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID, uuid4

import pytest

from devstack.stripe.double import StripeDouble
from devstack.stripe.story import Story, TellsUser
from handlers.clients.database import Database
from tests.handlers.conftest import Attempt, Json, Owner


async def status(db: Database, user_id: UUID) -> str:
    """As the brief's own test asks."""
    answer = (
        await db.from_("user_subscriptions").select("status").eq("user_id", str(user_id)).single().execute()
    )
    row = answer.data
    assert isinstance(row, dict)
    return str(row["status"])


async def each(follow: Attempt, events: list[Json]) -> set[object]:
    return {(await follow(event))["event"] for event in events}


async def test_a_webhook_makes_the_subscription_active(
    follow: Attempt, db: Database, double: StripeDouble, user_id: UUID
) -> None:
    story = double.story(user_id, tells_user="subscription")
    await each(follow, story.create())
    assert await status(db, user_id) == "incomplete"
    await each(follow, story.activate())
    assert await status(db, user_id) == "active"


@pytest.mark.parametrize("old_shapes", [False, True], ids=["current shapes", "old shapes"])
async def test_the_whole_story(
    follow: Attempt, db: Database, double: StripeDouble, user_id: UUID, owner: Owner, old_shapes: bool
) -> None:
    double.books.old_shapes = old_shapes
    story = double.story(user_id, tells_user="subscription")
    await each(follow, story.begin())
    await each(follow, story.renew())
    row = await owner.fetchrow("select * from user_subscriptions")
    assert row is not None
    assert row["status"] == "active"
    assert _period(story) == (row["current_period_start"], row["current_period_end"])
    await each(follow, story.fail())
    assert await status(db, user_id) == "past_due"
    await each(follow, story.cancel())
    row = await owner.fetchrow("select * from user_subscriptions")
    assert row is not None
    assert row["status"] == "canceled"
    assert row["ended_at"] == row["canceled_at"] == datetime.fromtimestamp(story.now, UTC)
    paid = await owner.fetch(
        "select status, amount, currency, attempt_count from payments order by created_at"
    )
    assert [tuple(payment) for payment in paid] == [
        ("succeeded", Decimal("29.00"), "usd", 1),
        ("succeeded", Decimal("29.00"), "usd", 1),
        ("failed", Decimal("29.00"), "usd", 1),
    ]


def _period(story: Story) -> tuple[datetime, datetime]:
    item = story.subscription["items"]["data"][0]
    return (
        datetime.fromtimestamp(item["current_period_start"], UTC),
        datetime.fromtimestamp(item["current_period_end"], UTC),
    )


async def test_money_is_recorded_once_and_a_period_begins_once_per_payment(
    follow: Attempt, double: StripeDouble, user_id: UUID, owner: Owner
) -> None:
    """Checkout, invoice.paid and invoice.payment_succeeded all tell of one payment of one yearly period."""
    story = double.story(user_id, tells_user="subscription")
    story.interval = "year"
    events = [*story.begin(), *story.renew()]
    await each(follow, [*events, *events])
    assert await owner.fetchval("select count(*) from payments") == 2
    period = await owner.fetchrow("select current_period_start, current_period_end from user_subscriptions")
    assert period is not None
    assert tuple(period) == _period(story)
    assert period["current_period_end"].year - datetime.now(UTC).year == 2


async def test_an_invoice_that_failed_and_is_paid_later_is_one_payment_that_succeeded(
    follow: Attempt, double: StripeDouble, user_id: UUID, owner: Owner
) -> None:
    story = double.story(user_id, tells_user="subscription")
    await each(follow, [*story.begin(), *story.fail()])
    failed = await owner.fetchrow("select * from payments where status = 'failed'")
    assert failed is not None
    assert failed["next_attempt_at"] is not None
    await each(follow, story.recover())
    paid = await owner.fetchrow("select * from payments where id = $1", failed["id"])
    assert paid is not None
    assert (paid["status"], paid["attempt_count"], paid["next_attempt_at"]) == ("succeeded", 2, None)
    assert paid["paid_at"] == datetime.fromtimestamp(story.now, UTC)


@pytest.mark.parametrize("tells_user", ["checkout", "subscription", "customer"])
async def test_the_user_is_found_wherever_it_is_told(
    follow: Attempt, double: StripeDouble, db: Database, user_id: UUID, tells_user: TellsUser
) -> None:
    story = double.story(user_id, tells_user=tells_user)
    story.create()
    *_, checkout = story.activate()
    await follow(checkout)
    assert await status(db, user_id) == "active"
    await each(follow, story.cancel())
    assert await status(db, user_id) == "canceled"


async def test_what_the_subscription_says_goes_before_what_the_customer_says(
    follow: Attempt, double: StripeDouble, db: Database, user_id: UUID
) -> None:
    story = double.story(uuid4(), tells_user="customer")
    story.create()
    story.subscription["metadata"] = {"userId": str(user_id)}
    await each(follow, story.activate()[:1])
    assert await status(db, user_id) == "active"


async def test_a_user_who_comes_back_has_one_subscription_that_counts(
    follow: Attempt, double: StripeDouble, db: Database, user_id: UUID, owner: Owner
) -> None:
    first, second = (double.story(user_id, tells_user="subscription") for _ in range(2))
    await each(follow, [*first.begin(), *first.cancel(), *second.begin()])
    assert await owner.fetchval("select count(*) from subscriptions where user_id = $1", user_id) == 2
    assert await status(db, user_id) == "active"
    late = double.books.event("customer.subscription.updated", first.subscription, first.now)
    await follow(late)
    assert await status(db, user_id) == "active"
    await each(follow, second.cancel())
    assert await status(db, user_id) == "canceled"


async def test_a_price_that_belongs_to_a_tier_gives_that_tier(
    follow: Attempt, double: StripeDouble, user_id: UUID, owner: Owner
) -> None:
    tier = await owner.fetchval(
        "insert into subscription_tiers (slug, name, price_monthly, stripe_price_monthly)"
        " values ('pro', 'Pro', 29.00, 'price_pro_monthly') returning id"
    )
    await each(follow, double.story(user_id, tells_user="subscription").begin())
    assert await owner.fetchval("select tier_id from user_subscriptions") == tier
