"""Keeps the leases of everything that this process holds, in one call for all queues, and hears what became of them.

A third of the lease passes between two beats, so two may be missed before another worker takes the jobs. When the
answer says that an attempt was lost, or that somebody asked to cancel its job, the attempt is told to stop. So are, on
the same occasion, those that go on after their time-out.
"""

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta

from listener.attempt import Stop
from listener.config import Tempo
from listener.errors import StoreError
from listener.events import Available, Emit, Unavailable
from listener.jobs import AttemptRef
from listener.store import Store
from listener.worker import Worker


async def keep_leases(workers: Sequence[Worker], store: Store, tempo: Tempo, emit: Emit) -> None:
    """Beats until cancelled. An unanswered beat is told and tried again sooner."""
    away_since: float | None = None
    calm = tempo.lease.total_seconds() / 3
    hurry = min(calm, tempo.reconnect.total_seconds() * 4)
    pause = calm
    while True:
        await asyncio.sleep(pause)
        for worker in workers:
            worker.press()
        held = {ref: worker for worker in workers for ref in worker.held}
        if not held:
            continue
        try:
            beat = await store.heartbeat(list(held), tempo.lease)
        except StoreError as error:
            away_since = away_since or time.monotonic()
            pause = hurry
            emit(Unavailable("leases", str(error), timedelta(seconds=pause)))
            continue
        pause = calm
        if away_since is not None:
            emit(Available("leases", timedelta(seconds=time.monotonic() - away_since)))
            away_since = None
        by_job = {(ref.id, ref.attempt): ref for ref in held}
        for stop, named in ((Stop.LOST, beat.lost), (Stop.CANCEL, beat.cancel)):
            _stop(stop, [by_job[one] for one in named if one in by_job], held)


def _stop(why: Stop, refs: Sequence[AttemptRef], held: dict[AttemptRef, Worker]) -> None:
    for ref in refs:
        held[ref].stop(ref, why)
