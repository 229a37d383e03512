"""One row per due slot, however many processes run the schedule, and never a silent stop."""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from types import SimpleNamespace

import pytest
import schedule
from hypothesis import given
from hypothesis import strategies as st

from devstack.gateway import Gateway
from devstack.keys import LOCAL
from listener import scheduler as room
from listener.events import SlotInserted, SlotWithoutHandler, Swallowed, Unavailable
from listener.jobs import QUEUE_OF
from listener.registry import Registry
from listener.scheduler import SCHEDULES, Schedule, Scheduler
from listener.store import connected
from tests.listener.working import QUICK, Anything, Connection, Told, registry_of, runs
from tests.waiting import until

NOON = datetime(2026, 3, 29, 12, 3, 20, tzinfo=UTC)
PRUNE = Schedule("prune", timedelta(hours=1))
EMPTY = Registry({}, (), ())


class Clock:
    """Stands still until it is moved."""

    def __init__(self, now: datetime = NOON) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


@pytest.mark.parametrize(
    ("type_", "now", "slot"),
    [
        ("monitor_orders", "2026-03-29T12:03:20Z", "2026-03-29T12:00Z"),
        ("monitor_orders", "2026-03-29T12:05:00Z", "2026-03-29T12:05Z"),
        ("monitor_orders", "2026-03-29T00:04:59.999999Z", "2026-03-29T00:00Z"),
        ("sync_positions", "2026-03-29T12:59:59Z", "2026-03-29T12:00Z"),
        ("sync_positions", "2026-03-29T00:00:00Z", "2026-03-29T00:00Z"),
        ("reconcile_stripe", "2026-03-29T23:59:59Z", "2026-03-29T00:00Z"),
        ("reconcile_stripe", "2026-03-30T00:00:00Z", "2026-03-30T00:00Z"),
        ("reconcile_stripe", "2026-03-30T01:30:00+02:00", "2026-03-29T00:00Z"),
        ("aggregate", "2026-03-29T23:59:59Z", "2026-03-29T23:45Z"),
        ("monitor_orders", "2026-03-30T05:33:00+05:30", "2026-03-30T00:00Z"),
    ],
)
def test_slots(type_: str, now: str, slot: str) -> None:
    (one,) = [each for each in SCHEDULES if each.type == type_]
    job = one.job(one.slot(datetime.fromisoformat(now)))
    assert job.idempotency_key == f"{type_}@{slot}"
    assert (job.queue, job.type, job.data) == (QUEUE_OF[type_], type_, {})


@given(
    now=st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1)),  # noqa: DTZ001
    offset=st.integers(-14 * 60, 14 * 60),
    one=st.sampled_from(SCHEDULES),
)
def test_a_slot_is_the_last_one_that_has_come(now: datetime, offset: int, one: Schedule) -> None:
    here = now.replace(tzinfo=timezone(timedelta(minutes=offset)))
    slot = one.slot(here)
    assert slot <= here < slot + one.every
    assert one.slot(slot) == slot
    assert one.slot(here) == one.slot(here.astimezone(UTC))


@dataclass
class Running:
    scheduler: Scheduler
    told: Told
    clock: Clock

    @property
    def slots(self) -> list[tuple[str, bool]]:
        return [(event.slot, event.created) for event in self.told.of(SlotInserted)]


@asynccontextmanager
async def scheduling(
    gateway: Gateway,
    *schedules: Schedule,
    registry: Registry = EMPTY,
    now: Callable[[], datetime] | None = None,
) -> AsyncIterator[Running]:
    clock, told = Clock(), Told()
    async with connected(gateway.url, LOCAL.service_role, "test-worker") as store:
        scheduler = Scheduler(store, registry, tempo=QUICK, emit=told, schedules=schedules, now=now or clock)
        task = asyncio.create_task(scheduler.run())
        try:
            yield Running(scheduler, told, clock)
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.wait({task})


@pytest.fixture(autouse=True)
def quick_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_ROUND_SECONDS", 0.02)


async def keys(owner: Connection) -> Sequence[str]:
    rows = await owner.fetch("select idempotency_key from jobs order by id")
    return [row["idempotency_key"] for row in rows]


async def test_the_latest_slot_is_made_up_for_at_the_start(gateway: Gateway, owner: Connection) -> None:
    async with scheduling(gateway, *SCHEDULES) as running:
        await until("all are in", lambda: len(running.slots) == len(SCHEDULES))
    assert set(await keys(owner)) == {
        "monitor_orders@2026-03-29T12:00Z",
        "sync_positions@2026-03-29T12:00Z",
        "aggregate@2026-03-29T12:00Z",
        "reconcile_stripe@2026-03-29T00:00Z",
        "subscription_renewal@2026-03-29T12:00Z",
        "prune@2026-03-29T12:00Z",
    }


