"""What cannot be followed ends by name, what may pass is tried again, and no text carries what was paid for."""

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import cast
from uuid import UUID

import pytest
from pydantic import ValidationError

from devstack.stripe.double import DROPPED, StripeDouble
from handlers.clients.database import CallFailed, Database, call
from handlers.clients.stripe import client as client_file
from handlers.clients.stripe.client import StripeClient
from handlers.clients.stripe.errors import StripeAway
from handlers.payment.stripe_webhook import StripeWebhook, UnknownUser, stripe_webhook
from listener import Reject, Snooze
from tests.handlers.conftest import Attempt, Json, Owner, a_job

AT_ONCE = {"Stripe-Should-Retry": "false"}
"""Tells the library not to try again by itself within the call."""


@pytest.fixture
def created(double: StripeDouble, user_id: UUID) -> Json:
    *_, event = double.story(user_id, tells_user="subscription").create()
    assert event["type"] == "customer.subscription.created"
    return event


async def test_an_event_of_the_other_mode_is_rejected_by_name(
    follow: Attempt, created: Json, owner: Owner
) -> None:
    with pytest.raises(Reject, match="live mode, but STRIPE_SECRET_KEY is of test mode"):
        await follow({**created, "livemode": True})
    assert await owner.fetchval("select count(*) from stripe_events") == 0


async def test_an_event_that_nobody_needs_is_noted_as_ignored_and_completed(
    follow: Attempt, double: StripeDouble, user_id: UUID, owner: Owner
) -> None:
    customer, *_ = double.story(user_id).create()
    assert await follow(customer) == {"event": "ignored"}
    assert double.requests == []
    noted = await owner.fetchrow("select * from stripe_events")
    assert noted is not None
    assert (noted["id"], noted["status"], noted["object_id"]) == (
        customer["id"],
        "ignored",
        customer["data"]["object"]["id"],
    )
    assert noted["job_key"].startswith("payment-1-")


async def test_an_event_that_was_ignored_is_followed_once_a_handler_knows_its_type(
    follow: Attempt, db: Database, created: Json
) -> None:
    row = {
        "id": created["id"], "type": created["type"], "livemode": False, "job_key": "k", "handled": False,
        "sent_at": "2026-11-24T12:00:00Z",
    }  # fmt: skip
    assert (await call(db, "receive_stripe_event", event=row))["status"] == "ignored"
    assert await follow(created) == {"event": "processed"}


async def test_an_object_that_is_gone_is_skipped_with_a_note(
    follow: Attempt, double: StripeDouble, created: Json, owner: Owner
) -> None:
    double.books.subscriptions.clear()
    assert await follow(created) == {"event": "skipped"}
    assert await owner.fetchval("select note from stripe_events") == "Stripe has no such object (any more)."


async def test_a_checkout_that_is_none_of_ours_is_skipped_with_a_note(
    follow: Attempt, double: StripeDouble, user_id: UUID, owner: Owner
) -> None:
    story = double.story(user_id, tells_user="nobody")
    *_, checkout = story.begin()
    story.session |= {"mode": "payment", "subscription": None, "customer": None, "invoice": None}
    assert await follow(checkout) == {"event": "skipped"}
    note = await owner.fetchval("select note from stripe_events")
    assert note == "This checkout was for no subscription, and names no user."


async def test_a_checkout_without_a_subscription_still_tells_whose_customer_it_is(
    follow: Attempt, double: StripeDouble, user_id: UUID, owner: Owner
) -> None:
    story = double.story(user_id)
    *_, checkout = story.begin()
    story.session |= {"mode": "setup", "subscription": None, "invoice": None}
    assert await follow(checkout) == {"event": "processed"}
    assert await owner.fetchval("select user_id from billing_customers") == user_id


async def test_an_invoice_whose_subscription_is_gone_is_still_a_payment(
    follow: Attempt, double: StripeDouble, user_id: UUID, owner: Owner
) -> None:
    paid = double.story(user_id, tells_user="customer").begin()[4]
    double.books.subscriptions.clear()
    assert await follow(paid) == {"event": "processed"}
    row = await owner.fetchrow("select user_id, subscription_id, status from payments")
    assert row is not None
    assert tuple(row) == (user_id, None, "succeeded")


