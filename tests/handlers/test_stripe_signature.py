"""What Stripe's own library signs we accept, what it refuses we refuse, at the door and in the job."""

import hmac
import json
from datetime import UTC, datetime, timedelta

import pytest
import stripe as library

from devstack.stripe.books import Books
from devstack.stripe.double import WEBHOOK_SECRET, StripeDouble
from handlers.clients.signed_delivery import BadDelivery, secrets_in
from handlers.clients.stripe.client import StripeClient
from handlers.clients.stripe.signature import read_signed
from handlers.payment.stripe_webhook import receive
from listener import Delivery, DeliveryRefused, Queue, Reject
from tests.handlers.conftest import Attempt, Json

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
SETTINGS = {"STRIPE_WEBHOOK_SECRET": WEBHOOK_SECRET}


def an_event() -> Json:
    return Books().event("customer.created", {"id": "cus_1", "object": "customer"}, int(NOW.timestamp()))


def signed(body: bytes, at: datetime = NOW, secret: str = WEBHOOK_SECRET) -> str:
    """As Stripe's library computes it."""
    moment = int(at.timestamp())
    made: str = library.WebhookSignature._compute_signature(f"{moment}.{body.decode()}", secret)
    return f"t={moment},v1={made}"


def signed_bytes(body: bytes) -> str:
    """The same over bytes that the library would not take."""
    moment = int(NOW.timestamp())
    made = hmac.new(WEBHOOK_SECRET.encode(), b"%d.%b" % (moment, body), "sha256").hexdigest()
    return f"t={moment},v1={made}"


def delivery(body: bytes, signature: str) -> Delivery:
    return Delivery(body, {"stripe-signature": signature}, NOW)


def test_what_the_library_signs_becomes_a_job() -> None:
    event = an_event()
    body = json.dumps(event).encode()
    job = receive(delivery(body, signed(body)), SETTINGS)
    assert (job.queue, job.type, job.idempotency_key) == (Queue.PAYMENT, "stripe_webhook", event["id"])
    assert job.data == event


def test_what_the_double_signs_the_library_accepts() -> None:
    double = StripeDouble()
    body, signature = double.signed(an_event())
    assert library.Webhook.construct_event(body, signature, WEBHOOK_SECRET)["type"] == "customer.created"


def test_a_thin_event_that_the_double_signs_the_library_accepts_and_so_do_we() -> None:
    double = StripeDouble()
    body, signature = double.signed(double.books.thin(an_event()), at=NOW.timestamp())
    client = library.StripeClient("sk_test_1")
    notification = client.parse_event_notification(body, signature, WEBHOOK_SECRET, tolerance=10**9)
    assert notification.type == "v1.customer.created"
    job = receive(delivery(body, signature), SETTINGS)
    assert (job.data["object"], job.idempotency_key) == ("v2.core.event", notification.id)


BODY = json.dumps(an_event()).encode()
GOOD = signed(BODY)
TAMPERED = {
    "another secret": (BODY, signed(BODY, secret="whsec_other")),
    "another body": (BODY + b" ", GOOD),
    "another time": (BODY, GOOD.replace("t=1", "t=2")),
    "another scheme": (BODY, GOOD.replace("v1=", "v0=")),
    "no signature": (BODY, ""),
    "no time": (BODY, GOOD.partition(",")[2]),
    "time in words": (BODY, "t=noon,v1=00"),
    "time beyond time": (BODY, signed(BODY).replace("t=", "t=99999999")),
}


@pytest.mark.parametrize(("body", "signature"), TAMPERED.values(), ids=list(TAMPERED))
def test_what_the_library_refuses_we_refuse(body: bytes, signature: str) -> None:
    with pytest.raises(library.SignatureVerificationError):
        library.Webhook.construct_event(body, signature, WEBHOOK_SECRET, tolerance=0)
    with pytest.raises(DeliveryRefused) as refused:
        receive(delivery(body, signature), SETTINGS)
    assert refused.value.status == 400


