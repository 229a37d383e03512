"""What is told of mails afterwards, through the door of a whole process: by SendGrid, signed, and by their readers."""

import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.alerts.email_event import TOLERANCE, receive_events
from handlers.clients.alerts.sendgrid_events import BadEvents, read_events
from handlers.clients.alerts.unsubscribe import Unsubscribed, read_token, token
from listener import Delivery, DeliveryRefused
from listener.config import read_config
from listener.registry import load
from listener.service import Plan, Service
from tests.doubles.sendgrid import Received, SendGridDouble
from tests.handlers.alerts.mails import UNSUBSCRIBE, sendgrid_settings
from tests.handlers.conftest import Owner
from tests.handlers.stripe_door import free_port, running
from tests.waiting import until

Person = Callable[..., Awaitable[UUID]]
SECRET = UNSUBSCRIBE["EMAIL_UNSUBSCRIBE_SECRET"]


@pytest.fixture
async def sendgrid() -> AsyncIterator[SendGridDouble]:
    async with SendGridDouble() as started:
        yield started


@pytest.fixture
async def door(environment: dict[str, str], sendgrid: SendGridDouble) -> AsyncIterator[str]:
    """The URL of a process that serves alerts."""
    words = environment | sendgrid_settings(sendgrid) | {"SENDGRID_WEBHOOK_KEY": sendgrid.public_key}
    registry = load("handlers", ["alerts"])
    config = read_config(words, [*registry.handler_settings, *registry.webhook_settings])
    port = free_port()
    async with running(Service(config, registry, Plan(["alerts"], port=port, schedules=False))):
        yield f"http://127.0.0.1:{port}"


async def all_is_done(owner: Owner) -> None:
    async def done() -> bool:
        return not await owner.fetchval(
            "select count(*) from alerts_jobs where finished_at is null and type <> 'pager'"
        )

    await until("no job is open", done)


async def a_sent_mail(owner: Owner, sendgrid: SendGridDouble, user: UUID) -> Received:
    known = len(sendgrid.inbox)
    told = {"user_id": str(user), "alert_type": "order_filled", "title": "Filled", "message": "10 AAPL"}
    await owner.execute("select route_alert($1, $2::text::jsonb)", f"job-{known}", json.dumps(told))
    await all_is_done(owner)
    [mail] = sendgrid.inbox[known:]
    return mail


@asynccontextmanager
async def asked(method: str, url: str, **words: Any) -> AsyncIterator[tuple[int, str, Any]]:
    async with aiohttp.ClientSession() as session, session.request(method, url, **words) as answer:
        yield answer.status, await answer.text(), answer.headers


async def deliver(door: str, body: bytes, headers: dict[str, str]) -> tuple[int, str]:
    async with asked("POST", f"{door}/webhooks/sendgrid", data=body, headers=headers) as (status, text, _):
        return status, text


async def states(owner: Owner) -> list[tuple[object, ...]]:
    found = await owner.fetch(
        "select status, reason from alert_deliveries where channel = 'email' order by created_at"
    )
    return [tuple(row) for row in found]


async def suppressions(owner: Owner) -> list[tuple[object, ...]]:
    return [tuple(row) for row in await owner.fetch("select address, scope, reason from email_suppressions")]


TOLD: list[tuple[str, dict[str, str], tuple[str, str | None], str | None]] = [
    (
        "bounce",
        {"type": "bounce", "status": "5.1.1", "reason": "550 5.1.1 none"},
        ("failed", "bounced"),
        "bounce",
    ),
    ("bounce", {"type": "blocked", "reason": "policy"}, ("failed", "blocked"), None),
    ("dropped", {"reason": "Bounced Address"}, ("failed", "bounced"), "bounce"),
    ("dropped", {"reason": "Spam Content"}, ("failed", "blocked"), None),
    ("dropped", {"reason": "Invalid"}, ("failed", "invalid"), "invalid"),
    ("spamreport", {}, ("sent", None), "spam"),
    ("unsubscribe", {}, ("sent", None), "unsubscribe"),
    ("delivered", {"response": "250 OK"}, ("sent", None), None),
    ("open", {"ip": "192.0.2.1"}, ("sent", None), None),
]


async def test_what_sendgrid_tells_is_written_down_once_however_often_it_comes(
    door: str, sendgrid: SendGridDouble, person: Person, owner: Owner
) -> None:
    for n in range(len(TOLD)):
        await a_sent_mail(owner, sendgrid, await person(email=f"User-{n}@example.com"))
    events = [
        sendgrid.event(kind, mail, **more)
        for mail, (kind, more, _, _) in zip(sendgrid.inbox, TOLD, strict=True)
    ]
    for said in (events, events[::-1], [*events, *events]):
        body, headers = sendgrid.signed(said)
        assert [(await deliver(door, body, headers))[0] for _ in range(2)] == [200, 200]
    await all_is_done(owner)
    assert await owner.fetchval("select count(*) from jobs where type = 'email_event'") == 3
    assert (await states(owner))[: len(TOLD)] == [state for _, _, state, _ in TOLD]
    assert sorted(await suppressions(owner)) == [
        (f"user-{n}@example.com", "all", why) for n, (_, _, _, why) in enumerate(TOLD) if why is not None
    ]