async def test_a_wrong_address_of_the_api_is_not_taken_for_objects_that_are_gone(
    environment: dict[str, str], created: Json, db: Database
) -> None:
    environment["STRIPE_API_BASE"] += "/wrong"
    async with StripeClient.open(environment) as astray:
        with pytest.raises(Reject, match="HTTP 404"):
            await stripe_webhook(
                StripeWebhook.model_validate(created), job=a_job(created), stripe=astray, db=db
            )


async def test_an_event_without_an_object_to_look_up_is_skipped(follow: Attempt, created: Json) -> None:
    del created["data"]["object"]["id"]
    assert await follow(created) == {"event": "skipped"}


async def test_an_event_that_is_ahead_of_the_one_that_names_the_user_is_tried_again(
    follow: Attempt, double: StripeDouble, user_id: UUID, owner: Owner
) -> None:
    *_, paid, _alias, _active, checkout = double.story(user_id).begin()
    with pytest.raises(UnknownUser, match="client_reference_id"):
        await follow(paid)
    assert await owner.fetchval("select status from stripe_events") == "received"
    assert await owner.fetchval("select count(*) from billing_customers") == 0
    await follow(checkout)
    assert await follow(paid) == {"event": "processed"}
    assert await owner.fetchval("select user_id from payments") == user_id


async def test_an_event_that_was_given_up_for_want_of_a_user_is_enqueued_again_when_the_user_is_known(
    follow: Attempt, double: StripeDouble, user_id: UUID, owner: Owner
) -> None:
    *_, paid, _alias, active, checkout = double.story(user_id).begin()
    for event in (paid, active):
        with pytest.raises(UnknownUser):
            await follow(event)
    await follow(checkout)
    again = "select data from payment_jobs where type = 'stripe_webhook' order by id"
    jobs = [json.loads(row["data"]) for row in await owner.fetch(again)]
    assert {job["id"] for job in jobs} == {paid["id"], active["id"]}
    for job in jobs:
        assert await follow(job) == {"event": "processed"}
    assert await owner.fetchval("select status from payments") == "succeeded"
    assert await owner.fetchval("select count(*) from payment_jobs where type = 'stripe_webhook'") == 2


async def test_a_user_id_that_is_no_uuid_names_nobody(
    follow: Attempt, double: StripeDouble, created: Json
) -> None:
    (subscription,) = double.books.subscriptions.values()
    subscription["metadata"] = {"user_id": "123"}
    with pytest.raises(UnknownUser):
        await follow(created)


async def test_a_deleted_customer_still_has_a_known_user(
    follow: Attempt, double: StripeDouble, user_id: UUID, owner: Owner
) -> None:
    story = double.story(user_id, tells_user="customer")
    for event in story.begin():
        await follow(event)
    double.books.customers[story.customer["id"]] = {
        "id": story.customer["id"], "object": "customer", "deleted": True,
    }  # fmt: skip
    for event in story.cancel():
        await follow(event)
    assert await owner.fetchval("select status from user_subscriptions") == "canceled"


REJECTED = {
    400: "did not understand our request for a Subscription",
    401: "check STRIPE_SECRET_KEY",
    403: "check STRIPE_SECRET_KEY",
}


@pytest.mark.parametrize(("status", "said"), REJECTED.items(), ids=[str(status) for status in REJECTED])
async def test_what_no_retry_mends_is_rejected_with_the_mend(
    follow: Attempt, double: StripeDouble, created: Json, status: int, said: str
) -> None:
    double.fail_next("/v1/subscriptions", status)
    with pytest.raises(Reject, match=said) as rejected:
        await follow(created)
    assert double.api_key not in str(rejected.value)


@pytest.mark.parametrize("status", [429, 500, 503, DROPPED], ids=["429", "500", "503", "no answer"])
async def test_what_may_pass_is_waited_for_and_costs_no_attempt(
    follow: Attempt, double: StripeDouble, created: Json, owner: Owner, status: int
) -> None:
    double.fail_next("/v1/subscriptions", status, times=3, headers=AT_ONCE)
    later = await follow(created)
    assert isinstance(later, Snooze)
    assert timedelta(seconds=5) <= later.delay < timedelta(seconds=10)
    assert await owner.fetchval("select status from stripe_events") == "received"
    double.heal()
    assert await follow(created) == {"event": "processed"}


