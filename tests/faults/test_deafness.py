"""Whatever deafens Realtime: hearing comes back by itself and in time, the gap is counted, and no job waits for it."""

import time
from datetime import timedelta
from typing import TypeAlias

import asyncpg
import pytest

from devstack.gateway import Gateway
from listener.config import Timings
from listener.events import Swallowed
from listener.jobs import WokenBy
from tests.faults.deafness import FAULTS
from tests.faults.listeners import NO_CANARIES, SWEEP, SWEPT, TIMINGS, TOLD, Stage, Workers, our_listening
from tests.waiting import until

# The client reads an attribute that its own websockets library no longer likes.
pytestmark = pytest.mark.filterwarnings("ignore:ConnectionClosed:DeprecationWarning")

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

KNOWN = 5.0
"""Seconds, as in production."""
BUSY = 3.0
"""Seconds for connecting, joining and running a job, on a busy machine."""
UNKNOWN = TIMINGS.unknown.total_seconds() + BUSY
TIMES = 2
QUICK = (
    "a callback raises",
    "a token runs out",
    "a passing error",
    "a killed server",
    "a crashed channel",
)
WAYS = [
    pytest.param(name, way, id=f"{name}-{way}")
    for name, fault in FAULTS.items()
    for way, reason in (("changes", fault.not_changes), ("broadcast", fault.not_broadcast))
    if not reason
]


@pytest.fixture
async def stage(gateway: Gateway, owner: Connection, database: str, way: str) -> Stage:
    if way == "broadcast":
        await owner.execute("select announce_by_broadcast()")
    return Stage(gateway, owner, database, by_broadcast=way == "broadcast")


@pytest.mark.parametrize(("name", "way"), WAYS)
async def test_hearing_comes_back_after(name: str, stage: Stage) -> None:
    async with our_listening(stage, NO_CANARIES if FAULTS[name].known else TIMINGS) as workers:
        before = workers.weight()
        for _ in range(TIMES):
            await survive(name, stage, workers)
        await until("nothing has grown", lambda: workers.weight() == before)
        assert not workers.told.of(Swallowed)


@pytest.mark.parametrize("way", ["changes", "broadcast"])
async def test_a_bad_day_leaves_nothing_behind(stage: Stage) -> None:
    async with our_listening(stage, NO_CANARIES) as workers:
        before = workers.weight()
        for name in 5 * QUICK:
            epochs = workers.subscription.epochs
            await FAULTS[name].begin(stage)
            await stage.insert(SWEPT)  # what a callback raises on
            await until("the epoch is over", lambda: workers.subscription.epochs > epochs)  # noqa: B023
            await until("it hears again", lambda: workers.subscription.ready)
        assert workers.subscription.gaps >= 5 * len(QUICK)
        await until("nothing has grown", lambda: workers.weight() == before)


async def test_at_productions_pace_hearing_is_back_within_five_seconds(
    owner: Connection, database: str
) -> None:
    """Both sides: the clockwork of listening, and a server that looks twice a second and starts up in a second and a
    half."""
    async with Gateway(database, deliver_at_once=False) as gateway:
        stage = Stage(gateway, owner, database, by_broadcast=False)
        async with our_listening(stage, Timings()) as workers:
            gateway.faults.realtime.off = True
            await until("it waits as long as it ever does", lambda: workers.tries_in_vain > 2)
            gateway.faults.realtime.off = False
            told = await stage.insert(TOLD)
            await workers.runs(told, within=KNOWN)
            assert workers.subscription.ready


async def survive(name: str, stage: Stage, workers: Workers) -> None:
    """One fault from its beginning to its end, and what must be true of it."""
    fault, listening = FAULTS[name], workers.subscription
    gaps, deaf, missed = listening.gaps, listening.deaf_in_all, workers.missed
    began = time.monotonic()
    await fault.begin(stage)
    swept, told = await stage.insert(SWEPT), await stage.insert(TOLD)
    await workers.runs(swept, within=SWEEP.total_seconds() + BUSY)
    await stage.passed()
    if fault.lasts:
        await until("it is noticed", lambda: not listening.ready, patience=UNKNOWN)
        assert listening.gaps == gaps, "it called itself ready while it heard nothing"
    lasted = timedelta(seconds=time.monotonic() - began)
    await fault.end(stage)
    bound = KNOWN if fault.known else UNKNOWN
    if fault.gap:
        # What was inserted meanwhile is looked for when hearing is back: nothing else is inserted here.
        await workers.runs(told, within=bound)
        assert workers.woken_by(told) in {WokenBy.JOINED, WokenBy.REALTIME}
        await until("the gap is counted", lambda: listening.gaps > gaps, patience=bound)
    await workers.hears(within=bound)
    if fault.lasts:
        assert listening.deaf_in_all - deaf >= lasted
    if not fault.lossless:
        await until(
            "it is counted", lambda: listening.gaps > gaps or workers.missed > missed, patience=UNKNOWN
        )
    await stage.passed()
