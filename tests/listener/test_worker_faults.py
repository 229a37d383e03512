"""Lost answers, refused outcomes, a store that is away: each job runs once, each outcome is recorded once."""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from devstack.gateway import Gateway
from listener.config import Tempo
from listener.events import Available, Claimed, MissedWakeup, Unavailable
from listener.jobs import Job, NewJob, WokenBy
from listener.outcomes import Answer, Snooze
from tests.listener.working import QUEUE, Anything, Connection, dead_letters, row, runs, working
from tests.waiting import until

JOBS = 30


async def each_once(owner: Connection, ran: Counter[int], ids: list[int]) -> None:
    """Every one ran once, its one outcome is recorded, and nothing is left behind."""
    assert ran == Counter(ids)
    rows = await owner.fetch("select status, attempt, uncounted, count(*) from jobs group by 1, 2, 3")
    assert [tuple(one) for one in rows] == [("completed", 1, 0, len(ids))]
    assert not await dead_letters(owner)
    assert not await owner.fetch("select * from stale_outcomes")


@pytest.mark.parametrize("lost", ["claim", "finish", "both"])
@pytest.mark.parametrize("times", [1, 3])
async def test_lost_answers_double_nothing(
    gateway: Gateway, owner: Connection, lost: str, times: int
) -> None:
    ran: Counter[int] = Counter()

    async def once(_payload: Anything, *, job: Job) -> None:
        ran[job.id] += 1

    async with working(gateway, runs(once), places=7) as shop:
        await shop.has_looked()
        for name in ("claim", "finish"):
            if lost in {name, "both"}:
                gateway.faults.rest.plan("lose_answer", name, times=times)
        ids = await shop.enqueue("once", count=JOBS)
        await shop.finishes(JOBS)
    await each_once(owner, ran, ids)
    assert not gateway.faults.rest.planned
    assert shop.told.of(Unavailable)
    assert shop.told.of(Available)
    answers = Counter(event.recorded.answer for event in shop.finished)
    assert Answer.STALE not in answers
    assert (answers[Answer.REPEATED] > 0) == (lost != "claim")


async def test_what_a_lost_claim_had_leased_is_handed_out_beside_what_runs(
    gateway: Gateway, owner: Connection
) -> None:
    """The repeated call must not hand out again what this process holds already."""
    ran: Counter[int] = Counter()
    gate = asyncio.Event()

    async def waits(_payload: Anything, *, job: Job) -> None:
        ran[job.id] += 1
        await gate.wait()

    async with working(gateway, runs(waits), places=5) as shop:
        first = await shop.enqueue("waits", count=3)
        await until("the first three run", lambda: ran.total() == 3)
        gateway.faults.rest.plan("lose_answer", "claim", times=2)
        second = await shop.enqueue("waits", count=4)
        await until("two more run", lambda: ran.total() == 5)
        gate.set()
        await shop.finishes(7)
    await each_once(owner, ran, first + second)


async def test_outcomes_are_kept_while_the_store_is_away(gateway: Gateway, owner: Connection) -> None:
    ran: Counter[int] = Counter()
    gate = asyncio.Event()

    async def waits(_payload: Anything, *, job: Job) -> None:
        ran[job.id] += 1
        await gate.wait()

    async with working(gateway, runs(waits)) as shop:
        ids = await shop.enqueue("waits", count=3)
        await until("all run", lambda: ran.total() == 3)
        gateway.faults.rest.plan("status", "/rest/v1/rpc", times=4)
        gate.set()
        await until("the store is missed", lambda: len(shop.told.of(Unavailable)) >= 2)
        assert len(shop.worker.held) == 3
        assert shop.worker.problem is not None
        assert shop.worker.problem.startswith("maintenance: the REST API has not answered")
        await shop.finishes(3)
        await until("all is well", lambda: shop.worker.problem is None)
    await each_once(owner, ran, ids)
    for call in ("maintenance", "outcomes of maintenance"):
        pauses = [event.retry_in for event in shop.told.of(Unavailable) if event.call == call]
        assert pauses == [timedelta(milliseconds=20 * 2**n) for n in range(len(pauses))]
        assert [event.call for event in shop.told.of(Available)].count(call) == bool(pauses)


async def test_an_outcome_that_is_refused_does_not_hold_up_its_batch(
    gateway: Gateway, owner: Connection
) -> None:
    """The database of somebody may have rules of its own. Work that is done stays done; other words become a letter."""
    gate = asyncio.Event()
    await owner.execute(
        'alter table jobs_maintenance add constraint "no colours"'
        " check (result ? 'colour' is not true and last_error is distinct from 'no time')"
    )

    async def good(_payload: Anything) -> dict[str, object]:
        await gate.wait()
        return {"fine": True}

    async def coloured(_payload: Anything) -> dict[str, object]:
        await gate.wait()
        return {"colour": "red"}

    async def later(_payload: Anything) -> Snooze:
        await gate.wait()
        return Snooze(timedelta(hours=1), "no time")

    async with working(gateway, runs(good), runs(coloured), runs(later)) as shop:
        ids = [await shop.job(type_) for type_ in ("good", "coloured", "later", "good")]
        await shop.runs_jobs(4)
        gate.set()
        await shop.finishes(4)
    rows = [await row(owner, id_) for id_ in ids]
    assert [one["status"] for one in rows] == ["completed", "completed", "failed", "completed"]
    assert rows[1]["result"] == '{"result_refused": "23514"}'
    (letter,) = await dead_letters(owner)
    assert (letter["job_id"], letter["error_class"]) == (ids[2], "OutcomeRefused")
    assert "had ended (snooze)" in letter["error_message"]