async def test_a_schedule_that_is_refused_is_named_and_holds_up_no_other(
    gateway: Gateway, owner: Connection
) -> None:
    await owner.execute('alter table jobs_broker add constraint "closed today" check (false) not valid')
    async with scheduling(gateway, *SCHEDULES) as running:
        await until("the others are in", lambda: len(running.slots) == len(SCHEDULES) - 2)
        for one in ("monitor_orders", "sync_positions", "closed today"):
            await until("it is told", lambda one=one: one in str(running.scheduler.problem))  # type: ignore[misc]
        await owner.execute('alter table jobs_broker drop constraint "closed today"')
        await until("all are in", lambda: len(running.slots) == len(SCHEDULES))
        assert running.scheduler.problem is None


async def test_each_slot_once_with_two_schedulers_and_a_restart(gateway: Gateway, owner: Connection) -> None:
    async with AsyncExitStack() as stack:
        both = [await stack.enter_async_context(scheduling(gateway, PRUNE)) for _ in range(2)]
        for hours in range(1, 4):
            await until("both know", lambda hours=hours: {len(one.slots) for one in both} == {hours})  # type: ignore[misc]
            for one in both:
                one.clock.now = NOON + timedelta(hours=hours)
        await until("both know", lambda: {len(one.slots) for one in both} == {4})
    assert await keys(owner) == [f"prune@2026-03-29T{12 + n}:00Z" for n in range(4)]
    created = [[created for _, created in one.slots] for one in both]
    assert all(sum(pair) == 1 for pair in zip(*created, strict=True))
    async with scheduling(gateway, PRUNE, now=Clock(NOON + timedelta(hours=3))) as again:
        await until("it knows", lambda: len(again.slots) == 1)
    assert again.slots == [("prune@2026-03-29T15:00Z", False)]
    assert len(await keys(owner)) == 4


async def test_a_slot_is_asked_for_until_it_is_answered(gateway: Gateway, owner: Connection) -> None:
    gateway.faults.rest.plan("status", "enqueue", times=2)
    gateway.faults.rest.plan("lose_answer", "enqueue")
    async with scheduling(gateway, PRUNE) as running:
        await until("it is in", lambda: len(running.slots) == 1)
    assert running.slots == [("prune@2026-03-29T12:00Z", False)]
    assert len(running.told.of(Unavailable)) == 3
    assert len(await keys(owner)) == 1


async def test_schedules_without_a_handler_here_are_told_and_inserted(gateway: Gateway) -> None:
    async def prune(_payload: Anything) -> None: ...

    async with scheduling(gateway, *SCHEDULES, registry=registry_of(runs(prune))) as running:
        await until("all are in", lambda: len(running.slots) == len(SCHEDULES))
    told = [(event.type, event.queue) for event in running.told.of(SlotWithoutHandler)]
    assert told == [
        ("monitor_orders", "broker"),
        ("sync_positions", "broker"),
        ("aggregate", "alerts"),
        ("reconcile_stripe", "payment"),
        ("subscription_renewal", "payment"),
    ]


async def test_a_thread_that_died_is_a_problem_by_name(gateway: Gateway) -> None:
    times = 0

    def breaks() -> datetime:
        nonlocal times
        times += 1
        if times > 2:
            raise OverflowError("no such time")
        return NOON

    async with scheduling(gateway, PRUNE, now=breaks) as running:
        await until("it is told", lambda: bool(running.told.of(Swallowed)))
        assert running.scheduler.problem == "the scheduler thread died (OverflowError)"
    assert running.told.of(Swallowed)[0].where == "scheduler thread"


async def test_a_thread_that_hangs_is_a_problem_by_name(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    release = threading.Event()
    times = 0

    def hangs() -> datetime:
        nonlocal times
        times += 1
        if times > 1:
            release.wait(30)
        return NOON

    monkeypatch.setattr(room, "_BEHIND_SECONDS", 0.05)
    async with scheduling(gateway, PRUNE, now=hangs) as running:
        await until("it is told", lambda: running.scheduler.problem is not None)
        assert str(running.scheduler.problem).startswith("the scheduler thread has been still for")
        release.set()
        await until("it is well again", lambda: running.scheduler.problem is None)


async def test_a_local_clock_that_steps_back_stops_nothing(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library goes by local time, which in autumn has an hour twice."""
    back = timedelta()

    class Local(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> "Local":
            return super().now(tz) - back

    monkeypatch.setattr(schedule, "datetime", SimpleNamespace(**{**vars(dt), "datetime": Local}))
    async with scheduling(gateway, PRUNE) as running:
        await until("the first is in", lambda: len(running.slots) == 1)
        back = timedelta(hours=1)
        running.clock.now += timedelta(hours=1)
        await until("the next is in", lambda: len(running.slots) == 2, patience=5)


async def test_the_thread_ends_with_the_process(gateway: Gateway) -> None:
    import threading

    async with scheduling(gateway, PRUNE) as running:
        await until("it is in", lambda: len(running.slots) == 1)
        assert [thread.name for thread in threading.enumerate()].count("scheduler") == 1
    assert not [thread for thread in threading.enumerate() if thread.name == "scheduler"]
