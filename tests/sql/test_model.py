"""The real functions against the model of the queue: workers, a moving clock, lost answers and repeated calls, at will.

A failure shrinks to the shortest story that still breaks, printed as the calls that tell it.
"""

import asyncio
import os
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.sql.calls import Calls, Json
from tests.sql.queue_model import Job as ModelJob
from tests.sql.queue_model import Limit, Model, Ref, Words

EXAMPLES = int(os.environ.get("PULSE_EXAMPLES", "40"))
LEASE = 30.0
CLOCK = """
    create or replace function public.clock_now() returns timestamptz language sql stable parallel safe
    return pg_catalog.now() + pg_catalog.current_setting('test.passed')::interval;
    create or replace function public.call_moment() returns timestamptz language sql stable
    return public.clock_now()
"""
ROWS = """
    select id, status, attempt, uncounted, worker_id, cancel_requested, last_outcome,
        extract(epoch from run_at - now())::float as run_at,
        extract(epoch from lease_expires_at - now())::float as lease
    from public.jobs
"""
FORGOTTEN = """
    select j.id from public.jobs as j where j.status = 'pending' and j.lane is not null
    and not exists (select from public.lanes as l where (l.lane, l.queue, l.type) = (j.lane, j.queue, j.type))
"""
WORKERS = st.sampled_from(["ann", "bob"])
KINDS = st.sampled_from(["completed", "completed", "snooze", "cancel", "retry", "retry", "dead"])
DELAYS = st.sampled_from([None, 0.0, 3.0, 20.0])
LOST = st.sampled_from([False, False, False, False, True])
USERS = st.sampled_from(
    [None, "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"]
)
TYPES = st.sampled_from([None, "a"])
PER = st.sampled_from(["all", "user"])
WINDOW = 20.0
T = TypeVar("T")


@dataclass
class Worker:
    """What one worker believes."""

    knows: list[Ref] = field(default_factory=list[Ref])
    unsaid: list[Words] = field(default_factory=list[Words])
    """What it said without hearing an answer: to be said again."""
    unsure: bool = False
    floor: object = None


