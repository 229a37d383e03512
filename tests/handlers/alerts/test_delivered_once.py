"""A worker dies between any two steps of a delivery, two send at once, answers are lost: nobody is told three times.

Once, where we can know; twice, marked and counted, where only the provider could.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from handlers.clients.alerts import delivery as delivery_file
from handlers.clients.alerts.delivery import AlertJob, NotDelivered, Pace, Sending, deliver, route
from handlers.clients.alerts.told import Later, NotSent, Refused, Sent, Told, Unknown
from handlers.clients.database import CallFailed, Database
from handlers.clients.database import call as database_call
from listener import Job, Snooze
from tests.handlers.alerts.conftest import ALERT, Office, Person, Post
from tests.handlers.conftest import Owner

MoveClock = Callable[[timedelta], Awaitable[None]]
CALL = "call"
"""How deliveries speak to the database."""
IS_OVER = timedelta(minutes=1)
"""So long after it began, a send is over, one way or another."""


class Died(BaseException):
    """The worker is no more; what it had written is written. No handler catches it."""


@dataclass
class Worker:
    """One attempt after the other at one delivery; dies right after its n-th word with the outside, when told so."""

    db: Database
    post: Post
    delivery_id: UUID
    attempts: int = 0
    uncounted: int = 0
    dies_after: int | None = None
    words: int = field(default=0, init=False)

    async def attempt(self) -> Any:
        self.attempts += 1
        payload = AlertJob(delivery_id=self.delivery_id)
        return await deliver(self.db, self.job, payload, self._send, self.post.pace)

    @property
    def job(self) -> Job:
        now = datetime.now(UTC)
        return Job(7, "alerts", "pager", {}, None, 0, now, self.attempts, self.uncounted, 6, now)

    async def _send(self, sending: Sending) -> Told:
        told = await self.post.send(sending)
        self.has_spoken()
        return told

    def has_spoken(self) -> None:
        self.words += 1
        if self.words == self.dies_after:
            raise Died


@pytest.fixture
async def delivery_id(office: Office, person: Person, owner: Owner) -> UUID:
    """A delivery that is due."""
    await office.tell(userId=str(await person(pager="1")), **ALERT)
    await office.round()
    found = await owner.fetchval("select id from alert_deliveries")
    assert isinstance(found, UUID)
    return found


@pytest.fixture
def post() -> Post:
    return Post()


@pytest.fixture
def worker(db: Database, post: Post, delivery_id: UUID, monkeypatch: pytest.MonkeyPatch) -> Worker:
    worker = Worker(db, post, delivery_id)
    call = getattr(delivery_file, CALL)

    async def mortal(db: Database, function: str, **arguments: object) -> Any:
        answer = await call(db, function, **arguments)
        worker.has_spoken()
        return answer

    monkeypatch.setattr(delivery_file, CALL, mortal)
    return worker


async def stands(office: Office) -> tuple[Any, ...]:
    [row] = await office.deliveries("status", "sends", "resends", "reason")
    return row


@pytest.mark.parametrize("repeatable", [False, True])
@pytest.mark.parametrize(
    ("dies_after", "marks"),
    [
        (1, [True]),  # begun, and nothing was sent: nobody but the dead knows
        (2, [False, True]),  # the provider has it, and that is not written
        (3, [False]),  # it is written, and nobody heard
    ],
)
async def test_whenever_a_worker_dies_the_next_one_finishes(
    worker: Worker,
    office: Office,
    move_clock: MoveClock,
    dies_after: int,
    marks: list[bool],
    repeatable: bool,
) -> None:
    worker.post.pace = Pace(repeatable=repeatable)
    worker.dies_after = dies_after
    with pytest.raises(Died):
        await worker.attempt()
    if dies_after < 3:
        soon = await worker.attempt()  # while the dead one might be alive
        assert isinstance(soon, Snooze)
        assert timedelta() < soon.delay < IS_OVER
        await move_clock(IS_OVER)
    assert (await worker.attempt())["status"] == "sent"
    assert [one.resend for one in worker.post.came] == marks
    assert await stands(office) == ("sent", 1 + marks[-1], int(marks[-1]), None)


async def test_a_second_death_is_the_last_where_the_provider_cannot_tell(
    worker: Worker, office: Office, move_clock: MoveClock
) -> None:
    for send in (1, 2):
        worker.words, worker.dies_after = 0, 2
        with pytest.raises(Died):
            await worker.attempt()
        await move_clock(IS_OVER * send)
    ended = await worker.attempt()
    assert (ended["step"], ended["status"], ended["reason"]) == ("done", "unknown", "cut_off")
    assert (len(worker.post.came), await stands(office)) == (2, ("unknown", 2, 1, "cut_off"))
    assert (await worker.attempt())["status"] == "unknown"


async def test_where_the_provider_takes_two_as_one_it_is_sent_until_it_is_known(
    worker: Worker, office: Office, move_clock: MoveClock
) -> None:
    worker.post.pace = Pace(repeatable=True)
    for send in (1, 2, 3):
        worker.words, worker.dies_after = 0, 2
        with pytest.raises(Died):
            await worker.attempt()
        await move_clock(IS_OVER * send)
    worker.dies_after = None
    assert (await worker.attempt())["status"] == "sent"
    assert await stands(office) == ("sent", 4, 3, None)


async def test_a_lost_answer_is_asked_for_again_and_nothing_is_sent_twice(
    worker: Worker, office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each function did its work, and its answer did not arrive: the same call again changes nothing."""
    monkeypatch.setattr(delivery_file, "_PAUSES", (0.0,))
    call, lost = getattr(delivery_file, CALL), set[str]()

    async def deaf(db: Database, function: str, **arguments: object) -> Any:
        answer = await call(db, function, **arguments)
        if function not in lost:
            lost.add(function)
            raise CallFailed("no answer")
        return answer

    monkeypatch.setattr(delivery_file, CALL, deaf)
    assert (await worker.attempt())["status"] == "sent"
    assert lost == {"begin_delivery", "record_delivery"}
    assert (len(worker.post.came), await stands(office)) == (1, ("sent", 1, 0, None))


