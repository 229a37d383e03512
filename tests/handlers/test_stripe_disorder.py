"""Events come twice, late, in any order, to two workers at once or to one that dies: the end is always Stripe's."""

import asyncio
from uuid import UUID, uuid4

import pytest

from devstack.stripe import chapters
from devstack.stripe.double import StripeDouble
from devstack.stripe.story import Story
from handlers.clients.database import Database, call
from handlers.clients.stripe.client import StripeClient
from handlers.clients.stripe.objects import Subscription
from handlers.payment.stripe_webhook import StripeWebhook, stripe_webhook
from tests.handlers.conftest import Attempt, Json, Owner, a_job
from tests.handlers.mortal import Died, dies_after, make_mortal


async def test_the_same_event_again_asks_stripe_nothing(
    follow: Attempt, double: StripeDouble, user_id: UUID, owner: Owner
) -> None:
    paid, *_ = double.story(user_id, tells_user="subscription").begin()[4:]
    assert await follow(paid) == {"event": "processed"}
    asked = len(double.requests)
    assert await follow(paid) == {"event": "processed"}
    assert len(double.requests) == asked
    assert await owner.fetchval("select count(*) from payments") == 1


async def test_payloads_are_not_believed(
    follow: Attempt, double: StripeDouble, user_id: UUID, owner: Owner
) -> None:
    """An event that says `active` and comes after the cancellation does not bring the subscription back."""
    story = double.story(user_id, tells_user="subscription")
    *_, active, _ = story.begin()
    assert active["data"]["object"]["status"] == "active"
    for deleted in story.cancel():
        await follow(deleted)
    await follow(active)
    assert await owner.fetchval("select status from user_subscriptions") == "canceled"


async def test_who_was_named_keeps_what_is_theirs_when_later_events_name_nobody(
    db: Database, owner: Owner
) -> None:
    """The customer's metadata said one user, the checkout another: the checkout knows better, from then on."""
    at_customer, at_checkout = uuid4(), uuid4()
    subscription = {
        "stripe_subscription_id": "sub_1",
        "stripe_customer_id": "cus_1",
        "status": "active",
        "started_at": "2026-01-01T00:00:00Z",
        "cancel_at_period_end": False,
    }
    payment = {
        "stripe_invoice_id": "in_1",
        "stripe_subscription_id": "sub_1",
        "status": "succeeded",
        "amount": "29.00",
        "currency": "usd",
        "attempt_count": 1,
    }
    for number, named in enumerate([None, at_checkout, None]):
        event = {
            "id": f"evt_{number}",
            "type": "x",
            "livemode": False,
            "job_key": "k",
            "sent_at": "2026-01-01T00:00Z",
        }
        received = await call(db, "receive_stripe_event", event={**event, "handled": True})
        customer = {"id": "cus_1", "user_id": named, "fallback_user_id": at_customer}
        seen = {"customer": customer, "subscription": subscription, "payment": payment}
        await call(db, "apply_stripe_event", event_id=event["id"], ticket=received["ticket"], seen=seen)
        owners = [await owner.fetchval(f"select user_id from {t}") for t in ("subscriptions", "payments")]
        expected = at_customer if number == 0 else at_checkout
        assert owners == [expected, expected]
    assert await owner.fetchval("select user_id from billing_customers") == at_checkout


async def test_a_price_of_two_tiers_does_not_hold_up_its_events(db: Database, owner: Owner) -> None:
    await owner.execute(
        "insert into subscription_tiers (slug, name, price_monthly, stripe_price_monthly, stripe_price_yearly, active)"
        " values ('old', 'Old', 9, 'price_1', null, false), ('pro', 'Pro', 29, null, 'price_1', true)"
    )
    event = {"id": "evt_1", "type": "x", "livemode": False, "job_key": "k", "sent_at": "2026-01-01T00:00Z"}
    received = await call(db, "receive_stripe_event", event={**event, "handled": True})
    seen = {
        "customer": {"id": "cus_1", "user_id": uuid4()},
        "subscription": {
            "stripe_subscription_id": "sub_1",
            "stripe_price_id": "price_1",
            "status": "active",
            "started_at": "2026-01-01T00:00:00Z",
            "cancel_at_period_end": False,
        },
    }
    ended = await call(db, "apply_stripe_event", event_id="evt_1", ticket=received["ticket"], seen=seen)
    assert ended["status"] == "processed"
    found = "select t.slug from subscriptions as s join subscription_tiers as t on t.id = s.tier_id"
    assert await owner.fetchval(found) == "pro"