@pytest.mark.parametrize("letter", ["é", "\udcff"], ids=["not ascii", "not even UTF-8"])
def test_a_signature_of_strange_letters_is_refused_and_no_crash(letter: str) -> None:
    with pytest.raises(DeliveryRefused):
        receive(delivery(BODY, f"t=1,v1={letter}"), SETTINGS)


UNREADABLE = {
    "no JSON": (b"{", "not JSON"),
    "no UTF-8": (b'{"id": "\xff"}', "not UTF-8"),
    "no object": (b"[]", "no id"),
    "no id": (b'{"object": "event"}', "no id"),
}


@pytest.mark.parametrize(("body", "said"), UNREADABLE.values(), ids=list(UNREADABLE))
def test_a_signed_body_that_is_no_event_is_refused_with_a_sentence(body: bytes, said: str) -> None:
    with pytest.raises(DeliveryRefused, match=said) as refused:
        receive(delivery(body, signed_bytes(body)), SETTINGS)
    assert refused.value.status == 400


@pytest.mark.parametrize("seconds", [-301, -300, 0, 300, 301])
def test_the_signature_may_be_five_minutes_off_either_way(seconds: int) -> None:
    signature = signed(BODY, NOW + timedelta(seconds=seconds))
    if abs(seconds) <= 300:
        receive(delivery(BODY, signature), SETTINGS)
    else:
        with pytest.raises(DeliveryRefused, match="seconds away from the time of arrival"):
            receive(delivery(BODY, signature), SETTINGS)


def test_two_secrets_are_valid_while_one_is_rolled() -> None:
    settings = {"STRIPE_WEBHOOK_SECRET": f"whsec_old, {WEBHOOK_SECRET}"}
    assert secrets_in(settings["STRIPE_WEBHOOK_SECRET"]) == ["whsec_old", WEBHOOK_SECRET]
    for secret in ("whsec_old", WEBHOOK_SECRET):
        receive(delivery(BODY, signed(BODY, secret=secret)), settings)
    both = f"{signed(BODY, secret='whsec_gone')},{signed(BODY).partition(',')[2]}"
    receive(delivery(BODY, both), settings)


def test_no_secret_means_no_trust() -> None:
    with pytest.raises(BadDelivery):
        read_signed(BODY, signed(BODY, secret="x"), [], NOW)


async def test_a_delivery_may_be_verified_in_the_job_long_after_it_came(
    follow: Attempt, double: StripeDouble
) -> None:
    body, signature = double.signed(an_event(), at=NOW.timestamp())
    job = {"raw_body": body.decode(), "signature": signature, "received_at": NOW.isoformat()}
    assert await follow(job) == {"event": "ignored"}
    camel = {"rawBody": body.decode(), "signature": signature, "receivedAt": NOW.isoformat()}
    assert await follow(camel) == {"event": "ignored"}


@pytest.mark.parametrize("minutes", [-6, 6])
async def test_in_the_job_the_tolerance_is_measured_at_the_arrival(
    follow: Attempt, double: StripeDouble, minutes: int
) -> None:
    body, signature = double.signed(an_event())
    arrived = datetime.now(UTC) + timedelta(minutes=minutes)
    with pytest.raises(Reject, match="seconds away from the time of arrival"):
        await follow({"raw_body": body.decode(), "signature": signature, "received_at": arrived.isoformat()})


async def test_a_forged_delivery_in_a_job_is_rejected(follow: Attempt, double: StripeDouble) -> None:
    body, signature = double.signed(an_event(), secret="whsec_of_somebody_else")
    now = datetime.now(UTC).isoformat()
    with pytest.raises(Reject, match="signature fits none"):
        await follow({"raw_body": body.decode(), "signature": signature, "received_at": now})


async def test_without_a_secret_a_delivery_in_a_job_is_rejected_with_the_mend(
    follow: Attempt, stripe: StripeClient, double: StripeDouble
) -> None:
    stripe.webhook_secrets.clear()
    body, signature = double.signed(an_event())
    now = datetime.now(UTC).isoformat()
    with pytest.raises(Reject, match="STRIPE_WEBHOOK_SECRET is not set"):
        await follow({"raw_body": body.decode(), "signature": signature, "received_at": now})