class Queue(RuleBasedStateMachine):
    """Each rule makes one call of both, and compares what they answer; the invariant compares all rows."""

    database: str
    limited_per: tuple[str, ...] = ()
    """What limits count by in this story: it may do without."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.model = Model()
        self.workers = {"ann": Worker(), "bob": Worker()}
        self.calls = Calls(self.run(asyncpg.connect(self.database)))
        # One transaction for the whole story, never committed: now() stands still and all time is ours.
        self.run(self.calls.connection.execute(f"begin; set local test.passed = '0'; {CLOCK}"))

    @initialize(
        per=st.sampled_from([(), ("user",), ("all", "user")]), users=st.lists(USERS, min_size=3, max_size=12)
    )
    def some_jobs(self, per: tuple[str, ...], users: list[str | None]) -> None:
        self.limited_per = per
        for n, user in enumerate(users):
            self.insert(0, 0.0, 1 + n % 3, user, 1)

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(call)

    def teardown(self) -> None:
        self.run(self.calls.connection.close())
        self.runner.close()

    @rule(
        priority=st.sampled_from([0, 0, 5]),
        delay=st.sampled_from([0.0, 10.0]),
        most=st.integers(1, 3),
        user=USERS,
        many=st.integers(1, 4),
    )
    def insert(self, priority: int, delay: float, most: int, user: str | None, many: int) -> None:
        at = self.model.now + delay
        for _ in range(many):
            made = self.run(self._insert(priority, at, most, user))
            self.model.jobs[made] = ModelJob(made, priority, at, most, user=user, made_at=self.model.now)

    async def _insert(self, priority: int, at: float, most: int, user: str | None) -> int:
        run_at = await self.calls.value("select now() + $1::interval", timedelta(seconds=at))
        user_id = None if user is None else UUID(user)
        return await self.calls.insert(priority=priority, run_at=run_at, max_attempts=most, user_id=user_id)

    @precondition(lambda self: self.limited_per)
    @rule(
        type_=TYPES,
        which=st.integers(0, 1),
        at_once=st.sampled_from([None, 1, 1, 2]),
        starts=st.sampled_from([None, None, 1, 2]),
    )
    def limit(self, type_: str | None, which: int, at_once: int | None, starts: int | None) -> None:
        per = self.limited_per[which % len(self.limited_per)]
        self.model.ever_limited.add((type_, per))
        words = {"at_once": at_once, "starts": starts, "per_seconds": None if starts is None else WINDOW}
        made = self.run(self.calls.limit(queue="payment", type=type_, per=per, **words))
        known = self.model.limits.get((type_, per))
        assert known is None or known.id == made
        log = {} if known is None else known.log
        self.model.limits[type_, per] = Limit(made, per, at_once, starts, WINDOW, log)

    @rule(type_=TYPES, per=PER)
    def unlimit(self, type_: str | None, per: str) -> None:
        known = self.model.limits.pop((type_, per), None)
        assert self.run(self.calls.unlimit("payment", type_, per)) == (known is not None)

    @rule(type_=TYPES)
    def pause(self, type_: str | None) -> None:
        assert self.run(self.calls.pause(type=type_)) == {"paused": type_ not in self.model.paused}
        self.model.paused.add(type_)

    @precondition(lambda self: self.model.paused)
    @rule()
    def resume(self) -> None:
        for type_ in self.model.paused:
            assert self.run(self.calls.resume(type=type_)) == {"resumed": True}
        self.model.paused = set()

    @rule(seconds=st.sampled_from([1.0, 6.0, 16.0, 31.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        self.model.now += seconds
        self.run(self.calls.connection.execute(f"set local test.passed = '{self.model.now} seconds'"))

    @rule(name=WORKERS, max_jobs=st.sampled_from([1, 2, 3, 3, 0]), sweep=st.booleans(), lost=LOST)
    def claim(self, name: str, max_jobs: int, sweep: bool, lost: bool) -> None:
        worker = self.workers[name]
        holding = worker.knows if sweep or worker.unsure else None
        answer = self.run(
            self.calls.claim(
                max_jobs,
                worker_id=name,
                lease_seconds=LEASE,
                sweep=sweep,
                holding=holding,
                floor=worker.floor,
            )
        )
        jobs = [(job["id"], job["attempt"]) for job in answer["jobs"]]
        expected = self.model.claim(name, max_jobs, LEASE, holding, sweep=sweep, chosen=jobs)
        assert self.model.doubts == []
        assert jobs == expected.jobs
        assert answer["unsettled"] == expected.unsettled
        assert answer["lost"] == {"retried": expected.retried, "dead": expected.dead}
        self._number_letters()
        if lost:
            worker.unsure = True
        else:
            worker.knows += jobs
            worker.unsure = answer["unsettled"] > 0
            worker.floor = answer["floor"]

    @precondition(lambda self: any(worker.knows for worker in self.workers.values()))
    @rule(name=WORKERS, many=st.integers(1, 3), kind=KINDS, delay=DELAYS, lost=LOST, twice=st.booleans())
    def finish(self, name: str, many: int, kind: str, delay: float | None, lost: bool, twice: bool) -> None:
        worker = self.workers[name]
        said = [*worker.unsaid, *(Words(ref, kind, delay) for ref in worker.knows[:many])]
        said += said[:1] if twice else []
        self._say(worker, said, lost=lost)

    def _say(self, worker: Worker, said: list[Words], *, lost: bool) -> None:
        expected = self.model.finish(said)
        answer = self.run(self.calls.finish(*map(_json, said)))
        assert [one["answer"] for one in answer["outcomes"]] == expected
        self._number_letters()
        worker.knows = [ref for ref in worker.knows if ref not in [words.ref for words in said]]
        worker.unsaid = list(dict.fromkeys(said)) if lost else []

    @rule(name=WORKERS)
    def heartbeat(self, name: str) -> None:
        held = self.workers[name].knows
        lost, cancelled = self.model.heartbeat(held, LEASE)
        answer = self.run(self._beat(held))
        assert _refs(answer["lost"]) == sorted(lost)
        assert _refs(answer["cancel"]) == sorted(cancelled)

    async def _beat(self, held: list[Ref]) -> Json:
        jobs = [{"queue": "payment", "id": id_, "attempt": attempt} for id_, attempt in held]
        return await self.calls.heartbeat(*jobs, lease_seconds=LEASE)

    @precondition(lambda self: self.model.jobs)
    @rule(which=st.integers(0, 50))
    def cancel(self, which: int) -> None:
        ids = sorted(self.model.jobs)
        id_ = ids[which % len(ids)]
        answer = self.run(self.calls.cancel(id_))
        assert answer[self.model.cancel(id_)] == [id_]

    @precondition(lambda self: self.model.letters)
    @rule(which=st.integers(0, 50))
    def replay(self, which: int) -> None:
        letter = self.model.letters[which % len(self.model.letters)]
        done = self.model.replay(letter)
        answer = self.run(self.calls.replay([letter.id]))
        assert answer["replayed"] == ([{"failed_job_id": letter.id, "job_id": letter.job}] if done else [])

    @invariant()
    def rows_are_as_the_model_has_them(self) -> None:
        rows = {row["id"]: dict(row) for row in self.run(self.calls.connection.fetch(ROWS))}
        assert rows == {job.id: _row(job) for job in self.model.jobs.values()}
        stale = self.run(
            self.calls.connection.fetch("select job_id, attempt, kind from public.stale_outcomes")
        )
        assert {tuple(row) for row in stale} == self.model.stale

    @invariant()
    def who_waits_in_a_lane_will_be_looked_for(self) -> None:
        lost = self.run(self.calls.connection.fetch(FORGOTTEN))
        assert lost == [], "nobody would ever look there"

    def _number_letters(self) -> None:
        """The model's new dead letters get the ids of the rows; there must be exactly these."""
        found = self.run(
            self.calls.connection.fetch("select id, job_id, attempt from public.failed_jobs order by id")
        )
        known = {letter.id for letter in self.model.letters}
        fresh = {(row["job_id"], row["attempt"]): row["id"] for row in found if row["id"] not in known}
        for letter in self.model.letters:
            if letter.id == 0:
                letter.id = fresh.pop((letter.job, letter.attempt))
        assert not fresh, "a dead letter that nobody expected"


def _refs(pairs: list[list[int]]) -> list[Ref]:
    return sorted((id_, attempt) for id_, attempt in pairs)


def _json(words: Words) -> Json:
    said: Json = {"queue": "payment", "id": words.ref[0], "attempt": words.ref[1], "kind": words.kind}
    return said if words.delay is None else said | {"delay_seconds": words.delay}


def _row(job: ModelJob) -> Json:
    return {
        "id": job.id,
        "status": job.status,
        "attempt": job.attempt,
        "uncounted": job.uncounted,
        "worker_id": job.worker,
        "cancel_requested": job.cancel_requested,
        "last_outcome": job.last_outcome,
        "run_at": pytest.approx(job.run_at),
        "lease": None if job.lease_until is None else pytest.approx(job.lease_until),
    }


@pytest.mark.timeout(600)
def test_the_functions_do_what_the_model_says(database: str) -> None:
    class Here(Queue):
        pass

    Here.database = database
    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