@pytest.mark.parametrize(
    ("told", "answer"),
    [
        (Refused("bad_words", "They are bad."), {"status": "failed", "reason": "bad_words"}),
        (Later(timedelta(seconds=7), "too_fast"), Snooze(timedelta(seconds=7), "too_fast")),
        (Unknown("broken", "Cut.", timedelta(seconds=9)), Snooze(timedelta(seconds=9), "broken")),
    ],
)
async def test_an_outcome_whose_answer_was_lost_is_answered_the_same(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, told: Told, answer: object
) -> None:
    monkeypatch.setattr(delivery_file, "_PAUSES", (0.0,))
    worker.post.answers = [told]
    call, lost = getattr(delivery_file, CALL), [True]

    async def deaf(db: Database, function: str, **arguments: object) -> Any:
        answer = await call(db, function, **arguments)
        if function == "record_delivery" and lost.pop():
            lost.append(False)
            raise CallFailed("no answer")
        return answer

    monkeypatch.setattr(delivery_file, CALL, deaf)
    ended = await worker.attempt()
    assert ended == answer if isinstance(answer, Snooze) else ended.items() >= answer.items()  # type: ignore[attr-defined]  # a dict


async def test_the_same_job_twice_and_two_workers_send_once(
    db: Database, worker: Worker, office: Office, move_clock: MoveClock
) -> None:
    """The first is stopped in mid-send for so long that a second takes over; what it says then is stale."""
    second = Worker(db, worker.post, worker.delivery_id, attempts=10)

    async def meanwhile(sending: Sending) -> Told:
        if sending.send == 1:
            assert isinstance(await second.attempt(), Snooze)  # it may be under way
            await move_clock(IS_OVER)
            assert (await second.attempt())["status"] == "sent"
        return Sent(f"message-{sending.send}")

    payload = AlertJob(delivery_id=worker.delivery_id)
    late = await deliver(db, worker.job, payload, meanwhile, Pace())
    assert late == {"status": "sent", "reason": None, "stale": True}
    assert await office.deliveries("status", "sends", "resends", "provider_id") == [
        ("sent", 2, 1, "message-1")
    ]
    assert (await worker.attempt())["status"] == "sent"
    assert len(worker.post.came) == 1


async def test_what_is_recorded_stays_and_only_an_arrival_is_news(
    db: Database, worker: Worker, office: Office, move_clock: MoveClock
) -> None:
    def record(outcome: str) -> Awaitable[Any]:
        told = {"outcome": outcome, "reason": "a"}
        return database_call(
            db, "record_delivery", delivery_id=worker.delivery_id, send=2, told=told, is_last=False
        )

    worker.post.answers = [Unknown("broken", "Cut.", timedelta()), Unknown("broken", "Cut.", timedelta())]
    for _ in range(3):
        await worker.attempt()
    assert (await record("refused"))["status"] == "unknown"
    assert (await record("sent"))["status"] == "sent"
    assert (await record("refused"))["status"] == "sent"
    assert (await stands(office))[:3] == ("sent", 2, 1)


