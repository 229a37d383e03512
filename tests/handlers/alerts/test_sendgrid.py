"""Mails by SendGrid: few requests, nobody in somebody else's, and what its answer means for each mail."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from handlers.clients.alerts import sendgrid as client
from handlers.clients.alerts.mail import Mail, Sender
from handlers.clients.alerts.sendgrid import SendGrid, hold_of
from handlers.clients.alerts.sendgrid_body import batches_of, body_of
from handlers.clients.alerts.told import Hold, Later, Refused, Sent, Told, Unknown
from tests.doubles.sendgrid import SendGridDouble
from tests.handlers.alerts.mails import a_mail, mailer_of, outcomes
from tests.waiting import until


@pytest.fixture
async def double() -> AsyncIterator[SendGridDouble]:
    async with SendGridDouble() as running:
        yield running
        assert running.strange == []


async def sent(double: SendGridDouble, *mails: Mail, **settings: str) -> list[Told]:
    """What became of mails of one moment."""
    async with mailer_of(double, **settings) as mailer:
        return await asyncio.gather(*(mailer.send(mail) for mail in mails))


async def test_one_mail_arrives_with_its_two_parts_and_the_headers_to_unsubscribe(
    double: SendGridDouble,
) -> None:
    mail = a_mail()
    [told] = await sent(double, mail)
    [got] = double.inbox
    assert told == Sent(got.message_id)
    assert (got.to, got.subject, got.text, got.html) == (mail.to, mail.subject, mail.text, mail.html)
    assert got.headers["List-Unsubscribe"] == f"<{mail.unsubscribe_url}>"
    assert got.headers["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert got.custom_args == {"delivery_id": str(mail.delivery_id)}


async def test_a_thousand_mails_of_one_moment_are_one_request_and_each_has_its_own_words(
    double: SendGridDouble,
) -> None:
    mails = [a_mail(f"user-{n}@example.com", f"{n} shares — für Ünï <b>{n}</b>") for n in range(1000)]
    told = await sent(double, *mails)
    assert double.requests == [1000]
    assert Counter(type(one) for one in told) == {Sent: 1000}
    got = {one.to: (one.text, one.html, one.custom_args["delivery_id"]) for one in double.inbox}
    assert got == {one.to: (one.text, one.html, str(one.delivery_id)) for one in mails}


@pytest.mark.parametrize(("names_fields", "requests"), [(True, 3), (False, 2 * 9 + 1)])
async def test_one_bad_address_of_five_hundred_fails_alone(
    double: SendGridDouble, names_fields: bool, requests: int
) -> None:
    double.bad, double.names_fields = {"user-137@example.com"}, names_fields
    told = await sent(double, *(a_mail(f"user-{n}@example.com", str(n)) for n in range(500)))
    refused = [n for n, one in enumerate(told) if not isinstance(one, Sent)]
    assert refused == [137]
    assert isinstance(told[137], Refused)
    assert len(double.requests) <= requests
    assert sorted(one.to for one in double.inbox) == sorted(
        f"user-{n}@example.com" for n in range(500) if n != 137
    )
    if names_fields:
        assert told[137].suppress == "invalid"


async def test_all_addresses_bad_ends_too_and_tells_each(double: SendGridDouble) -> None:
    double.bad, double.names_fields = {f"user-{n}@example.com" for n in range(20)}, False
    told = await sent(double, *(a_mail(f"user-{n}@example.com") for n in range(20)))
    assert outcomes(told) == ["refused mail_refused"] * 20
    assert double.inbox == []


async def test_two_mails_to_one_address_are_never_in_one_request(double: SendGridDouble) -> None:
    told = await sent(
        double, *(a_mail(to, to) for to in ("ann@example.com", "Ann@Example.com", "bob@example.com"))
    )
    assert outcomes(told) == ["sent"] * 3
    assert sorted(double.requests) == [1, 2]


async def test_a_mail_with_more_words_than_a_request_can_vary_goes_alone(double: SendGridDouble) -> None:
    long = a_mail("long@example.com", "ü" * 4000)
    short = [a_mail(f"user-{n}@example.com", str(n)) for n in range(50)]
    told = await sent(double, *short[:25], long, *short[25:])
    assert outcomes(told) == ["sent"] * 51
    assert sorted(double.requests) == [1, 50]
    [got] = [one for one in double.inbox if one.to == long.to]
    assert (got.text, got.html) == (long.text, long.html)


async def test_a_user_cannot_write_what_would_be_replaced_in_a_mail(double: SendGridDouble) -> None:
    words = (
        "-t0123456789abcdef- -h0123456789abcdef- %name% {{name}} [unsubscribe] <%asm_global_unsubscribe_url%>"
    )
    mails = [a_mail("ann@example.com", words), a_mail("bob@example.com", "secret of bob")]
    await sent(double, *mails)
    assert {one.to: one.text for one in double.inbox} == {one.to: one.text for one in mails}
    names = [
        frozenset(
            json.loads(body_of(batch, Sender("a@example.com", "A")))["personalizations"][0]["substitutions"]
        )
        for batch in batches_of(mails) * 2
    ]
    assert names[0] != names[1]  # of another request, by chance


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ("401", "not_sent key_refused"),
        ("403", "not_sent key_refused"),
        ("404", "not_sent refused"),
        ("413", "refused too_large"),
        ("400", "refused mail_refused"),
        ("500", "unknown no_answer"),
        ("503", "unknown no_answer"),
        ("cut", "unknown no_answer"),
    ],
)
async def test_each_answer_means_one_thing(double: SendGridDouble, answer: str, outcome: str) -> None:
    double.next = [answer]
    assert outcomes(await sent(double, a_mail())) == [outcome]
    assert len(double.requests) == 1


async def test_a_sender_that_is_refused_is_nobodys_fault_and_asked_for_once(double: SendGridDouble) -> None:
    mails = [a_mail(f"user-{n}@example.com") for n in range(30)]
    told = await sent(double, *mails, EMAIL_FROM="Somebody <somebody@else.example>")
    assert set(outcomes(told)) == {"not_sent key_refused"}
    assert len(double.requests) == 1


async def test_a_content_that_is_refused_is_not_sent_in_parts(double: SendGridDouble) -> None:
    mails = [
        Mail(one.delivery_id, one.to, "Filled", "", "")
        for one in (a_mail(f"u{n}@example.com") for n in range(30))
    ]
    told = await sent(double, *mails)
    assert set(outcomes(told)) == {"not_sent request_refused"}
    assert len(double.requests) == 1


async def test_what_cannot_be_reached_was_not_sent(double: SendGridDouble) -> None:
    assert outcomes(await sent(double, a_mail(), SENDGRID_API_BASE="http://127.0.0.1:1")) == [
        "not_sent no_connection"
    ]


async def test_a_provider_that_hangs_is_given_up_and_all_in_that_request_are_unknown(
    double: SendGridDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "TIMEOUT_SECONDS", 3.0)
    double.next = ["hang"]
    told = await sent(double, *(a_mail(f"user-{n}@example.com") for n in range(5)))
    assert outcomes(told) == ["unknown no_answer"] * 5
    assert len(double.requests) == 1


async def test_after_429_nothing_more_is_asked_until_the_reset(double: SendGridDouble) -> None:
    double.allowed, double.reset_in = 0, 40
    async with mailer_of(double) as mailer:
        first = await mailer.send(a_mail())
        second = await mailer.send(a_mail())
    for told in (first, second):
        assert isinstance(told, Later)
        assert timedelta(seconds=5) < told.after <= timedelta(seconds=41)
        assert told.hold == Hold(told.after, whole_channel=True)
    assert len(double.requests) == 1


async def test_the_last_request_that_is_allowed_holds_the_channel_too(double: SendGridDouble) -> None:
    double.allowed = 1
    async with mailer_of(double) as mailer:
        first, second = [await mailer.send(a_mail()) for _ in range(2)]
    assert isinstance(first, Sent)
    assert first.hold is not None
    assert first.hold.whole_channel
    assert isinstance(second, Later)
    assert len(double.requests) == 1


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"X-RateLimit-Reset": "1700000030", "Date": "Tue, 14 Nov 2023 22:13:20 GMT"}, 30),
        ({"X-RateLimit-Reset": "1699999999", "Date": "Tue, 14 Nov 2023 22:13:20 GMT"}, 1),
        ({"X-RateLimit-Reset": "99999999999"}, 3600),
        ({"X-RateLimit-Reset": "nan", "Date": "Tue, 14 Nov 2023 22:13:20 GMT"}, 60),
        ({"X-RateLimit-Reset": "soon"}, 60),
        ({}, 60),
    ],
)
def test_the_time_of_the_reset_is_read_by_the_providers_own_clock(
    headers: dict[str, str], seconds: int
) -> None:
    assert hold_of(headers) == timedelta(seconds=seconds)


async def test_finding_bad_addresses_has_an_end_and_what_was_not_tried_comes_again(
    double: SendGridDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "PATIENCE_SECONDS", -1.0)
    told = await sent(double, *(a_mail(f"user-{n}@example.com") for n in range(4)))
    assert outcomes(told) == ["later too_many_parts"] * 4
    assert double.requests == []


async def test_no_more_than_four_requests_are_under_way(double: SendGridDouble) -> None:
    double.next = ["hang"] * 8
    sender = Sender(double.sender, "PulseEngine")
    async with SendGrid.open(double.key, sender, double.url) as sendgrid, asyncio.TaskGroup() as group:
        sends = [group.create_task(sendgrid.send(a_mail("ann@example.com", str(n)))) for n in range(8)]
        await until("four hang", lambda: len(double.requests) == 4)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(double.requests) == 4
        double.let_go()
    assert outcomes([one.result() for one in sends]) == ["sent"] * 8


async def test_who_waited_behind_a_time_out_does_not_wait_for_another(
    double: SendGridDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "AT_ONCE", 1)
    monkeypatch.setattr(client, "TIMEOUT_SECONDS", 4.0)
    double.next = ["hang"]
    sender = Sender(double.sender, "PulseEngine")
    async with SendGrid.open(double.key, sender, double.url) as sendgrid, asyncio.TaskGroup() as group:
        first = group.create_task(sendgrid.send(a_mail("ann@example.com")))
        await until("it hangs", lambda: len(double.requests) == 1)
        second = group.create_task(sendgrid.send(a_mail("bob@example.com")))
    assert outcomes([first.result(), second.result()]) == ["unknown no_answer", "later provider_away"]
    assert len(double.requests) == 1


async def test_a_name_beyond_ascii_goes_as_far_as_the_provider_takes_it(double: SendGridDouble) -> None:
    told = await sent(double, a_mail(), EMAIL_FROM=f"Pülse Ængine <{double.sender}>")
    assert outcomes(told) == ["sent"]
    assert isinstance(told[0], Sent | Unknown)