async def _ours(owner: Owner, story: Story) -> object:
    row = await owner.fetchrow(
        "select status, extract(epoch from current_period_end)::int as period_end from user_subscriptions"
        " where user_id = $1",
        UUID(story.user_id),
    )
    payments = await owner.fetch(
        "select stripe_invoice_id, status from payments where user_id = $1", UUID(story.user_id)
    )
    assert row is not None
    return row["status"], row["period_end"], {tuple(one) for one in payments}


def _theirs(story: Story) -> object:
    invoices = story.books.invoices.values()
    of_story = [one for one in invoices if one["customer"] == story.customer["id"]]
    payments = {(one["id"], "succeeded" if one["status"] == "paid" else "failed") for one in of_story}
    period_end = story.subscription["items"]["data"][0]["current_period_end"]
    return story.subscription["status"], period_end, payments


async def test_two_workers_with_one_event_record_one_payment(
    follow: Attempt, double: StripeDouble, user_id: UUID, owner: Owner
) -> None:
    paid = double.story(user_id, tells_user="subscription").begin()[4]
    assert await asyncio.gather(*(follow(paid) for _ in range(4))) == [{"event": "processed"}] * 4
    assert await owner.fetchval("select count(*) from payments") == 1
    assert await owner.fetchval("select count(*) from stripe_events where status = 'processed'") == 1


async def test_all_events_of_a_life_at_once(
    follow: Attempt, double: StripeDouble, user_id: UUID, owner: Owner
) -> None:
    story = double.story(user_id, tells_user="subscription")
    events = story.whole()
    await asyncio.gather(*(follow(event) for event in [*events, *events]))
    assert await _ours(owner, story) == _theirs(story)


class SlowLook(StripeClient):
    """Looks at once, and comes back with what it saw when it is let go."""

    def __init__(self, of: StripeClient) -> None:
        super().__init__(of._client, livemode=of.livemode, webhook_secrets=of.webhook_secrets)
        self.looked, self.go = asyncio.Event(), asyncio.Event()

    async def subscription(self, object_id: str) -> Subscription | None:
        seen = await super().subscription(object_id)
        self.looked.set()
        await self.go.wait()
        return seen


async def test_an_older_look_does_not_overwrite_a_newer_one(
    follow: Attempt, stripe: StripeClient, db: Database, double: StripeDouble, user_id: UUID, owner: Owner
) -> None:
    story = double.story(user_id, tells_user="subscription")
    *_, updated, _ = story.begin()
    slow = SlowLook(stripe)
    async with asyncio.TaskGroup() as workers:
        payload = StripeWebhook.model_validate(updated)
        late = workers.create_task(stripe_webhook(payload, job=a_job(updated), stripe=slow, db=db))
        await slow.looked.wait()
        for deleted in story.cancel():
            await follow(deleted)
        slow.go.set()
    assert late.result() == {"event": "processed"}
    assert await owner.fetchval("select status from user_subscriptions") == "canceled"


async def _told(owner: Owner) -> list[str]:
    rows = await owner.fetch(
        "select data ->> 'type' as kind from payment_jobs where type = 'payment_notification' order by id"
    )
    return [row["kind"] for row in rows]


async def test_an_older_look_at_a_payment_neither_undoes_nor_tells_what_was_true_before(
    follow: Attempt, stripe: StripeClient, db: Database, double: StripeDouble, user_id: UUID, owner: Owner
) -> None:
    story = double.story(user_id, tells_user="subscription")
    for event in story.begin():
        await follow(event)
    failed = next(event for event in story.fail() if event["type"] == "invoice.payment_failed")
    slow = SlowLook(stripe)
    async with asyncio.TaskGroup() as workers:
        payload = StripeWebhook.model_validate(failed)
        workers.create_task(stripe_webhook(payload, job=a_job(failed), stripe=slow, db=db))
        await slow.looked.wait()
        for paid in story.recover():
            await follow(paid)
        slow.go.set()
    assert await owner.fetchval("select array_agg(distinct status) from payments") == ["succeeded"]
    assert await _told(owner) == ["subscription_activated", "payment_received", "payment_received"]


