"""From Stripe's delivery at our door, or a row that a producer inserts, to the subscription: a whole worker at work."""

from uuid import UUID

from devstack.stripe.double import StripeDouble
from handlers.clients.database import Database
from tests.handlers.conftest import Owner
from tests.handlers.stripe_door import no_job_is_open, send
from tests.waiting import until


async def test_what_stripe_delivers_at_the_door_becomes_the_users_subscription(
    door: str, double: StripeDouble, user_id: UUID, owner: Owner
) -> None:
    for event in double.story(user_id, tells_user="subscription").begin():
        status, first = await send(door, *double.signed(event))
        assert (status, first["created"]) == (200, True)
        assert await send(door, *double.signed(event)) == (200, {"id": first["id"], "created": False})
    await until("all jobs have ended", lambda: no_job_is_open(owner))
    assert await owner.fetchval(
        "select array_agg(distinct status) from jobs where type = 'stripe_webhook'"
    ) == ["completed"]
    assert (
        await owner.fetchval("select status from user_subscriptions where user_id = $1", user_id) == "active"
    )
    results = {
        row[0]
        for row in await owner.fetch("select result ->> 'event' from jobs where type = 'stripe_webhook'")
    }
    assert results == {"processed", "ignored"}


async def test_a_forged_delivery_is_refused_with_a_sentence_and_makes_no_job(
    door: str, double: StripeDouble, user_id: UUID, owner: Owner
) -> None:
    event, *_ = double.story(user_id).create()
    status, answer = await send(door, *double.signed(event, secret="whsec_forged"))
    assert status == 400
    assert "signature fits none of our secrets" in answer["said"]
    assert await owner.fetchval("select count(*) from jobs") == 0


async def test_a_row_inserted_by_a_producer_makes_the_subscription_active(
    door: str, db: Database, double: StripeDouble, user_id: UUID, owner: Owner
) -> None:
    """The brief's own test, with a worker in between."""
    event = double.story(user_id, tells_user="subscription").begin()[6]
    await db.from_("payment_jobs").insert({"type": "stripe_webhook", "data": event}).execute()
    await until("the job has ended", lambda: no_job_is_open(owner))
    answer = (
        await db.from_("user_subscriptions").select("status").eq("user_id", str(user_id)).single().execute()
    )
    assert answer.data == {"status": "active"}


async def test_what_cannot_be_followed_becomes_a_dead_letter_that_says_why(
    door: str, db: Database, double: StripeDouble, user_id: UUID, owner: Owner
) -> None:
    event = {**double.story(user_id).create()[3], "livemode": True}
    await db.from_("payment_jobs").insert({"type": "stripe_webhook", "data": event}).execute()
    await until("the job has ended", lambda: no_job_is_open(owner))
    dead = await owner.fetchrow("select job_type, error_class, error_message, attempts from failed_jobs")
    assert dead is not None
    assert tuple(dead)[:2] == ("payment", "Reject")
    assert dead["error_message"] == (
        "Stripe sent this from live mode, but STRIPE_SECRET_KEY is of test mode and cannot see what it is about."
    )
    assert dead["attempts"] == 1


async def test_a_payload_that_is_no_event_becomes_a_dead_letter_that_names_the_fields(
    door: str, db: Database, owner: Owner
) -> None:
    data = {"id": "not an event", "type": 7}
    await db.from_("payment_jobs").insert({"type": "stripe_webhook", "data": data}).execute()
    await until("the job has ended", lambda: no_job_is_open(owner))
    dead = await owner.fetchrow("select error_class, error_message from failed_jobs")
    assert dead is not None
    assert dead["error_class"] == "InvalidPayload"
    assert "livemode" in dead["error_message"]
    assert "not an event" not in dead["error_message"]
