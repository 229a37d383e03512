"""One job per slot, however many processes run the schedules, and never a silent stop."""

import asyncio
import datetime as dt
import json
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
import schedule

from devstack.gateway import Gateway
from devstack.keys import LOCAL
from listener import scheduler as room
from listener import slots
from listener.events import (
    Available,
    ScheduleRefused,
    SlotInserted,
    SlotsLeftOut,
    SlotWithoutHandler,
    Swallowed,
    Unavailable,
)
from listener.periodic import Declared, Policy
from listener.registry import Registry, load
from listener.scheduler import Scheduler
from listener.store import connected
from listener.timetable import Rule
from tests.listener.working import QUICK, Anything, Connection, Told, registry_of, runs
from tests.waiting import until

NOON = datetime(2026, 3, 29, 12, 3, 20, tzinfo=UTC)
HOUR = timedelta(hours=1)
LOOKING = replace(QUICK, sweep=timedelta(seconds=0.05))
"""Looks often, so that a clock that was moved is noticed."""


def declared(
    name: str, every: timedelta = HOUR, *, queue: str = "maintenance", missed: Policy = "once"
) -> Declared:
    return Declared(Rule(every=every), missed, name, queue=queue, type=name)


PRUNE = declared("prune")


def registry(*schedules: Declared) -> Registry:
    return Registry({}, (), (), schedules)


async def set_clock(owner: Connection, moment: datetime) -> None:
    await owner.execute(
        "create or replace function public.clock_now() returns timestamptz language sql stable parallel safe"
        f" return '{moment.isoformat()}'::timestamptz"
    )


@pytest.fixture(autouse=True)
async def noon(owner: Connection) -> None:
    """The clock of the database stands still until it is set."""
    await set_clock(owner, NOON)


@dataclass
class Running:
    scheduler: Scheduler
    told: Told
    task: asyncio.Task[None]

    @property
    def slots(self) -> list[tuple[str, bool]]:
        return [(event.slot, event.created) for event in self.told.of(SlotInserted)]

    @property
    def refused(self) -> dict[str, str]:
        return {event.name: event.why for event in self.told.of(ScheduleRefused)}

    async def inserts(self, count: int) -> None:
        await until(f"{count} slots are jobs", lambda: len(self.slots) >= count)
        assert len(self.slots) == count


@asynccontextmanager
async def scheduling(
    gateway: Gateway, *schedules: Declared, loaded: Registry | None = None
) -> AsyncIterator[Running]:
    told = Told()
    async with connected(gateway.url, LOCAL.service_role, "test-worker") as store:
        scheduler = Scheduler(store, loaded or registry(*schedules), tempo=LOOKING, emit=told)
        task = asyncio.create_task(scheduler.run())
        try:
            yield Running(scheduler, told, task)
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.wait({task})


async def keys(owner: Connection) -> Sequence[str]:
    rows = await owner.fetch("select idempotency_key from jobs order by id")
    return [row["idempotency_key"] for row in rows]


async def test_the_six_of_the_platform_are_declared_and_their_latest_slot_is_made_up_for(
    gateway: Gateway, owner: Connection
) -> None:
    """By the keys that versions without a table used, so that no deploy inserts a slot twice."""
    async with scheduling(gateway, loaded=load()) as running:
        await running.inserts(6)
    assert set(await keys(owner)) == {
        "monitor_orders@2026-03-29T12:00Z",
        "sync_positions@2026-03-29T12:00Z",
        "aggregate@2026-03-29T12:00Z",
        "reconcile_stripe@2026-03-29T00:00Z",
        "subscription_renewal@2026-03-29T12:00Z",
        "prune@2026-03-29T12:00Z",
    }
    assert {row["data"] for row in await owner.fetch("select data from jobs")} == {"{}"}
    assert not running.told.of(SlotWithoutHandler)