async def test_after_a_bounce_the_user_hears_of_it_elsewhere_and_no_mail_is_sent(
    door: str, sendgrid: SendGridDouble, person: Person, owner: Owner
) -> None:
    user = await person(email="ann@example.com", pager="1")
    mail = await a_sent_mail(owner, sendgrid, user)
    body, headers = sendgrid.signed([sendgrid.event("bounce", mail, type="bounce")])
    await deliver(door, body, headers)

    async def told() -> bool:
        return bool(await owner.fetchval("select count(*) from alerts where alert_type = 'target_disabled'"))

    await until("the user is told", told)
    found = await owner.fetch(
        "select d.channel, d.status, d.reason from alert_deliveries d join alerts a on a.id = d.alert_id"
        " where a.alert_type = 'target_disabled' order by 1"
    )
    assert [tuple(row) for row in found] == [("email", "suppressed", "bounce"), ("pager", "pending", None)]
    assert len(sendgrid.inbox) == 1


async def test_a_mail_whose_answer_was_lost_is_known_to_have_arrived_when_sendgrid_says_so(
    door: str, sendgrid: SendGridDouble, person: Person, owner: Owner
) -> None:
    sendgrid.next = ["cut"]
    told = {"user_id": str(await person(email="ann@example.com")), "title": "Filled", "message": "10 AAPL"}
    await owner.execute("select route_alert('job', $1::text::jsonb)", json.dumps(told))

    async def unsure() -> bool:
        return await states(owner) == [("sending", "no_answer")]

    await until("its answer is lost", unsure)
    [mail] = sendgrid.inbox
    await deliver(door, *sendgrid.signed([sendgrid.event("delivered", mail)]))

    async def known() -> bool:
        return await states(owner) == [("sent", None)]

    await until("it is known to have arrived", known)


@pytest.mark.parametrize(
    "state", ["status = 'sending'", "status = 'pending', resends = 1", "status = 'failed', is_unsent = true"]
)
async def test_whatever_became_of_its_sender_a_mail_that_arrived_is_not_sent_again(
    person: Person, owner: Owner, state: str
) -> None:
    told = {"user_id": str(await person(email="ann@example.com")), "title": "Filled", "message": "10 AAPL"}
    await owner.execute("select route_alert('job', $1::text::jsonb)", json.dumps(told))
    delivery = await owner.fetchval(f"update alert_deliveries set {state}, sends = 1 returning id")
    event = {"kind": "delivered", "address": "ann@example.com", "delivery_id": str(delivery)}
    await owner.execute("select record_mail_events($1::text::jsonb)", json.dumps([event]))
    step = await owner.fetchval("select begin_delivery($1, 'next', '{\"limit_seconds\": 30}')", delivery)
    assert json.loads(step) == {"step": "done", "status": "sent", "reason": None}


async def test_an_event_about_another_address_changes_no_delivery(
    door: str, sendgrid: SendGridDouble, person: Person, owner: Owner
) -> None:
    mail = await a_sent_mail(owner, sendgrid, await person(email="ann@example.com"))
    event = sendgrid.event("bounce", mail, email="bob@example.com")
    await deliver(door, *sendgrid.signed([event]))
    await all_is_done(owner)
    assert await states(owner) == [("sent", None)]
    assert await suppressions(owner) == [("bob@example.com", "all", "bounce")]


async def test_what_sendgrid_did_not_sign_is_refused_and_makes_no_job(
    door: str, sendgrid: SendGridDouble, owner: Owner
) -> None:
    events = [{"email": "ann@example.com", "event": "bounce"}]
    body, right = sendgrid.signed(events)
    async with SendGridDouble() as stranger:
        forged = stranger.signed(events)
    old = sendgrid.signed(events, at=int((datetime.now(UTC) - timedelta(days=2)).timestamp()))
    stamp = "X-Twilio-Email-Event-Webhook-Timestamp"
    for said, headers in (forged, old, (body, {}), (body + b" ", right), (body, right | {stamp: "1"})):
        status, text = await deliver(door, said, headers)
        assert status == 400
        assert "signature" in text
    assert await owner.fetchval("select count(*) from jobs") == 0


