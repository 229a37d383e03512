"""Those who enqueue, cancel and replay: over a gateway of their own, each call until it is answered."""

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import aiohttp

from chaos.jobs import Kind
from devstack.keys import LOCAL
from listener.errors import StoreUnavailable
from listener.jobs import NewJob
from listener.store import Store, connected

_PRODUCERS = 2
_TICK_SECONDS = 0.2
_LARGEST_BATCH = 200
_AGAIN_SECONDS = 0.3
_TWICE = 0.05  # of the batches are sent twice at once
_PLAINLY = 0.2  # of the batches are followed by a plain insert


@dataclass(slots=True)
class Sent:
    """What the producers were told."""

    ids: dict[str, int] = field(default_factory=dict[str, int])
    """By idempotency key: every job that the database said it has."""
    disagreed: list[str] = field(default_factory=list[str])
    """Keys that were answered with two different ids."""
    cancelled: set[int] = field(default_factory=set[int])
    """Jobs whose cancellation was asked for, and the database said it knows."""

    def note(self, key: str, job_id: int) -> None:
        """The database has answered for this key."""
        if self.ids.setdefault(key, job_id) != job_id:
            self.disagreed.append(key)


class Producers:
    """Enqueues the jobs of a storm evenly over its length."""

    def __init__(
        self, url: str, kinds: Sequence[Kind], jobs: Sequence[NewJob], seconds: float, seed: int
    ) -> None:
        self.sent = Sent()
        self._url = url
        self._kinds = {(kind.queue, kind.type): kind for kind in kinds}
        self._jobs = jobs
        self._seconds = seconds
        self._chance = random.Random(f"producers {seed}")
        self._session: aiohttp.ClientSession | None = None

    async def run(self) -> None:
        """Returns when every job is enqueued and every cancellation asked for."""
        headers = {"apikey": LOCAL.secret, "Authorization": f"Bearer {LOCAL.secret}"}
        timeout = aiohttp.ClientTimeout(total=15)
        async with (
            connected(self._url, LOCAL.secret, "chaos-producer") as store,
            aiohttp.ClientSession(headers=headers, timeout=timeout) as self._session,
            asyncio.TaskGroup() as group,
        ):
            for number in range(_PRODUCERS):
                group.create_task(self._produce(store, self._jobs[number::_PRODUCERS], group))

    async def _produce(self, store: Store, jobs: Sequence[NewJob], group: asyncio.TaskGroup) -> None:
        began, done = time.monotonic(), 0
        while done < len(jobs):
            due = (time.monotonic() - began) / self._seconds * len(jobs)
            if batch := jobs[done : min(int(due) + 1, done + _LARGEST_BATCH)]:
                await self._enqueue(store, batch, group)
                done += len(batch)
            else:
                await asyncio.sleep(_TICK_SECONDS)

    async def replay(self) -> None:
        """Gives every dead letter of a kind that is to be replayed another run."""
        headers = {"apikey": LOCAL.secret, "Authorization": f"Bearer {LOCAL.secret}"}
        async with aiohttp.ClientSession(headers=headers) as self._session:
            for kind in self._kinds.values():
                if kind.replay:
                    await self._call("replay", {"job_type": kind.queue, "type": kind.type})

    async def _enqueue(self, store: Store, batch: Sequence[NewJob], group: asyncio.TaskGroup) -> None:
        plain = batch[-1] if self._chance.random() < _PLAINLY else None
        rest = batch[:-1] if plain else batch
        times = 2 if self._chance.random() < _TWICE else 1
        async with asyncio.TaskGroup() as both:
            for _ in range(times):
                both.create_task(self._until_known(store, rest))
            if plain is not None:
                both.create_task(self._insert(store, plain))
        for job in batch:
            if self._kinds[job.queue, job.type].cancel:
                group.create_task(
                    self._cancel(self.sent.ids[str(job.idempotency_key)], self._chance.uniform(0, 6))
                )

    async def _until_known(self, store: Store, jobs: Sequence[NewJob]) -> None:
        """Enqueues until the answer comes: the keys keep it from happening twice."""
        while jobs:
            try:
                answers = await store.enqueue(jobs)
            except StoreUnavailable:
                await asyncio.sleep(_AGAIN_SECONDS)
                continue
            for job, answer in zip(jobs, answers, strict=True):
                self.sent.note(str(job.idempotency_key), answer.id)
            return

    async def _insert(self, store: Store, job: NewJob) -> None:
        """A plain insert, as any program makes it; what is left open by a lost answer the key decides."""
        row = {
            "type": job.type,
            "data": job.data,
            "priority": job.priority,
            "max_attempts": job.max_attempts,
            "idempotency_key": job.idempotency_key,
        }
        status = await self._post(f"/rest/v1/{job.queue}_jobs", row)
        if status is None or status >= 400:
            await asyncio.sleep(_AGAIN_SECONDS)
        await self._until_known(store, [job])

    async def _cancel(self, job_id: int, after: float) -> None:
        await asyncio.sleep(after)
        await self._call("cancel", {"job_ids": [job_id]})
        self.sent.cancelled.add(job_id)

    async def _call(self, function: str, arguments: Mapping[str, object]) -> None:
        while True:
            status = await self._post(f"/rest/v1/rpc/{function}", arguments)
            if status is not None and status < 300:
                return
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _post(self, path: str, words: Mapping[str, object]) -> int | None:
        session = cast("aiohttp.ClientSession", self._session)
        try:
            async with session.post(self._url + path, json=words) as response:
                await response.read()
                return response.status
        except (aiohttp.ClientError, TimeoutError):
            return None
