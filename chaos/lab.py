"""One storm from its beginning to its verdict: stack, fleet, producers and weather, then the evidence."""

import asyncio
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import cast

import asyncpg

from chaos.evidence import Evidence, from_database, from_ledgers, from_logs
from chaos.faults import Faults
from chaos.fleet import Fleet, Orders, running_fleet
from chaos.jobs import Kind, draw, load_kinds
from chaos.plan import OWN_PROJECT, Plan
from chaos.producers import Producers
from chaos.report import Report, judged
from chaos.stack import Stack, running_stack
from chaos.weather import Deed, schedule
from devstack.postgres import throw_away_folder

Say = Callable[[str], None]
_LOOK_SECONDS = 0.25
_REPLAY_SECONDS = 3.0
_UNREST = """
    select
        coalesce(bool_or(status = 'running' or run_at <= clock_now()), false),
        extract(epoch from max(run_at) - clock_now())::float8
    from jobs where status in ('pending', 'running')
"""
_CLOCK = (
    "create or replace function public.clock_now() returns timestamptz language sql stable parallel safe"
    " as $$ select pg_catalog.now() + interval '{} seconds' $$"
)


async def storm(plan: Plan, say: Say) -> Report:
    """Plays it. Its logs and ledgers stay when an invariant is broken."""
    kinds = load_kinds(plan.project)
    folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="chaos-"))
    keeps = False
    try:
        report = await _played(plan, say, kinds, folder)
        keeps = not report.holds
    finally:
        if not keeps:
            shutil.rmtree(folder)
    return report


async def _played(plan: Plan, say: Say, kinds: Sequence[Kind], folder: Path) -> Report:
    deeds = schedule(plan.seed, plan.seconds, plan.workers, plan.lease, plan.faults)
    with throw_away_folder() as data:
        queues = sorted({kind.queue for kind in kinds})
        async with running_stack(data, queues, plan.workers) as stack:
            if plan.sabotage is not None:
                await stack.apply(plan.sabotage)
            evidence = Evidence(
                kinds={(kind.queue, kind.type): kind for kind in kinds},
                longest_wait_allowed=plan.longest_wait,
            )
            producers = Producers(
                stack.lanes[-1].url, kinds, draw(kinds, plan.jobs, plan.seed), plan.seconds * 0.95, plan.seed
            )
            size = f"{plan.workers} workers, {plan.jobs} jobs, {len(deeds)} faults"
            say(f"{size} in {plan.minutes:g} min, seed {plan.seed}")
            async with running_fleet(stack.lanes[:-1], _orders(plan, folder, kinds)) as fleet:
                began = time.monotonic()
                done = await _weather(stack, fleet, producers, deeds, say)
                over, evidence.over_at = time.monotonic(), time.time()
                say(f"the storm is over after {over - began:.0f} s; waiting until all is at rest")
                rest_after = await _rest(stack, producers, plan)
            evidence.exits = fleet.exits
            say("all workers have drained; looking at the evidence")
            await _collect(stack, folder, producers, evidence)
    return judged(plan, evidence, done, seconds=over - began, rest_after=rest_after, folder=str(folder))


def _orders(plan: Plan, folder: Path, kinds: Sequence[Kind]) -> Orders:
    own = plan.project == OWN_PROJECT
    return Orders(
        project=plan.project,
        folder=folder,
        queues=sorted({kind.queue for kind in kinds}),
        types=sorted({kind.type for kind in kinds}),
        lease=plan.lease,
        sweep=plan.sweep,
        grace=min(plan.lease, 10.0),
        schedules=own,  # the slots of schedules have handlers there, and only there for sure
    )


async def _weather(
    stack: Stack, fleet: Fleet, producers: Producers, deeds: Sequence[Deed], say: Say
) -> Sequence[Deed]:
    faults = Faults(stack, fleet)
    async with asyncio.TaskGroup() as group:
        telling = group.create_task(_tell(faults, producers, deeds, say))
        async with asyncio.TaskGroup() as both:
            both.create_task(producers.run())
            both.create_task(faults.run(deeds))
        telling.cancel()
    await faults.calm()
    return faults.done


async def _tell(faults: Faults, producers: Producers, deeds: Sequence[Deed], say: Say) -> None:
    while True:
        await asyncio.sleep(15)
        say(f"  {faults.over} of {len(deeds)} faults are over, {len(producers.sent.ids)} jobs are enqueued")


async def _rest(stack: Stack, producers: Producers, plan: Plan) -> float | None:
    """Waits until no job waits or runs, and replays meanwhile; answers how long it took, or None."""
    began = time.monotonic()
    replay_at = began
    ahead = 0.0
    while time.monotonic() - began < plan.patience:
        if time.monotonic() >= replay_at:
            await producers.replay()
            replay_at = time.monotonic() + _REPLAY_SECONDS
        with suppress(asyncpg.PostgresError, OSError):
            async with stack.session() as session:
                found = tuple(await session.fetchrow(_UNREST) or (True, None))
                busy, later = cast("tuple[bool, float | None]", found)
                if not busy and later is None:
                    return time.monotonic() - began
                if not busy and later:
                    ahead += later  # what is left waits for a retry, or in the line of what vanished twice
                    await session.execute(_CLOCK.format(ahead))
        await asyncio.sleep(_LOOK_SECONDS)
    return None


async def _collect(stack: Stack, folder: Path, producers: Producers, evidence: Evidence) -> None:
    evidence.ids = producers.sent.ids
    evidence.disagreed = producers.sent.disagreed
    evidence.cancelled = frozenset(producers.sent.cancelled)
    connection = await asyncpg.connect(stack.dsn)
    try:
        await from_database(connection, evidence)
    finally:
        await connection.close()
    await asyncio.to_thread(from_ledgers, folder / "ledger", evidence)
    evidence.said = await asyncio.to_thread(from_logs, folder / "logs", evidence.over_at)
