"""From an alert to the mails that tell it: a claim at a time, by SendGrid, each reader once."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from uuid import UUID

import pytest

from handlers.alerts.email import email
from handlers.alerts.notify import notify
from handlers.clients.alerts import sendgrid as client
from handlers.clients.alerts.delivery import AlertJob, patience
from handlers.clients.alerts.gathering import Gathering
from handlers.clients.alerts.mail import Mail, Mailer
from handlers.clients.alerts.told import Told
from handlers.clients.alerts.unsubscribe import Unsubscribed, read_token
from handlers.clients.database import Database
from listener import Job
from listener.attempt import Attempt
from listener.jobs import AttemptRef, WokenBy
from listener.outcomes import Completed, Outcome, Retry, Snooze
from listener.redaction import Redactor
from listener.registry import Handler
from listener.store import ClaimRequest, Store
from tests.doubles.sendgrid import SendGridDouble
from tests.handlers.alerts.mails import UNSUBSCRIBE, mailer_of
from tests.handlers.conftest import Json, Owner
from tests.waiting import until

Person = Callable[..., Awaitable[UUID]]
MoveClock = Callable[[timedelta], Awaitable[None]]
HANDLERS = {
    "notify": Handler(
        "alerts", "notify", notify, AlertJob, {"job": Job, "db": Database}, timedelta(minutes=5), None
    ),
    "email": Handler(
        "alerts",
        "email",
        email,
        AlertJob,
        {"job": Job, "db": Database, "mailer": Mailer},
        timedelta(minutes=5),
        patience,
    ),
}


class Desk:
    """A worker of the alerts queue: what it claims in one round runs side by side."""

    def __init__(self, store: Store, db: Database, mailer: Mailer) -> None:
        self._store = store
        self._db = db
        self._mailer = mailer

    async def round(self) -> list[Outcome]:
        request = ClaimRequest(
            "alerts", list(HANDLERS), 1000, timedelta(minutes=5), WokenBy.SWEEP, sweep=True
        )
        claim = await self._store.claim(request)
        async with asyncio.TaskGroup() as group:
            running = [(job, group.create_task(self._run(job))) for job in claim.jobs]
        ended: list[tuple[AttemptRef, Outcome]] = [(job.ref, task.result()) for job, task in running]
        if ended:
            await self._store.finish(ended, None)
        return [outcome for _, outcome in ended]

    async def rounds(self) -> list[Outcome]:
        """As many as find something due."""
        found: list[Outcome] = []
        while outcomes := await self.round():
            found += outcomes
        return found

    async def _run(self, job: Job) -> Outcome:
        attempt = Attempt(
            job,
            HANDLERS[job.type],
            {Database: self._db, Mailer: self._mailer},
            woken_by=WokenBy.SWEEP,
            redactor=Redactor(),
            emit=lambda _: None,
        )
        outcome = await attempt.run()
        assert outcome is not None
        return outcome


@pytest.fixture
async def sendgrid() -> AsyncIterator[SendGridDouble]:
    async with SendGridDouble() as running:
        yield running
        assert running.strange == []


@pytest.fixture
async def desk(store: Store, db: Database, sendgrid: SendGridDouble) -> AsyncIterator[Desk]:
    async with mailer_of(sendgrid, APP_URL="https://app.example.com") as mailer:
        yield Desk(store, db, mailer)


async def tell(owner: Owner, user: UUID, key: str = "one", **more: object) -> None:
    told: Json = {
        "user_id": str(user),
        "alert_type": "order_filled",
        "title": "Filled",
        "message": "10 AAPL",
        **more,
    }
    await owner.execute("select route_alert($1, $2::text::jsonb)", key, json.dumps(told))


async def rows(owner: Owner) -> list[tuple[object, ...]]:
    found = await owner.fetch(
        "select address, status, reason, sends, resends from alert_deliveries order by address"
    )
    return [tuple(row) for row in found]


async def test_the_example_of_the_brief_is_a_mail_to_the_users_own_address(
    desk: Desk, db: Database, sendgrid: SendGridDouble, person: Person, owner: Owner
) -> None:
    user = await person(email="ann@example.com", discord="1")
    data: Json = {
        "userId": str(user),
        "alertType": "order_filled",
        "title": "Filled",
        "message": "10 AAPL",
        "metadata": {},
    }
    await db.from_("alerts_jobs").insert({"type": "email", "data": data}).execute()
    await desk.rounds()
    [mail] = sendgrid.inbox
    assert (mail.to, mail.subject) == ("ann@example.com", "Filled")
    assert "10 AAPL" in mail.text
    assert "10 AAPL" in mail.html
    assert mail.headers["List-Unsubscribe"].startswith("<https://jobs.example.com/unsubscribe/")
    assert mail.headers["List-Unsubscribe"].strip("<>") in mail.html
    assert await rows(owner) == [("ann@example.com", "sent", None, 1, 0)]
    assert await owner.fetchval("select provider_id from alert_deliveries") == mail.message_id


async def test_the_mails_of_one_claim_leave_as_a_handful_of_requests(
    store: Store, db: Database, sendgrid: SendGridDouble, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However slow this machine is: SendGrid answers nothing before all mails are there.
    monkeypatch.setattr(client, "TIMEOUT_SECONDS", 50.0)
    sendgrid.next = ["hang"] * client.AT_ONCE
    there = 0
    original = Gathering[Mail, Told].send

    async def noting(self: Gathering[Mail, Told], mail: Mail) -> Told:
        nonlocal there
        there += 1
        return await original(self, mail)

    monkeypatch.setattr(Gathering, "send", noting)
    await owner.execute(
        """
        insert into auth.users (id, email, email_confirmed_at)
        select gen_random_uuid(), 'user-' || n || '@example.com', now() from generate_series(1, 150) as n
        """
    )
    await owner.execute(
        """
        select route_alert('k' || email, jsonb_build_object(
            'user_id', id, 'alert_type', 'order_filled', 'title', 'Filled', 'message', 'for ' || email))
        from auth.users
        """
    )
    sendgrid.bad = {"user-77@example.com"}
    async with mailer_of(sendgrid) as mailer, asyncio.TaskGroup() as group:
        round_ = group.create_task(Desk(store, db, mailer).round())
        await until("all mails are there", lambda: there == 150)
        sendgrid.let_go()
    assert len(round_.result()) == 150
    assert len(sendgrid.requests) <= client.AT_ONCE + 1 + 2  # two more for the bad address
    assert sorted(one.to for one in sendgrid.inbox) == sorted(
        f"user-{n}@example.com" for n in range(1, 151) if n != 77
    )
    assert all(f"for {one.to}" in one.text.replace("\u200c", "") for one in sendgrid.inbox)
    counted = await owner.fetch("select status, count(*) from alert_deliveries group by status")
    assert {row[0]: row[1] for row in counted} == {"sent": 149, "failed": 1}
    suppressed = await owner.fetch("select address, scope, reason from email_suppressions")
    assert [tuple(row) for row in suppressed] == [("user-77@example.com", "all", "invalid")]


async def test_a_lost_answer_is_sent_once_more_and_says_so_and_never_again(
    desk: Desk, sendgrid: SendGridDouble, person: Person, owner: Owner, move_clock: MoveClock
) -> None:
    await tell(owner, await person(email="ann@example.com"))
    sendgrid.next = ["cut", "cut"]
    [first] = await desk.rounds()
    assert isinstance(first, Snooze)
    assert await rows(owner) == [("ann@example.com", "sending", "no_answer", 1, 0)]
    for minutes in (2, 60, 60 * 10):
        await move_clock(timedelta(minutes=minutes))
        await desk.rounds()
    assert await rows(owner) == [("ann@example.com", "unknown", "no_answer", 2, 1)]
    once, again = sendgrid.inbox
    assert once.custom_args == again.custom_args
    assert "had this mail before" not in once.text
    assert "had this mail before" in again.text


async def test_a_limit_that_one_process_meets_stops_all(
    desk: Desk,
    sendgrid: SendGridDouble,
    store: Store,
    db: Database,
    person: Person,
    owner: Owner,
    move_clock: MoveClock,
) -> None:
    user = await person(email="ann@example.com")
    sendgrid.allowed, sendgrid.reset_in = 0, 60
    await tell(owner, user, "one")
    await desk.rounds()
    await tell(owner, user, "two")
    async with mailer_of(sendgrid) as other:
        await Desk(store, db, other).rounds()
        assert len(sendgrid.requests) == 1
        assert [row[1:] for row in await rows(owner)] == [
            ("pending", "too_fast", 1, 0),
            ("pending", None, 0, 0),
        ]
        sendgrid.allowed = None
        await move_clock(timedelta(minutes=2))
        await Desk(store, db, other).rounds()
    assert [one.to for one in sendgrid.inbox] == ["ann@example.com"] * 2


async def test_an_address_that_is_none_gets_nothing_more(
    desk: Desk, sendgrid: SendGridDouble, person: Person, owner: Owner
) -> None:
    user = await person(email="ann@exa mple")
    for key in ("one", "two"):
        await tell(owner, user, key)
        await desk.rounds()
    found = [row[1:3] for row in await rows(owner)]
    assert sorted(found) == [("failed", "invalid_address"), ("suppressed", "invalid")]
    assert sendgrid.requests == []


async def test_a_key_that_is_refused_is_ours_to_mend_and_the_job_sends_after_a_replay(
    desk: Desk, sendgrid: SendGridDouble, person: Person, owner: Owner, move_clock: MoveClock
) -> None:
    await tell(owner, await person(email="ann@example.com"))
    right, sendgrid.key = sendgrid.key, "SG.changed"
    outcomes: list[Outcome] = []
    for minutes in range(0, 24 * 60, 60):
        await move_clock(timedelta(minutes=minutes))
        outcomes += await desk.rounds()
    assert {type(one) for one in outcomes} == {Retry, Completed}
    # Operators are told of it once a day; midnight may have passed.
    assert await owner.fetchval("select count(*) from alerts where user_id is null") in (1, 2)
    [letter] = await owner.fetch("select id, error_message from failed_jobs")
    assert "SENDGRID_API_KEY" in letter["error_message"]
    assert right not in letter["error_message"]
    sendgrid.key = right
    await owner.execute("select replay(array[$1::bigint])", letter["id"])
    await desk.rounds()
    assert [one.to for one in sendgrid.inbox] == ["ann@example.com"]


async def test_digests_of_one_moment_are_one_request_each_with_its_readers_own_sums(
    desk: Desk, sendgrid: SendGridDouble, person: Person, owner: Owner, move_clock: MoveClock
) -> None:
    users = [await person(email=f"{name}@example.com") for name in ("ann", "bob")]
    for n, user in enumerate(users):
        await owner.execute(
            "insert into notification_preferences (user_id, digest_daily) values ($1, true)", user
        )
        await owner.execute(
            "with c as (insert into broker_connections (user_id, broker) values ($1, 'paper') returning id),"
            " o as (insert into orders"
            "  (user_id, broker_connection_id, client_order_id, symbol, side, order_type, quantity)"
            "  select $1, id, 'c', 'AAPL', 'buy', 'market', 1 from c returning id, broker_connection_id)"
            " insert into order_fills (broker_connection_id, broker_fill_id, order_id, quantity, price, filled_at)"
            "  select broker_connection_id, f::text, id, 1.5, 100.01 * $2, now() from o, generate_series(1, 3) as f",
            user,
            n + 1,
        )
        await owner.fetchval("select sweep_digests($1, 'daily')", user)
        await owner.execute(
            "update digests set window_start = now() - interval '1 day', window_end = now() + interval '1 day'"
        )
    for digest in await owner.fetch("select id from digests"):
        await owner.execute("select route_digest($1)", digest["id"])
    await desk.rounds()
    assert sendgrid.requests == [2]
    mails = {mail.to: mail for mail in sendgrid.inbox}
    assert {to: mail.subject for to, mail in mails.items()} == dict.fromkeys(mails, "Your day: 3 trades")
    assert "AAPL bought" in mails["ann@example.com"].text
    assert "450.04" in mails["ann@example.com"].text.replace("\u200c", "")
    assert "900.09" in mails["bob@example.com"].text
    token = mails["ann@example.com"].headers["List-Unsubscribe"].strip("<>").rpartition("/")[2]
    assert read_token(token, [UNSUBSCRIBE["EMAIL_UNSUBSCRIBE_SECRET"]]) == Unsubscribed(
        "ann@example.com", "digest"
    )


async def test_without_a_backend_nothing_is_lost_in_silence(
    store: Store, db: Database, person: Person, owner: Owner
) -> None:
    await tell(owner, await person(email="ann@example.com"))
    async with Mailer.open({}) as mailer:
        [outcome] = await Desk(store, db, mailer).rounds()
    assert isinstance(outcome, Retry)
    assert "EMAIL_BACKEND is not set" in outcome.error.message