async def test_a_schedule_that_is_refused_is_named_and_holds_up_no_other(
    gateway: Gateway, owner: Connection
) -> None:
    await owner.execute('alter table jobs_broker add constraint "closed today" check (false) not valid')
    await owner.execute(
        "insert into schedules (name, queue, type, cron) values ('never', 'maintenance', 'a', '0 0 30 2 *')"
    )
    async with scheduling(
        gateway, PRUNE, declared("sync", queue="broker"), declared("lost", queue="no")
    ) as running:
        await running.inserts(1)
        await until("they are told", lambda: len(running.refused) == 3)
        assert running.refused["sync"] == "closed today"
        assert "queue does not exist" in running.refused["lost"]
        assert "Bad day-of-month" in running.refused["never"]
        assert running.scheduler.problem is None, "this process is well"
        calls = len(running.told)
        await set_clock(owner, NOON + timedelta(seconds=4))
        await owner.execute('alter table jobs_broker drop constraint "closed today"')
        assert len(running.told) == calls, "it does not spin"
        await set_clock(owner, NOON + timedelta(seconds=5))
        await running.inserts(2)
    assert await keys(owner) == ["prune@2026-03-29T12:00Z", "sync@2026-03-29T12:00Z"]


async def test_each_slot_once_with_two_schedulers_and_a_restart(gateway: Gateway, owner: Connection) -> None:
    async with AsyncExitStack() as stack:
        both = [await stack.enter_async_context(scheduling(gateway, PRUNE)) for _ in range(2)]
        for hours in range(1, 4):
            await until(
                "the slot is a job",
                lambda hours=hours: sum(len(one.slots) for one in both) == hours,  # type: ignore[misc]
            )
            await set_clock(owner, NOON + hours * HOUR)
        await until("the slot is a job", lambda: sum(len(one.slots) for one in both) == 4)
    assert await keys(owner) == [f"prune@2026-03-29T{12 + n}:00Z" for n in range(4)]
    await owner.execute("delete from jobs")
    async with scheduling(gateway, PRUNE) as again:
        await set_clock(owner, NOON + 4 * HOUR)
        await again.inserts(1)
    assert await keys(owner) == ["prune@2026-03-29T16:00Z"]


async def test_a_slot_is_asked_for_until_it_is_answered(gateway: Gateway, owner: Connection) -> None:
    gateway.faults.rest.plan("status", "declare_schedules", times=2)
    gateway.faults.rest.plan("lose_answer", "run_slots")
    async with scheduling(gateway, PRUNE) as running:
        await until("it is in", lambda: bool(running.told.of(Available)))
        assert len(running.told.of(Unavailable)) == 3
        assert running.slots == [], "nobody has heard of it"
        assert await keys(owner) == ["prune@2026-03-29T12:00Z"]
        await set_clock(owner, NOON + HOUR)
        await running.inserts(1)
    assert await keys(owner) == ["prune@2026-03-29T12:00Z", "prune@2026-03-29T13:00Z"]


async def test_what_operators_write_is_served_without_a_restart(gateway: Gateway, owner: Connection) -> None:
    async with scheduling(gateway, PRUNE) as running:
        await running.inserts(1)
        await owner.execute(
            "insert into schedules (name, queue, type, cron, timezone, data, slot_as) values"
            " ('late', 'alerts', 'aggregate', '30 14 * * *', 'Europe/Berlin', '{\"a\": 1}', 'at')"
        )
        await until("it is reckoned", lambda: next_slot(owner, "late"))
        await set_clock(owner, NOON.replace(hour=12, minute=30, second=0))
        await running.inserts(2)
        await owner.execute("select pause_schedule('prune')")
        await owner.execute("update schedules set cron = '0 16 * * *' where name = 'late'")
        await until("it is reckoned", lambda: next_slot(owner, "late"))
        await set_clock(owner, NOON.replace(hour=14, minute=0, second=0))
        await running.inserts(3)
    assert await keys(owner) == [
        "prune@2026-03-29T12:00Z",
        "late@2026-03-29T12:30Z",
        "late@2026-03-29T14:00Z",
    ]
    assert await owner.fetchval("select data from jobs where queue = 'alerts' limit 1") == (
        '{"a": 1, "at": "2026-03-29T12:30:00Z"}'
    )


