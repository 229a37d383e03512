"""Slots become jobs once each, while real processes are killed, frozen and started, and while an older version runs."""

import asyncio
import signal
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

from devstack.gateway import Gateway
from devstack.keys import LOCAL
from listener.jobs import NewJob
from listener.store import connected
from tests.faults.acting import Acting
from tests.projects import StartWorker
from tests.waiting import until

TEMPO = {"sweep": 0.3, "reconnect": 0.05}
NAMES = [f"tick{number}" for number in range(5)]
SECOND = timedelta(seconds=1)


async def slots(acting: Acting, name: str) -> list[datetime]:
    rows = await acting.owner.fetch(
        "select idempotency_key from jobs where idempotency_key like $1", f"{name}@%"
    )
    return sorted(datetime.fromisoformat(row["idempotency_key"].partition("@")[2]) for row in rows)


async def test_each_slot_is_one_job_whichever_of_four_processes_is_killed_or_frozen(
    acting: Acting, start_worker: StartWorker
) -> None:
    await acting.owner.executemany(
        "insert into schedules (name, queue, type, every_seconds, missed) values ($1, 'maintenance', 'act', 1, 'all')",
        [(name,) for name in NAMES],
    )

    async def two_more_slots(of: str) -> None:
        before = len(await slots(acting, of))

        async def are_in() -> bool:
            return len(await slots(acting, of)) >= before + 2

        await until(f"two more slots of {of} are jobs", are_in)

    async with AsyncExitStack() as stack:
        fleet = [
            await stack.enter_async_context(start_worker("--log-level", "INFO", tempo=TEMPO))
            for _ in range(3)
        ]
        await two_more_slots("tick0")
        fleet[0].signal(signal.SIGKILL)
        fleet[1].signal(signal.SIGSTOP)
        await two_more_slots("tick1")
        fleet.append(await stack.enter_async_context(start_worker("--log-level", "INFO", tempo=TEMPO)))
        fleet[2].signal(signal.SIGKILL)
        await two_more_slots("tick2")
        fleet[1].signal(signal.SIGCONT)
        await two_more_slots("tick3")
        told = [line.message for one in fleet for line in one.lines(" inserted as job ")]
    for name in NAMES:
        found = await slots(acting, name)
        assert found == [found[0] + n * SECOND for n in range(len(found))], "each second, once"
        assert len(found) >= 3
    assert len(told) == len(set(told)), "no slot was inserted by two"
    assert not [one for worker in fleet for one in worker.lines("stands still")]


async def test_a_slot_is_one_job_while_a_version_runs_that_knows_no_table(
    acting: Acting, start_worker: StartWorker, gateway: Gateway
) -> None:
    """It inserted slots by its own clock, which is ahead here, with their time as the key."""
    await acting.owner.execute(
        "insert into schedules (name, queue, type, every_seconds, missed)"
        " values ('act', 'maintenance', 'act', 1, 'all')"
    )
    created: list[bool] = []

    async def the_version_before() -> None:
        async with connected(gateway.url, LOCAL.service_role, "before") as store:
            while True:
                slot = datetime.now(UTC).replace(microsecond=0) + 2 * SECOND
                key = f"act@{slot:%Y-%m-%dT%H:%M}" + (f":{slot:%S}Z" if slot.second else "Z")
                job = NewJob("maintenance", "act", {}, run_at=slot, idempotency_key=key)
                created.extend(one.created for one in await store.enqueue([job]))
                await asyncio.sleep(0.05)

    async with start_worker("--log-level", "INFO", tempo=TEMPO) as worker:
        before = asyncio.create_task(the_version_before())
        try:
            await until("slots were there already", lambda: len(worker.lines("was there already")) >= 3)
        finally:
            before.cancel()
            await asyncio.wait({before})
    assert True in created
    begin = await acting.owner.fetchval("select created_at from schedules")
    end = await acting.owner.fetchval("select settled_to from schedules")
    found = [slot for slot in await slots(acting, "act") if begin < slot <= end]
    assert found == [found[0] + n * SECOND for n in range(len(found))], "each second, once"
    assert len(found) == (end - found[0]) // SECOND + 1