@pytest.mark.parametrize("status", [429, 503])
async def test_a_failure_that_names_its_end_is_waited_for(
    follow: Attempt, double: StripeDouble, created: Json, status: int
) -> None:
    double.fail_next("/v1/subscriptions", status, headers={**AT_ONCE, "Retry-After": "170"})
    later = await follow(created)
    assert isinstance(later, Snooze)
    assert timedelta(seconds=170) <= later.delay <= timedelta(seconds=170 * 1.25)


async def test_a_stripe_that_is_slow_is_given_up_and_asked_again_later(
    environment: dict[str, str],
    double: StripeDouble,
    created: Json,
    db: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_file, "TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr(client_file, "NETWORK_RETRIES", 0)
    double.slow("/v1/subscriptions", seconds=5)
    payload = StripeWebhook.model_validate(created)
    async with StripeClient.open(environment) as impatient:
        later = await stripe_webhook(payload, job=a_job(created), stripe=impatient, db=db)
    assert isinstance(later, Snooze)
    assert later.reason == "Stripe cannot be reached."


async def test_the_longer_stripe_is_away_the_rarer_it_is_asked_and_in_the_end_the_job_fails(
    stripe: StripeClient, db: Database, double: StripeDouble, created: Json
) -> None:
    async def asked_after(age: timedelta) -> timedelta:
        double.fail_next("/v1/subscriptions", 500, headers=AT_ONCE)
        payload, job = StripeWebhook.model_validate(created), a_job(created, age=age)
        later = await stripe_webhook(payload, job=job, stripe=stripe, db=db)
        assert isinstance(later, Snooze)
        return later.delay

    assert timedelta(minutes=2) <= await asked_after(timedelta(minutes=2)) <= timedelta(minutes=2.6)
    assert timedelta(minutes=15) <= await asked_after(timedelta(days=2)) <= timedelta(minutes=19)
    with pytest.raises(StripeAway, match="HTTP 500"):
        await asked_after(timedelta(days=4))


async def test_a_short_failure_is_over_within_the_call(
    follow: Attempt, double: StripeDouble, created: Json
) -> None:
    double.fail_next("/v1/subscriptions", DROPPED)
    assert await follow(created) == {"event": "processed"}
    assert len(double.requests) == 2


async def test_only_our_database_is_written_to(follow: Attempt, double: StripeDouble, user_id: UUID) -> None:
    for event in double.story(user_id, tells_user="subscription").whole():
        await follow(event)
    assert {request.method for request in double.requests} == {"GET"}


async def test_no_error_quotes_the_event(
    follow: Attempt, double: StripeDouble, stripe: StripeClient, db: Database, created: Json, owner: Owner
) -> None:
    values = {value for value in _leaves(created) if len(value) >= 6 and value not in created["type"]}
    assert any(value.startswith("cus_") for value in values)
    (subscription,) = double.books.subscriptions.values()
    said: list[str] = []

    async def fails() -> None:
        try:
            answer = await follow(created)
        except Exception as error:
            said.append(f"{error} {error!r}")
        else:
            assert isinstance(answer, Snooze)
            said.append(repr(answer))

    for status in (400, 401, 403, 429, 500):
        double.fail_next("/v1/subscriptions", status, headers=AT_ONCE)
        await fails()
    subscription["metadata"] = {}
    await fails()
    subscription |= {"metadata": {"user_id": created["id"][4:]}, "status": "a status of next year"}
    await fails()
    subscription["status"] = {"of": subscription["customer"]}
    await fails()
    await owner.execute("drop table payments, subscriptions cascade")
    subscription["status"] = "active"
    await fails()
    stripe.livemode = True
    await fails()
    with pytest.raises(ValidationError) as invalid:
        StripeWebhook.model_validate({**created, "id": created["data"]})
    said.append(str(invalid.value))
    for text in said:
        assert not [value for value in values if value in text], text


def _leaves(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for inner in cast("Json", value).values():
            yield from _leaves(inner)
    elif isinstance(value, list):
        for inner in cast("list[object]", value):
            yield from _leaves(inner)
    else:
        yield str(value)


async def test_a_refused_call_says_which_function_and_why(db: Database) -> None:
    with pytest.raises(CallFailed, match=r"no_such_function: .*\(PGRST202\)"):
        await call(db, "no_such_function")