async def next_slot(owner: Connection, name: str) -> bool:
    return await owner.fetchval("select next_slot is not null from schedules where name = $1", name) is True


async def test_missed_slots_are_dealt_with_by_policy_and_told(gateway: Gateway, owner: Connection) -> None:
    policies: list[Policy] = ["skip", "once", "all"]
    three = [declared(missed, missed=missed) for missed in policies]
    async with scheduling(gateway, *three) as running:
        await running.inserts(2)
        await until("the third is reckoned", lambda: next_slot(owner, "skip"))
    await set_clock(owner, NOON + 5 * HOUR)
    async with scheduling(gateway, *three) as running:
        await running.inserts(6)
        await until("it is told", lambda: len(running.told.of(SlotsLeftOut)) == 2)
    assert {(one.name, one.count) for one in running.told.of(SlotsLeftOut)} == {("skip", 5), ("once", 4)}
    assert sorted(await keys(owner)) == sorted(
        ["once@2026-03-29T12:00Z", "once@2026-03-29T17:00Z"]
        + [f"all@2026-03-29T{12 + n}:00Z" for n in range(6)]
    )


async def test_a_slot_that_came_during_a_deploy_is_run_although_the_new_release_changes_its_rule(
    gateway: Gateway, owner: Connection
) -> None:
    """By the policy of the schedule; the rule of the new release begins with the release."""
    at_three, at_four = (
        [
            replace(declared(missed, missed=missed), rule=Rule(cron=f"0 {hour} * * *"))
            for missed in ("once", "all")
        ]
        for hour in (15, 16)
    )
    async with scheduling(gateway, *at_three):
        for missed in ("once", "all"):
            await until("it is reckoned", lambda missed=missed: next_slot(owner, missed))  # type: ignore[misc]
    await set_clock(owner, NOON + 28 * HOUR)
    async with scheduling(gateway, *at_four) as running:
        await running.inserts(3)
        await until("it is taken over", lambda: rules(owner, "0 16 * * *"))
        await set_clock(owner, NOON + 52 * HOUR)
        await running.inserts(5)
    assert sorted(await keys(owner)) == [
        "all@2026-03-29T15:00Z",
        "all@2026-03-30T15:00Z",
        "all@2026-03-31T16:00Z",
        "once@2026-03-30T15:00Z",
        "once@2026-03-31T16:00Z",
    ]


async def test_a_slot_comes_to_nothing_while_its_last_job_runs_and_that_is_told(
    gateway: Gateway, owner: Connection
) -> None:
    one = replace(PRUNE, overlap="skip")
    async with scheduling(gateway, one) as running:
        await running.inserts(1)
        await set_clock(owner, NOON + HOUR)
        await until("it is told", lambda: bool(running.told.of(SlotsLeftOut)))
        await owner.execute("update jobs set status = 'completed', finished_at = now()")
        await set_clock(owner, NOON + 2 * HOUR)
        await running.inserts(2)
    assert [(event.name, event.count) for event in running.told.of(SlotsLeftOut)] == [("prune", 1)]
    assert await keys(owner) == ["prune@2026-03-29T12:00Z", "prune@2026-03-29T14:00Z"]


async def rules(owner: Connection, cron: str) -> bool:
    return await owner.fetchval("select bool_and(cron = $1) from schedules", cron) is True


async def test_a_schedule_whose_jobs_fail_or_are_never_run_goes_on(
    gateway: Gateway, owner: Connection
) -> None:
    async with scheduling(gateway, PRUNE) as running:
        await running.inserts(1)
        await owner.execute("update jobs set status = 'failed', finished_at = now()")
        for hours in (1, 2):
            await set_clock(owner, NOON + hours * HOUR)
            await running.inserts(1 + hours)
    assert len(await keys(owner)) == 3