async def test_a_mail_program_unsubscribes_by_one_request_and_a_person_by_one_button(
    door: str, sendgrid: SendGridDouble, person: Person, owner: Owner
) -> None:
    user = await person(email="ann@example.com")
    mail = await a_sent_mail(owner, sendgrid, user)
    link = mail.headers["List-Unsubscribe"].strip("<>").replace(UNSUBSCRIBE["PULSE_DOOR_URL"], door)
    async with asked("GET", link) as (status, text, headers):
        assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert "a…@example.com" in text
        assert "ann@" not in text
        assert text.count("<button") == 1
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["Referrer-Policy"] == "no-referrer"
    assert await suppressions(owner) == []  # whoever only looks changes nothing
    async with asked("POST", link, data={"List-Unsubscribe": "One-Click"}) as (status, text, _):
        assert (status, json.loads(text)["created"]) == (200, True)
    await all_is_done(owner)
    assert await suppressions(owner) == [("ann@example.com", "all", "unsubscribe")]
    async with asked("POST", link, headers={"Accept": "text/html,*/*"}) as (status, text, headers):
        assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert "any more" in text
    await all_is_done(owner)
    told = {"user_id": str(user), "title": "Filled", "message": "again"}
    await owner.execute("select route_alert('again', $1::text::jsonb)", json.dumps(told))
    assert (await states(owner))[-1] == ("suppressed", "unsubscribe")


async def test_a_link_that_is_not_ours_says_so_and_does_nothing(door: str, owner: Owner) -> None:
    real = token("ann@example.com", "all", SECRET)
    for forged in (
        "x",
        "A" * 40,
        token("ann@example.com", "all", "another secret of somebody"),
        real[:-2],
        "A" + real[1:],
    ):
        for method in ("GET", "POST"):
            async with asked(method, f"{door}/unsubscribe/{forged}") as (status, text, _):
                assert status == 404
                assert "not one of ours" in text
    async with asked("DELETE", f"{door}/unsubscribe/{real}") as (status, _, headers):
        assert (status, headers["Allow"]) == (405, "POST, GET, HEAD")
    assert await owner.fetchval("select count(*) from jobs") == 0


@settings(max_examples=100, deadline=None)
@given(st.emails(), st.sampled_from(["all", "digest"]), st.integers(min_value=0), st.integers(1, 255))
def test_a_token_says_what_was_sealed_and_any_change_breaks_it(
    address: str, scope: Any, at: int, by: int
) -> None:
    made = token(address, scope, "old secret of ours")
    assert len(made) <= 400
    assert read_token(made, ["new", "old secret of ours"]) == Unsubscribed(address.lower(), scope)
    assert read_token(made, ["new"]) is None
    raw = bytearray(base64.urlsafe_b64decode(made + "=" * (-len(made) % 4)))
    raw[at % len(raw)] ^= by
    assert read_token(base64.urlsafe_b64encode(raw).decode().rstrip("="), ["old secret of ours"]) is None


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60), st.text(max_size=60), st.binary(max_size=60))
def test_no_headers_and_no_body_break_the_reading_of_a_signature(
    signature: str, stamp: str, body: bytes
) -> None:
    double = SendGridDouble()
    headers = {
        "x-twilio-email-event-webhook-signature": signature,
        "x-twilio-email-event-webhook-timestamp": stamp,
    }
    with pytest.raises(BadEvents):
        read_events(Delivery(body, headers, datetime.now(UTC)), double.public_key, TOLERANCE)


def test_events_of_any_shape_are_read_without_a_fault() -> None:
    double = SendGridDouble()
    strange: list[object] = [
        None, 1, "x", [], {}, {"event": "bounce"}, {"event": 1, "email": "a@b.cc"}, {"event": "bounce", "email": 5},
        {"event": "dropped", "email": "a@b.cc", "reason": None, "delivery_id": "no uuid"},
        {"event": "bounce", "email": "\ud800@b.cc"}, {"event": "bounce", "email": "\0@b.cc"},
    ]  # fmt: skip
    body, headers = double.signed(strange)
    lower = {name.lower(): value for name, value in headers.items()}
    found = read_events(Delivery(body, lower, datetime.now(UTC)), double.public_key, TOLERANCE)
    assert found == [{"kind": "blocked", "address": "a@b.cc"}]
    body, headers = double.signed([{"event": "bounce", "email": "a@xn--bcher-kva.cc"}])
    lower = {name.lower(): value for name, value in headers.items()}
    found = read_events(Delivery(body, lower, datetime.now(UTC)), double.public_key, TOLERANCE)
    assert [one["address"] for one in found] == ["a@xn--bcher-kva.cc", "a@bücher.cc"]
    for other in ({"event": "bounce"}, "text", 3):
        body, headers = double.signed(other)
        lower = {name.lower(): value for name, value in headers.items()}
        with pytest.raises(BadEvents, match="not a list"):
            read_events(Delivery(body, lower, datetime.now(UTC)), double.public_key, TOLERANCE)


def test_without_a_key_sendgrid_is_asked_to_come_again() -> None:
    with pytest.raises(DeliveryRefused, match="SENDGRID_WEBHOOK_KEY is not set") as refused:
        receive_events(Delivery(b"[]", {}, datetime.now(UTC)), {})
    assert refused.value.status == 503
    with pytest.raises(DeliveryRefused, match="is not a public key"):
        receive_events(Delivery(b"[]", {}, datetime.now(UTC)), {"SENDGRID_WEBHOOK_KEY": "nonsense"})
