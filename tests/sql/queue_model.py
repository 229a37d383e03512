"""The queue as it should be: a small pure model of its functions, against which a state machine holds the real ones.

Times are seconds since the model began. One queue, one type; everything happens at once and in order. There is one
line and no lanes: what a limit holds back is passed over. That the real queue moves it aside must not show.

Which jobs a claim takes, the real queue chooses, and `choice.py` says whether it may.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.sql.choice import doubts

Ref = tuple[int, int]
"""(job, attempt)"""
Turn = tuple[str | None, int]
"""(user, priority)"""


@dataclass
class Job:
    id: int
    priority: int
    run_at: float
    max_attempts: int
    status: str = "pending"
    attempt: int = 0
    uncounted: int = 0
    lease_until: float | None = None
    worker: str | None = None
    cancel_requested: bool = False
    last_outcome: str | None = None
    user: str | None = None
    made_at: float = 0.0

    @property
    def ref(self) -> Ref:
        return self.id, self.attempt

    @property
    def turn(self) -> Turn:
        return self.user, self.priority


@dataclass(frozen=True)
class Words:
    """An outcome as a worker says it."""

    ref: Ref
    kind: str
    delay: float | None = None


@dataclass
class Limit:
    """What holds jobs back; without numbers: an exception."""

    id: int
    per: str
    at_once: int | None
    starts: int | None
    window: float
    log: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    """When jobs started, by key."""

    def key(self, job: Job) -> str | None:
        return job.user if self.per == "user" else ""

    def has_room(self, job: Job, running: Sequence[Job], beside: Sequence[Job], now: float) -> bool:
        key = self.key(job)
        if key is None:
            return True
        starting = sum(self.key(other) == key for other in beside)
        runs = sum(self.key(other) == key for other in running) + starting
        started = sum(at > now - self.window for at in self.log.get(key, [])) + starting
        return (self.at_once is None or runs < self.at_once) and (
            self.starts is None or started < self.starts
        )

    def note(self, job: Job, now: float) -> None:
        key = self.key(job)
        if key is not None and self.starts is not None:
            self.log.setdefault(key, []).append(now)


@dataclass
class Letter:
    id: int
    job: int
    attempt: int
    replayed: bool = False


@dataclass
class Taken:
    """What a claim should answer."""

    jobs: list[Ref]
    unsettled: int
    retried: int
    dead: int


@dataclass
class Model:
    now: float = 0.0
    jobs: dict[int, Job] = field(default_factory=dict[int, Job])
    letters: list[Letter] = field(default_factory=list[Letter])
    stale: set[tuple[int, int, str]] = field(default_factory=set[tuple[int, int, str]])
    paused: set[str | None] = field(default_factory=set[str | None])
    """None: the queue, else a type."""
    limits: dict[tuple[str | None, str], Limit] = field(default_factory=dict[tuple[str | None, str], Limit])
    """By type (None: all of the queue) and by what they count."""
    ever_limited: set[tuple[str | None, str]] = field(default_factory=set[tuple[str | None, str]])
    served: dict[Turn, float] = field(default_factory=dict[Turn, float])
    """When each user started a job last, by priority."""
    doubts: list[str] = field(default_factory=list[str])
    """What was wrong with the last claim."""

    def claim(
        self,
        worker: str,
        max_jobs: int,
        lease: float,
        holding: Sequence[Ref] | None,
        *,
        sweep: bool,
        chosen: Sequence[Ref],
    ) -> Taken:
        """`chosen` is what the real queue gave."""
        lost: list[str] = []
        again: list[Job] = []
        if holding is not None:
            for job in self._live(holding):
                if job.lease_until is not None and job.lease_until < self.now + lease / 2:
                    job.lease_until = self.now + lease
        if sweep:
            ended = [
                job
                for job in self.jobs.values()
                if job.lease_until is not None and job.lease_until < self.now
            ]
            again_lost = sorted(
                (job for job in ended if job.last_outcome == "vanished"),
                key=lambda job: (job.lease_until, job.id),
            )
            for job in ended:
                delay = 0.0
                if job in again_lost:
                    usual = min(5.0 * (job.attempt - job.uncounted), 15.0)
                    delay = (again_lost.index(job) + 1) * min(usual, 300.0 / len(again_lost))
                self.record(Words(job.ref, "vanished", delay))
                lost.append(job.status)
        unheard: list[Job] = []
        if holding is not None:
            unheard = [
                job
                for job in self.jobs.values()
                if job.status == "running" and job.worker == worker and job.ref not in holding
            ]
            again = sorted(unheard, key=lambda job: job.ref not in chosen)[:max_jobs]
        taken = [*again]
        for job in again:
            self._start(job, worker, lease)
        fresh = [self.jobs[id_] for id_, _ in chosen if self.jobs[id_] not in again]
        self.doubts = doubts(self, fresh, max_jobs - len(again), sweep=sweep)
        for job in fresh:
            self._start(job, worker, lease)
            taken.append(job)
            if job.user is not None:
                self.served[job.turn] = self.now
        return Taken(
            [job.ref for job in sorted(taken, key=_order)],
            len(unheard) - len(again),
            lost.count("pending"),
            lost.count("failed"),
        )

    def passes(self, job: Job, beside: Sequence[Job] = ()) -> bool:
        """Whether there is room in each limit that governs it, when those start, too."""
        running = [other for other in self.jobs.values() if other.status == "running"]
        return all(limit.has_room(job, running, beside, self.now) for limit in self._governing())

    def _governing(self) -> list[Limit]:
        limits = [
            self.limits.get(("a", per)) or self.limits.get((None, per))
            for per in {per for _, per in self.limits}
        ]
        return [limit for limit in limits if limit is not None]

    def _start(self, job: Job, worker: str, lease: float) -> None:
        if job.status == "pending":
            for limit in self._governing():
                limit.note(job, self.now)
        job.attempt += job.status == "pending"
        job.status, job.worker, job.lease_until = "running", worker, self.now + lease

    def finish(self, said: Sequence[Words]) -> list[str]:
        """The answers. What is said twice in one call was said once."""
        before: dict[Words, str] = {}
        answers: list[str] = []
        for words in said:
            again = before.get(words)
            answers.append(self.record(words) if again is None else again.replace("recorded", "repeated"))
            before[words] = answers[-1]
        return answers

    def record(self, words: Words) -> str:
        job = self.jobs[words.ref[0]]
        if not (job.ref == words.ref and job.lease_until is not None):
            over = job.lease_until is None and job.ref == words.ref
            next_one = job.lease_until is not None and job.attempt == words.ref[1] + 1
            if job.last_outcome == words.kind and (over or next_one):
                return "repeated"
            return self._say_stale(words)
        counted = job.attempt - job.uncounted
        job.status = _status_after(words.kind, counted, job)
        if job.status == "pending":
            usual = 0.0 if words.kind == "snooze" else min(5.0 * counted, 15.0)
            job.run_at = self.now + (usual if words.delay is None else words.delay)
        job.uncounted += words.kind == "snooze"
        job.lease_until, job.last_outcome = None, words.kind
        if job.status == "failed":
            self.letters.append(Letter(0, job.id, job.attempt))
        return "recorded"

    def heartbeat(self, held: Sequence[Ref], lease: float) -> tuple[list[Ref], list[Ref]]:
        """(lost, to be cancelled)"""
        live = self._live(held)
        for job in live:
            job.lease_until = self.now + lease
        alive = [job.ref for job in live]
        return [ref for ref in held if ref not in alive], [job.ref for job in live if job.cancel_requested]

    def cancel(self, id_: int) -> str:
        job = self.jobs[id_]
        if job.status not in {"pending", "running"}:
            return "unchanged"
        answer = "cancelled" if job.status == "pending" else "asked"
        job.status = "cancelled" if job.status == "pending" else job.status
        job.cancel_requested = True
        return answer

    def replay(self, letter: Letter) -> bool:
        job = self.jobs[letter.job]
        if letter.replayed or job.status != "failed" or job.attempt != letter.attempt:
            return False
        letter.replayed = True
        job.status, job.run_at, job.uncounted, job.cancel_requested = "pending", self.now, job.attempt, False
        return True

    def _live(self, refs: Sequence[Ref]) -> list[Job]:
        jobs = [self.jobs[id_] for id_, _ in refs]
        return [
            job for job, ref in zip(jobs, refs, strict=True) if job.ref == ref and job.lease_until is not None
        ]

    def _say_stale(self, words: Words) -> str:
        self.stale.add((*words.ref, words.kind))
        return "stale"


def _order(job: Job) -> tuple[int, float, int]:
    return -job.priority, job.run_at, job.id


def _status_after(kind: str, counted: int, job: Job) -> str:
    ends = {"completed": "completed", "cancel": "cancelled", "dead": "failed"}
    if kind in ends:
        return ends[kind]
    if job.cancel_requested:
        return "cancelled"
    if kind == "snooze":
        return "pending"
    return "failed" if counted >= job.max_attempts else "pending"