async def test_types_without_a_handler_here_are_told_once_and_inserted(
    gateway: Gateway, owner: Connection
) -> None:
    async def trace(_payload: Anything) -> None: ...

    loaded = replace(
        registry_of(runs(trace)), schedules=(PRUNE, declared("trace"), declared("sync", queue="broker"))
    )
    async with scheduling(gateway, loaded=loaded) as running:
        await running.inserts(3)
        await set_clock(owner, NOON + HOUR)
        await running.inserts(6)
    told = [(event.type, event.queue) for event in running.told.of(SlotWithoutHandler)]
    assert told == [("prune", "maintenance")], "of queues that others serve they know more"


async def test_a_declaration_that_no_code_has_any_more_is_told_once_and_one_of_ours_comes_back(
    gateway: Gateway, owner: Connection
) -> None:
    gone = {**declared("gone").words, "name": "gone"}
    await owner.execute("select declare_schedules($1)", json.dumps([gone]))
    async with scheduling(gateway, PRUNE) as running:
        await running.inserts(2)
        await set_clock(owner, NOON + 30 * HOUR)
        await running.inserts(3)
    assert [key for key, _ in running.slots].count("prune@2026-03-30T18:00Z") == 1
    assert [event.name for event in running.told.of(ScheduleRefused)] == ["gone"]


async def test_a_database_without_our_functions_makes_the_process_not_ready(
    gateway: Gateway, owner: Connection
) -> None:
    await owner.execute("alter function due_schedules rename to hidden; notify pgrst, 'reload schema'")
    async with scheduling(gateway) as running:
        await until("it is told", lambda: running.scheduler.problem is not None)
        assert "pulse migrate" in str(running.scheduler.problem)
        await owner.execute("alter function hidden rename to due_schedules; notify pgrst, 'reload schema'")
        await until("it is well again", lambda: running.scheduler.problem is None)


async def test_a_thread_that_died_is_a_problem_by_name(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: object) -> None:
        raise OverflowError("no such time")

    monkeypatch.setattr(room, "reckon", breaks)
    async with scheduling(gateway, PRUNE) as running:
        await until("it is told", lambda: bool(running.told.of(Swallowed)))
        assert running.scheduler.problem == "the scheduler thread died (OverflowError)"
    assert running.told.of(Swallowed)[0].where == "scheduler thread"


async def test_a_thread_that_hangs_is_a_problem_by_name(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()

    def hangs(due: Sequence[slots.Due], now: datetime) -> object:
        release.wait(30)
        return slots.reckon(due, now)

    monkeypatch.setattr(room, "_BEHIND_SECONDS", 0.05)
    monkeypatch.setattr(room, "_ROUND_SECONDS", 0.01)
    monkeypatch.setattr(room, "reckon", hangs)
    async with scheduling(gateway, PRUNE) as running:
        await until("it is told", lambda: running.scheduler.problem is not None)
        assert str(running.scheduler.problem).startswith("the scheduler thread has been still for")
        release.set()
        await until("it is well again", lambda: running.scheduler.problem is None)
        await running.inserts(1)


async def test_a_local_clock_that_steps_back_stops_nothing(
    gateway: Gateway, owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library goes by local time, which in autumn has an hour twice."""
    back = timedelta()

    class Local(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> "Local":
            return super().now(tz) - back

    monkeypatch.setattr(schedule, "datetime", SimpleNamespace(**{**vars(dt), "datetime": Local}))
    monkeypatch.setattr(time, "time", lambda: 0.0)
    async with scheduling(gateway, PRUNE) as running:
        await running.inserts(1)
        back = HOUR
        await set_clock(owner, NOON + HOUR)
        await running.inserts(2)


async def test_the_thread_ends_with_the_process(gateway: Gateway) -> None:
    def threads() -> int:
        return [thread.name for thread in threading.enumerate()].count("scheduler")

    async with scheduling(gateway, PRUNE) as running:
        await running.inserts(1)
        assert threads() == 1
    assert threads() == 0