async def test_an_older_look_at_a_refund_does_not_take_a_newer_one_back(
    follow: Attempt, stripe: StripeClient, db: Database, double: StripeDouble, user_id: UUID, owner: Owner
) -> None:
    story = double.story(user_id, tells_user="subscription")
    for event in story.begin():
        await follow(event)
    first, *_ = chapters.refund(story, 400)
    slow = SlowLook(stripe)
    async with asyncio.TaskGroup() as workers:
        payload = StripeWebhook.model_validate(first)
        workers.create_task(stripe_webhook(payload, job=a_job(first), stripe=slow, db=db))
        await slow.looked.wait()
        for second in chapters.refund(story, 600):
            await follow(second)
        for other in story.renew():  # a newer look at another payment, and at the same subscription
            await follow(other)
        slow.go.set()
    refunded = await owner.fetch("select amount_refunded::text from payments order by ticket")
    assert [row["amount_refunded"] for row in refunded] == ["10.00", "0"]
    refunds = (
        "select data -> 'context' ->> 'amount' from payment_jobs where data ->> 'type' = 'refund_issued'"
    )
    assert await owner.fetchval(refunds) == "10.00"


async def test_a_fact_is_not_told_again_when_its_notice_is_long_forgotten(
    follow: Attempt, double: StripeDouble, user_id: UUID, owner: Owner
) -> None:
    """Keys hold as long as the jobs that carry them; the rows remember for ever what was told."""
    story = double.story(user_id, tells_user="subscription")

    async def is_told_of(events: list[Json]) -> list[str]:
        await owner.execute("delete from jobs")
        for event in events:
            await follow(event)
        return sorted(await _told(owner))

    def again(*abouts: tuple[str, Json]) -> list[Json]:
        return [double.books.event(kind, about, story.now) for kind, about in abouts]

    assert await is_told_of(story.begin()) == ["payment_received", "subscription_activated"]
    assert await is_told_of(chapters.refund(story, 100)) == ["refund_issued"]
    assert await is_told_of(
        again(
            ("customer.subscription.updated", story.subscription),
            ("invoice.paid", story.invoice),
            ("charge.refunded", story.charge),
        )
    ) == []  # fmt: skip
    assert await is_told_of(story.fail()) == ["payment_failed"]
    assert await is_told_of(again(("invoice.payment_failed", story.invoice))) == []
    assert await is_told_of(chapters.ask_to_confirm(story)) == ["payment_action_required"]
    assert await is_told_of(again(("invoice.payment_action_required", story.invoice))) == []


async def test_a_subscription_from_long_before_us_is_not_told_as_new(
    follow: Attempt, double: StripeDouble, user_id: UUID, owner: Owner
) -> None:
    story = double.story(user_id, tells_user="subscription")
    story.now -= 90 * 86_400
    story.begin()
    renewed = story.renew()
    for event in renewed:
        await follow(event)
    assert await _told(owner) == ["payment_received"]


@pytest.mark.parametrize("calls", [1, 2, 3, 4], ids=["noted", "invoice seen", "subscription seen", "written"])
async def test_a_worker_that_dies_loses_nothing_and_doubles_nothing(
    follow: Attempt,
    stripe: StripeClient,
    db: Database,
    double: StripeDouble,
    user_id: UUID,
    owner: Owner,
    monkeypatch: pytest.MonkeyPatch,
    calls: int,
) -> None:
    story = double.story(user_id, tells_user="subscription")
    paid = story.begin()[4]
    make_mortal(monkeypatch)
    with pytest.raises(Died), dies_after(calls):
        await follow(paid)
    assert await owner.fetchval("select status from stripe_events") == (
        "processed" if calls == 4 else "received"
    )
    assert await follow(paid) == {"event": "processed"}
    assert await _ours(owner, story) == _theirs(story)
    assert await owner.fetchval("select count(*) from payments") == 1
