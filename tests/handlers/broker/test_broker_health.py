"""How one connection's trouble holds that connection, and neither counts attempts nor delays anybody else."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest

from handlers.broker.execute_order import ExecuteOrder, execute_order
from handlers.clients.broker.broker import (
    BadCredentials,
    BrokerError,
    Dedupe,
    NotSent,
    OutcomeUnknown,
    TooFast,
)
from handlers.clients.broker.brokers import Account, Brokers
from handlers.clients.database import call
from tests.handlers.broker.conftest import Broker, Desk, SetClock, an_account, raises
from tests.handlers.conftest import Owner

LOST = OutcomeUnknown("no answer")


async def a_neighbour(desk: Desk) -> Desk:
    other = uuid4()
    return Desk(desk.db, desk.owner, desk.brokers, other, await an_account(desk.owner, other))


async def test_a_broker_that_is_asked_too_often_is_left_alone_as_long_as_it_asks(
    desk: Desk, broker: Broker, clock: SetClock
) -> None:
    broker.before = raises(TooFast(timedelta(seconds=30)))
    first, second = await desk.place(), await desk.place()
    assert (await desk.attempt(first))["again"] == 30
    broker.before = None
    assert (await desk.attempt(second))["again"] == pytest.approx(30, abs=0.5)
    assert [await desk.status(first), await desk.status(second)] == ["new", "new"]
    neighbour = await a_neighbour(desk)
    assert (await neighbour.attempt(await neighbour.place()))["status"] == "accepted"
    await clock(30.1)
    assert (await desk.attempt(second))["status"] == "accepted"


async def test_credentials_that_are_refused_three_times_lock_the_account_out_and_orders_are_refused(
    desk: Desk, broker: Broker, clock: SetClock
) -> None:
    broker.before = raises(BadCredentials("no"))
    order = await desk.place()
    for seconds in (0, 31, 92):
        await clock(seconds)
        assert "again" in await desk.attempt(order)
    assert (await desk.account())["status"] == "locked_out"
    assert (await desk.attempt(order))["reason"] == "connection_locked_out"
    assert "broker_locked_out" in await desk.told()


@pytest.mark.parametrize("trouble", [LOST, NotSent("no connection")], ids=["no answer", "no connection"])
async def test_after_three_calls_without_an_answer_one_tries_first_and_the_others_wait(
    desk: Desk, broker: Broker, clock: SetClock, trouble: BrokerError
) -> None:
    broker.before = raises(trouble)
    for _ in range(3):
        await desk.attempt(await desk.place())
    assert (await desk.account())["failures"] == 3
    broker.before = None
    waiting, other = await desk.place(), await desk.place()
    assert (await desk.attempt(waiting))["again"] == pytest.approx(5, abs=0.5)
    neighbour = await a_neighbour(desk)
    assert (await neighbour.attempt(await neighbour.place()))["status"] == "accepted"
    assert await desk.told("operators") == ["broker_does_not_answer"]

    await clock(5.1)
    entered, leave = asyncio.Event(), asyncio.Event()

    async def hangs() -> None:
        entered.set()
        await leave.wait()

    broker.before = hangs
    trying = asyncio.create_task(desk.attempt(waiting))
    await entered.wait()
    broker.before = None
    assert (await desk.attempt(other))["again"] > 1
    leave.set()
    assert (await trying)["status"] == "accepted"
    assert (await desk.attempt(other))["status"] == "accepted"  # it answers: nobody waits any more


async def test_the_pace_of_a_broker_is_kept_and_no_order_fails_for_it(desk: Desk, owner: Owner) -> None:
    await owner.execute("insert into broker_limits (broker, calls, per_seconds) values ('test', 2, 60)")
    orders = [await desk.place() for _ in range(3)]
    ended = [await desk.attempt(order) for order in orders]
    assert [one.get("status") for one in ended] == ["accepted", "accepted", None]
    assert 0 < ended[2]["again"] <= 60


async def test_a_third_call_of_a_connection_makes_place_for_other_accounts(
    desk: Desk, broker: Broker
) -> None:
    entered, leave = asyncio.Semaphore(0), asyncio.Event()

    async def hangs() -> None:
        entered.release()
        await leave.wait()

    broker.before = hangs
    orders = [await desk.place() for _ in range(3)]
    async with asyncio.TaskGroup() as group:
        held = [group.create_task(desk.attempt(order)) for order in orders[:2]]
        await entered.acquire()
        await entered.acquire()
        assert (await desk.attempt(orders[2]))["again"] == 1
        assert await desk.status(orders[2]) == "new"
        leave.set()
    assert [one.result()["status"] for one in held] == ["accepted", "accepted"]


async def test_a_worker_that_drains_waits_for_the_word_of_the_broker(desk: Desk, broker: Broker) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def hangs() -> None:
        entered.set()
        await leave.wait()

    broker.before = hangs
    order = await desk.place()
    task = asyncio.create_task(desk.attempt(order))
    await entered.wait()
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    leave.set()
    assert (await task)["status"] == "accepted"


async def test_what_was_stopped_before_the_call_is_new_again_at_once(desk: Desk, owner: Owner) -> None:
    async def breaks(_: Account) -> Broker:
        raise asyncio.CancelledError

    order = await desk.place()
    async with Brokers.open({"test": breaks}, {}, desk.db) as brokers:
        with pytest.raises(asyncio.CancelledError):
            await execute_order(ExecuteOrder(order_id=order), brokers=brokers, db=desk.db)
    assert await desk.status(order) == "new"
    assert (await desk.attempt(order))["status"] == "accepted"


async def test_an_order_whose_job_was_given_up_is_taken_up_again_by_the_sweep(
    desk: Desk, owner: Owner, clock: SetClock
) -> None:
    order = await desk.place()
    resume = "select (resume_orders() ->> 'resumed')::integer"
    await clock(70)
    assert await owner.fetchval(resume) == 0  # its job is waiting
    await owner.execute("update jobs set status = 'failed', finished_at = now() where type = 'execute_order'")
    assert await owner.fetchval(resume) == 1
    assert await owner.fetchval(resume) == 0
    row = await desk.row(order)
    job = await owner.fetchrow("select status, data from jobs where id = $1", row["job_id"])
    assert job is not None
    assert (job["status"], str(order) in job["data"]) == ("pending", True)


async def test_a_person_can_end_a_doubt(desk: Desk, broker: Broker, clock: SetClock) -> None:
    broker.traits = replace(broker.traits, dedupe=Dedupe.NONE)
    broker.before = raises(LOST)
    order = await desk.place()
    await desk.attempt(order)
    for seconds in (10, 11):
        await clock(seconds)
        ended = await desk.attempt(order)
        assert "again" in ended
    assert await desk.status(order) == "in_doubt"
    assert (await desk.told(), await desk.told("operators")) == (["order_in_doubt"], ["order_in_doubt"])
    closed = await call(desk.db, "close_order_in_doubt", order_id=order, words="We looked: it is not there.")
    assert closed == {"status": "rejected"}


async def test_an_order_in_doubt_that_appears_goes_on_and_everybody_hears_of_it(
    desk: Desk, broker: Broker, clock: SetClock
) -> None:
    broker.traits = replace(broker.traits, dedupe=Dedupe.NONE)
    broker.after = raises(LOST)
    broker.hidden = True
    order = await desk.place()
    await desk.attempt(order)
    for seconds in (10, 11):
        await clock(seconds)
        await desk.attempt(order)
    assert await desk.status(order) == "in_doubt"
    broker.hidden = False
    await clock(400)
    assert (await desk.attempt(order))["status"] == "accepted"
    assert await desk.told() == ["order_in_doubt", "order_found"]
    assert len(broker.submitted) == 1
