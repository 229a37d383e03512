"""When an answer is lost or this process was frozen: what was leased unheard is found, what runs is not ended."""

import asyncio
from collections import Counter
from datetime import timedelta

import pytest
from aiohttp import web

from devstack.gateway import Gateway
from devstack.keys import LOCAL
from listener import outbox
from listener import worker as room
from listener.config import Tempo
from listener.errors import Reject, StoreRefused, StoreUnavailable
from listener.events import AttemptsLost, AttemptStopped, Unavailable
from listener.jobs import Job, NewJob, WokenBy
from listener.outcomes import Answer, Snooze
from listener.store import connected
from tests.doubles.proxy import answering, proxy
from tests.listener.working import QUEUE, QUICK, Anything, Connection, Gate, MoveClock, row, runs, working
from tests.waiting import until


async def test_its_own_sweep_does_not_end_what_still_runs(
    gateway: Gateway, owner: Connection, move_clock: MoveClock
) -> None:
    """After a freeze the loop may look before the heartbeat has beaten."""
    gate = Gate()
    async with working(gateway, runs(gate.gated)) as shop:
        id_ = await shop.job("gated")
        await until("the handler waits", lambda: gate.inside == 1)
        await move_clock(timedelta(seconds=61))
        shop.bell.ring(WokenBy.JOINED)
        await until(
            "the lease is renewed",
            lambda: owner.fetchval("select lease_expires_at > clock_now() from jobs where id = $1", id_),
        )
        gate.open.set()
        assert (await shop.finishes(1)).recorded.answer is Answer.RECORDED
    assert not shop.told.of(AttemptsLost)
    assert not shop.told.of(AttemptStopped)
    assert (await row(owner, id_))["attempt"] == 1


async def test_after_an_outage_nobody_sweeps_before_the_others_could_renew(
    gateway: Gateway, owner: Connection, move_clock: MoveClock
) -> None:
    tempo = Tempo(
        lease=timedelta(milliseconds=50),
        sweep=timedelta(milliseconds=10),
        reconnect=timedelta(milliseconds=30),
    )
    gate = Gate()
    async with working(gateway, runs(gate.gated), worker_id="frozen") as frozen:
        await frozen.job("gated")
        await until("the handler waits", lambda: gate.inside == 1)
        await move_clock(timedelta(seconds=61))
        gateway.faults.rest.plan("status", "/rest/v1/rpc", times=3)
        async with working(gateway, tempo=tempo) as shop:
            await until("it is back", lambda: shop.worker.problem is None)
            looked, sweeps_from = asyncio.get_running_loop().time(), shop.worker._no_sweep_before
            assert 0.2 < sweeps_from - looked < 0.4
            frozen.bell.ring(WokenBy.JOINED)
            gate.open.set()
            assert (await frozen.finishes(1)).recorded.answer is Answer.RECORDED


async def test_what_a_lost_claim_had_leased_is_handed_back_by_a_drain(
    gateway: Gateway, owner: Connection
) -> None:
    gate = Gate()
    slow = Tempo(sweep=QUICK.sweep, reconnect=timedelta(milliseconds=300))
    async with working(gateway, runs(gate.gated), tempo=slow) as shop:
        await shop.has_looked()
        gateway.faults.rest.plan("lose_answer", "claim")
        id_ = await shop.job("gated")
        await until("the answer is missed", lambda: bool(shop.told.of(Unavailable)))
        assert (await row(owner, id_))["status"] == "running"
        shop.worker.drain()
        await shop.drained()
    assert gate.inside == 0
    job = await row(owner, id_)
    assert (job["status"], job["attempt"], job["uncounted"]) == ("pending", 1, 1)


async def test_a_drain_waits_for_what_a_lost_claim_had_leased_while_somebody_has_locked_it(
    gateway: Gateway, owner: Connection
) -> None:
    gate = Gate()
    slow = Tempo(sweep=QUICK.sweep, reconnect=timedelta(milliseconds=100))
    async with working(gateway, runs(gate.gated), tempo=slow) as shop:
        await shop.has_looked()
        gateway.faults.rest.plan("lose_answer", "claim")
        id_ = await shop.job("gated")
        await until("the answer is missed", lambda: bool(shop.told.of(Unavailable)))
        async with owner.transaction():
            await owner.execute("select from jobs where id = $1 for update", id_)
            shop.worker.drain()
            await until("it has asked in vain", lambda: shop.worker._out_of_reach)
        await shop.drained()
    job = await row(owner, id_)
    assert (job["status"], job["attempt"], job["uncounted"]) == ("pending", 1, 1)