async def test_what_nobody_knows_is_sent_once_more_and_then_left(worker: Worker, office: Office) -> None:
    worker.post.answers = [Unknown("broken", "Cut.", timedelta()), Unknown("broken", "Cut.", timedelta())]
    assert isinstance(await worker.attempt(), Snooze)
    assert isinstance(await worker.attempt(), Snooze)
    assert (await worker.attempt())["status"] == "unknown"
    assert [one.resend for one in worker.post.came] == [False, True]
    assert await stands(office) == ("unknown", 2, 1, "broken")


async def test_what_may_be_sent_again_and_again_is_sent_less_and_less(worker: Worker) -> None:
    worker.post.pace = Pace(repeatable=True)
    worker.post.answers = [Unknown("broken", "Cut.", timedelta(seconds=3))] * 4
    delays = [(await worker.attempt()).delay.total_seconds() for _ in range(4)]
    assert delays == [3, 6, 12, 24]


async def test_a_channel_that_fails_is_taken_as_unknown_and_its_error_is_the_jobs(
    worker: Worker, office: Office
) -> None:
    worker.post.answers = [ValueError("our own mistake")]
    with pytest.raises(ValueError, match="our own mistake"):
        await worker.attempt()
    assert await stands(office) == ("sending", 1, 0, "channel_failed")
    assert (await worker.attempt())["status"] == "sent"
    assert await stands(office) == ("sent", 2, 1, None)


async def test_a_provider_that_hangs_is_given_up_in_time(worker: Worker, office: Office) -> None:
    async def hangs(sending: Sending) -> Told:
        await asyncio.Event().wait()
        raise AssertionError

    payload, pace = AlertJob(delivery_id=worker.delivery_id), Pace(limit=timedelta(milliseconds=20))
    assert isinstance(await deliver(worker.db, worker.job, payload, hangs, pace), Snooze)
    assert await stands(office) == ("sending", 1, 0, "timed_out")


async def test_what_never_left_is_tried_again_without_a_doubt_and_is_replayed_after_the_last_attempt(
    worker: Worker, office: Office
) -> None:
    worker.post.answers = [NotSent("no_connection", "Nobody there.")] * 6
    for _ in range(5):
        with pytest.raises(NotDelivered, match="Nobody there"):
            await worker.attempt()
        assert (await stands(office))[::2] == ("pending", 0)
    with pytest.raises(NotDelivered):
        await worker.attempt()
    assert await stands(office) == ("failed", 6, 0, "no_connection")
    assert (await worker.attempt())[
        "status"
    ] == "sent"  # a replayed dead letter: the same job, and a fresh allowance
    assert await stands(office) == ("sent", 7, 0, None)


async def test_waiting_costs_no_attempt_and_ends_after_a_day(
    worker: Worker, office: Office, move_clock: MoveClock
) -> None:
    worker.post.answers = [Later(timedelta(hours=2))] * 20
    for hours in range(0, 24, 2):
        await move_clock(timedelta(hours=hours))
        assert await worker.attempt() == Snooze(timedelta(hours=2), "too_fast")
    await move_clock(timedelta(hours=24))
    assert (await worker.attempt())["reason"] == "too_old"
    assert (await stands(office))[0] == "failed"


async def test_an_alert_is_one_however_often_its_job_dies(
    db: Database, office: Office, person: Person, worker: Worker
) -> None:
    payload = AlertJob.model_validate({"userId": str(await person(pager="2")), **ALERT})
    worker.dies_after = 1
    with pytest.raises(Died):
        await route(db, worker.job, payload)
    answers = [await route(db, worker.job, payload) for _ in range(2)]
    assert answers[0] == answers[1]
    assert len(await office.deliveries()) == 2


async def test_a_worker_that_stood_still_after_it_had_begun_sends_nothing_any_more(
    worker: Worker, office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as still:
        still.setattr(delivery_file, "_SLACK", timedelta())  # any answer takes longer
        assert isinstance(await worker.attempt(), Snooze)
    assert worker.post.came == []
    assert (await worker.attempt())["status"] == "sent"
    assert [one.resend for one in worker.post.came] == [False]