async def test_a_trouble_ends_with_outcomes_that_are_recorded_singly(
    gateway: Gateway, owner: Connection
) -> None:
    """Or a process whose queue has become quiet would be told not ready, and be restarted for nothing."""
    await owner.execute(
        "alter table jobs_maintenance add constraint colourless check (result ? 'colour' is not true)"
    )

    async def coloured(_payload: Anything) -> dict[str, object]:
        gateway.faults.rest.plan("status", "finish", times=2)
        return {"colour": "red"}

    async with working(gateway, runs(coloured)) as shop:
        await shop.job("coloured")
        await shop.finishes(1)
        assert [one.call for one in shop.told.of(Unavailable)][-1] == "outcomes of maintenance"
        shop.bell.ring(WokenBy.REALTIME)
        await until("nothing troubles it any more", lambda: shop.worker.problem is None)


async def test_a_refused_batch_whose_single_calls_get_lost(gateway: Gateway, owner: Connection) -> None:
    gate = asyncio.Event()

    async def mixed(payload: Anything) -> dict[str, object]:
        await gate.wait()
        return {"text": payload.model_dump()["text"]}

    async with working(gateway, runs(mixed)) as shop:
        for text in ("one", "two", "b\ud800d", "three"):
            await shop.job("mixed", {"text": "" if "\ud800" in text else text})
        await shop.runs_jobs(4)
        gateway.faults.rest.plan("lose_answer", "finish", times=2)
        gate.set()
        await shop.finishes(4)
    rows = await owner.fetch("select status, attempt from jobs")
    assert {tuple(one) for one in rows} == {("completed", 1)}


async def test_a_key_that_is_refused_is_a_problem_and_not_the_end(
    gateway: Gateway, owner: Connection
) -> None:
    async with working(gateway) as shop:
        await owner.execute(
            "revoke execute on function claim(text,text[],integer,float8,text,text,jsonb,boolean,jsonb)"
            " from service_role"
        )
        shop.bell.ring(WokenBy.SWEEP)
        await until("it is told", lambda: bool(shop.told.of(Unavailable)))
        assert shop.worker.problem is not None
        assert "403" in shop.told.of(Unavailable)[0].reason
        await owner.execute(
            "grant execute on function claim(text,text[],integer,float8,text,text,jsonb,boolean,jsonb)"
            " to service_role"
        )
        await until("it works again", lambda: shop.worker.problem is None)


async def test_the_sweep_finds_what_nobody_announced(gateway: Gateway, owner: Connection) -> None:
    ran = asyncio.Event()

    async def forgotten(_payload: Anything) -> None:
        ran.set()

    sweeping = Tempo(sweep=timedelta(milliseconds=50))
    async with working(gateway, runs(forgotten), tempo=sweeping) as shop:
        await shop.has_looked()
        await owner.execute(
            "insert into maintenance_jobs (type, run_at) values ('forgotten', now() - interval '9 s')"
        )
        async with asyncio.timeout(10):
            await ran.wait()
        await shop.finishes(1)
    assert [event.woken_by for event in shop.told.of(Claimed)] == [WokenBy.SWEEP]
    assert all(event.count == 1 for event in shop.told.of(MissedWakeup))


async def test_a_row_for_later_is_waited_for_without_a_bell(gateway: Gateway) -> None:
    async def soon(_payload: Anything) -> None:
        pass

    async with working(gateway, runs(soon)) as shop:
        await shop.has_looked()
        run_at = datetime.now(UTC) + timedelta(milliseconds=150)
        await shop.store.enqueue([NewJob(QUEUE, "soon", run_at=run_at)])
        shop.bell.ring(WokenBy.REALTIME)
        finished = await shop.finishes(1)
    assert finished.ended.woken_by is WokenBy.DUE


@pytest.mark.parametrize(
    "data",
    [
        "jsonb_build_object('n', repeat('9', 5000)::numeric)",
        "jsonb_build_object('n', 'NaN')",
        "jsonb_build_object('n', '1e1000'::numeric)",
    ],
    ids=["a long number", "no number", "a large number"],
)
async def test_a_monstrous_payload_harms_nobody_but_its_own_job(
    gateway: Gateway, owner: Connection, data: str
) -> None:
    async def ok(_payload: Anything) -> None:
        pass

    async def fail(payload: Anything) -> None:
        raise RuntimeError("with this payload")

    await owner.execute(f"insert into maintenance_jobs (type, data) select 'fail', {data}")
    await owner.execute("insert into maintenance_jobs (type, run_at) values ('ok', '0001-01-01 00:00+00')")
    async with working(gateway, runs(ok), runs(fail)) as shop:
        await shop.finishes(2)
    assert await owner.fetchval("select status from jobs where type = 'ok'") == "completed"