async def test_a_full_worker_that_drains_hands_back_what_was_leased_unheard(
    gateway: Gateway, owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes with the call that says the last outcome, and then nobody is left to ring."""
    monkeypatch.setattr(room, "_GATHER_SECONDS", 0)  # in which the last outcome would ring once more
    gate = Gate()
    async with working(gateway, runs(gate.gated), places=1) as shop:
        await shop.has_looked()
        await shop.store.enqueue([NewJob(QUEUE, "gated")] * 2)
        # Claims that our side gave up on, carried out late.
        await owner.fetchval("select claim('maintenance', array['gated'], 2, 60, 'test-worker', 'free')")
        shop.bell.ring(WokenBy.JOINED)
        await until("it is full, and one is left", lambda: gate.inside == 1 and shop.worker._unsure)
        shop.worker.drain()
        await until("the ring of the drain is heard", lambda: not shop.bell._rung.is_set())
        gate.open.set()
        await shop.drained()
    rows = await owner.fetch("select status, attempt - uncounted from jobs order by id")
    assert [tuple(one) for one in rows] == [("completed", 1), ("pending", 0)]


async def test_a_later_attempt_that_was_leased_unheard_is_run(gateway: Gateway, owner: Connection) -> None:
    """The finish that records a snooze for now leases the same job again, and its answer is lost."""
    attempts: list[int] = []

    async def again(_payload: Anything, *, job: Job) -> Snooze | None:
        attempts.append(job.attempt)
        if job.attempt > 1:
            return None
        gateway.faults.rest.plan("lose_answer", "finish")
        return Snooze(timedelta(), "at once")

    async with working(gateway, runs(again)) as shop:
        id_ = await shop.job("again")
        await until("it has run twice", lambda: attempts == [1, 2])
        await shop.finishes(2)
    assert (await row(owner, id_))["status"] == "completed"


async def test_a_claim_that_committed_late_is_found_by_the_next_sweep(
    gateway: Gateway, owner: Connection
) -> None:
    """Our side gave up on it, asked again, got nothing, and was sure: then it was carried out."""
    gate = Gate()
    gate.open.set()
    async with working(gateway, runs(gate.gated)) as shop:
        await shop.has_looked()
        id_ = await owner.fetchval("insert into maintenance_jobs (type) values ('gated') returning id")
        await owner.fetchval("select claim('maintenance', array['gated'], 5, 60, 'test-worker', 'free')")
        shop.bell.ring(WokenBy.JOINED)
        await shop.finishes(1)
    job = await row(owner, id_)
    assert (job["status"], job["attempt"]) == ("completed", 1)


async def test_an_outcome_that_never_gets_through_does_not_hold_up_the_others(
    gateway: Gateway, owner: Connection
) -> None:
    """A proxy that breaks off large requests: each try carries less, and the one that fails alone goes to the end."""
    gate = asyncio.Event()

    async def large(payload: Anything) -> dict[str, object]:
        await gate.wait()
        return {"page": "x" * payload.model_dump()["size"]}

    async with (
        proxy(gateway.url, largest=100_000) as narrow,
        working(gateway, runs(large), url=narrow.url) as shop,
    ):
        ids = [await shop.job("large", {"size": size}) for size in (200_000, 10, 10, 10)]
        await shop.runs_jobs(4)
        gate.set()
        await shop.finishes(3)
        assert {event.ended.ref.id for event in shop.finished} == set(ids[1:])
        fresh = await shop.job("large", {"size": 1})
        await until("new work is done too", lambda: fresh in {event.ended.ref.id for event in shop.finished})
        narrow.largest = 10_000_000
        await shop.finishes(5)


async def test_an_outcome_that_does_not_get_through_holds_up_no_sweep(
    gateway: Gateway, owner: Connection
) -> None:
    """Sweeps find what nobody announced and what vanished workers held: without them the queue stands still unseen."""
    sweeping = Tempo(sweep=timedelta(seconds=0.1), reconnect=timedelta(seconds=1))

    async def large(_payload: Anything) -> dict[str, object]:
        return {"page": "x" * 200_000}

    async def forgotten(_payload: Anything) -> None: ...

    async with (
        proxy(gateway.url, largest=100_000) as narrow,
        working(gateway, runs(large), runs(forgotten), url=narrow.url, tempo=sweeping) as shop,
    ):
        await shop.job("large")
        await until("it is stuck", lambda: bool(shop.told.of(Unavailable)))
        await until("it is named", lambda: "outcomes of maintenance" in str(shop.worker.problem))
        await owner.execute(
            "insert into maintenance_jobs (type, run_at) values ('forgotten', now() - interval '1 hour')"
        )
        await until(
            "a sweep has found it", lambda: {one.ended.type for one in shop.finished} == {"forgotten"}
        )
        narrow.largest = 10_000_000
        await shop.finishes(2)


async def test_a_result_that_never_gets_through_is_left_out_in_the_end(
    gateway: Gateway, owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its work is done. A job that stayed `running` for ever would be done again by the next process."""
    monkeypatch.setattr(outbox, "_MOST_TRIES_ALONE", 6)

    async def large(_payload: Anything) -> dict[str, object]:
        return {"page": "x" * 200_000}

    async with (
        proxy(gateway.url, largest=100_000) as narrow,
        working(gateway, runs(large), url=narrow.url) as shop,
    ):
        id_ = await shop.job("large")
        await until("it is stuck", lambda: bool(shop.told.of(Unavailable)))

        def ring() -> bool:
            """Calls that are answered show that the trouble is this outcome's own."""
            shop.bell.ring(WokenBy.REALTIME)
            return len(shop.finished) == 1

        await until("it is recorded", ring)
    job = await row(owner, id_)
    assert (job["status"], job["attempt"]) == ("completed", 1)
    assert job["result"] == '{"result_not_kept": "it did not get through"}'


async def test_while_no_outcome_gets_through_claims_end_before_the_memory_does(
    gateway: Gateway, owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_MOST_WAITING", 20)

    async def quick(_payload: Anything) -> None: ...

    async with working(gateway, runs(quick)) as shop:
        await shop.has_looked()
        gateway.faults.rest.plan("status", "finish", times=None)
        await shop.enqueue("quick", count=100)
        await until("no more are taken", lambda: len(shop.worker.held) >= 20 and not shop.worker.running)
        claims = "select count(*) from jobs where attempt > 0"
        assert await owner.fetchval(claims) < 20 + 10, "and those that ran when it was full"
        gateway.faults.rest.clear()
        await shop.finishes(100)


STRANGE = [b"", b"null", b"{}", b"[]", b"7", b'{"message": "ok"}', b"<html>", b"\xff", b'{"a":' * 100_000]


@pytest.mark.parametrize("status", [200, 204, 400, 500])
@pytest.mark.parametrize("body", STRANGE, ids=lambda body: body[:20])
async def test_an_answer_of_another_shape_is_no_answer(status: int, body: bytes) -> None:
    async def strange(_: web.Request) -> web.Response:
        return web.Response(status=status, body=body, content_type="application/json")

    async with answering(strange) as url, connected(url, LOCAL.secret, "test-worker") as store:
        for call in (
            store.enqueue([NewJob(QUEUE, "note")]),
            store.heartbeat([], timedelta(seconds=1)),
            store.replay([1]),
            store.finish([], None),
        ):
            with pytest.raises((StoreUnavailable, StoreRefused)):
                await call


async def test_a_redirection_does_not_get_the_key() -> None:
    seen: Counter[str] = Counter()

    async def elsewhere(request: web.Request) -> web.Response:
        seen[request.path] += 1
        raise web.HTTPTemporaryRedirect("/stolen")

    async with answering(elsewhere) as url, connected(url, LOCAL.secret, "test-worker") as store:
        with pytest.raises(StoreRefused, match="redirection; is SUPABASE_URL the project's own address"):
            await store.heartbeat([], timedelta(seconds=1))
    assert seen == {"/rest/v1/rpc/heartbeat": 1}


async def test_an_outcome_that_stays_refused_does_not_hold_up_its_queue(
    gateway: Gateway, owner: Connection
) -> None:
    """A trigger of somebody's own, which raises whatever it likes."""

    async def rejects(_payload: Anything) -> None:
        raise Reject("never")

    async def good(_payload: Anything) -> None: ...

    await owner.execute(
        "create function public.broken() returns trigger language plpgsql as"
        " $$ begin raise exception 'alerting is down'; end $$;"
        " create trigger broken before insert on failed_jobs for each row execute function public.broken()"
    )
    async with working(gateway, runs(rejects), runs(good)) as shop:
        await shop.job("rejects")
        await until("it is refused", lambda: bool(shop.told.of(Unavailable)))
        ids = [await shop.job("good") for _ in range(5)]
        await until("the others are done", lambda: {one.ended.ref.id for one in shop.finished} == set(ids))
        await owner.execute("drop trigger broken on failed_jobs")
        await shop.finishes(6)
