"""The loop of a queue: what is claimed runs, what ended is recorded, each once."""

from datetime import timedelta

from pydantic import BaseModel, ConfigDict

from devstack.gateway import Gateway
from listener.events import Claimed, UnknownTypes
from listener.jobs import Job, WokenBy
from listener.outcomes import Answer, Cancel, Snooze
from listener.registry import Payload
from tests.listener.working import Anything, Connection, dead_letters, row, runs, working
from tests.waiting import until


async def note(_payload: Anything) -> None:
    pass


async def test_a_job_runs_and_is_completed(gateway: Gateway, owner: Connection) -> None:
    seen: list[Job] = []

    async def look(payload: Anything, *, job: Job) -> dict[str, object]:
        seen.append(job)
        return {"twice": payload.model_dump()["size"] * 2}

    async with working(gateway, runs(look)) as shop:
        await shop.has_looked()
        id_ = await shop.job("look", {"size": 21})
        finished = await shop.finishes(1)
    assert finished.recorded.answer is Answer.RECORDED
    assert finished.ended.woken_by is WokenBy.REALTIME
    assert [(job.id, job.attempt, job.data) for job in seen] == [(id_, 1, {"size": 21})]
    job = await row(owner, id_)
    assert (job["status"], job["result"], job["last_error"]) == ("completed", '{"twice": 42}', None)
    assert job["lease_expires_at"] is None
    assert job["woken_by"] == "realtime"


async def test_jobs_from_before_the_start_are_found_without_a_bell(gateway: Gateway) -> None:
    async with working(gateway) as shop:
        await shop.enqueue("note", count=3)
    async with working(gateway, runs(note), places=2) as shop:
        await shop.finishes(3)
    assert {event.woken_by for event in shop.told.of(Claimed)} == {WokenBy.START, WokenBy.FREE}


class Narrow(Payload):
    order_id: int
    note: str


async def narrow(_payload: Narrow) -> None:
    raise AssertionError("a payload that does not fit must not reach the handler")


class Loose(BaseModel):
    model_config = ConfigDict(extra="forbid")
    order_id: int
    note: str


async def loose(_payload: Loose) -> None:
    raise AssertionError("a payload that does not fit must not reach the handler")


async def test_a_payload_that_does_not_fit_is_a_dead_letter_at_once(
    gateway: Gateway, owner: Connection
) -> None:
    async with working(gateway, runs(narrow, payload=Narrow), runs(loose, payload=Loose)) as shop:
        for type_ in ("narrow", "loose"):
            await shop.job(type_, {"order_id": "Alice Smith", "extra": "4242424242424242"})
        await shop.finishes(2)
    for letter in await dead_letters(owner):
        assert letter["error_class"] == "InvalidPayload"
        assert letter["attempts"] == 1
        told = letter["error_message"] + (letter["error_stack"] or "")
        assert "int parsing" in told
        assert "note: missing" in told
        assert "extra: extra forbidden" in told
        assert "Alice" not in told
        assert "4242" not in told


async def test_rows_of_an_unknown_type_wait_and_are_told_of(gateway: Gateway, owner: Connection) -> None:
    async with working(gateway, runs(note)) as shop:
        stranger = await shop.job("stranger")
        known = await shop.job("note")
        await shop.finishes(1)
        shop.bell.ring(WokenBy.JOINED)
        await until(
            "the sweep tells", lambda: {"stranger": 1} in [e.counts for e in shop.told.of(UnknownTypes)]
        )
    assert shop.finished[0].ended.ref.id == known
    waiting = await row(owner, stranger)
    assert (waiting["status"], waiting["attempt"]) == ("pending", 0)

    async with working(gateway, runs(note), runs(note, name="stranger")) as shop:
        assert (await shop.finishes(1)).ended.ref.id == stranger


async def test_snooze_and_cancel_are_not_failures(gateway: Gateway, owner: Connection) -> None:
    async def later(_payload: Anything) -> Snooze:
        return Snooze(timedelta(hours=1), "the exchange is closed")

    async def never(_payload: Anything) -> Cancel:
        return Cancel("the order is gone")

    async with working(gateway, runs(later), runs(never)) as shop:
        snoozed, cancelled = await shop.job("later"), await shop.job("never")
        await shop.finishes(2)
    job = await row(owner, snoozed)
    assert (job["status"], job["attempt"], job["uncounted"]) == ("pending", 1, 1)
    assert timedelta(minutes=59) < job["run_at"] - job["created_at"] < timedelta(minutes=61)
    assert job["last_error"] == "the exchange is closed"
    assert (await row(owner, cancelled))["status"] == "cancelled"
    assert not await dead_letters(owner)


async def test_never_more_at_once_than_there_are_places(gateway: Gateway) -> None:
    most = 0

    async def count(_payload: Anything) -> None:
        nonlocal most
        most = max(most, len(shop.worker.running))

    async with working(gateway, runs(count), places=3) as shop:
        await shop.enqueue("count", count=40)
        await shop.finishes(40)
    assert most == 3


async def test_a_call_carries_many_jobs(gateway: Gateway, owner: Connection) -> None:
    jobs = 2000
    async with working(gateway) as shop:
        for _ in range(4):
            await shop.enqueue("note", count=jobs // 4)
    async with working(gateway, runs(note), places=50) as shop:
        await shop.finishes(jobs)
        calls = shop.store.calls
    assert calls / jobs < 0.05
    rows = await owner.fetch("select status, attempt, count(*) from jobs group by 1, 2")
    assert [tuple(one) for one in rows] == [("completed", 1, jobs)]


async def test_two_workers_race_and_each_job_runs_once(gateway: Gateway, owner: Connection) -> None:
    ran: list[int] = []

    async def once(_payload: Anything, *, job: Job) -> None:
        ran.append(job.id)

    async with (
        working(gateway, runs(once), worker_id="one") as one,
        working(gateway, runs(once), worker_id="two") as two,
    ):
        ids = await one.enqueue("once", count=300)
        two.bell.ring(WokenBy.REALTIME)
        await until("all have ended", lambda: len(one.finished) + len(two.finished) >= 300)
    assert sorted(ran) == sorted(ids)
    assert one.finished
    assert two.finished
    assert {event.recorded.answer for event in one.finished + two.finished} == {Answer.RECORDED}
    assert await owner.fetchval("select max(attempt) from jobs") == 1
