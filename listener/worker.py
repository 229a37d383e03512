"""The loop of one queue: look when the bell rings, run what was claimed, record what came of it.

One loop makes all the calls of its queue, one at a time, and each call does two things: it records the outcomes that
have gathered and claims as many jobs as there are free places. So calls shrink as load grows (while one is under way,
the next one's outcomes gather), there is never a second claim in flight, and the floor needs no lock.

The races, and where each is closed:
  - A row is inserted between our look and our wait: the bell keeps the ring, so the next wait returns at once.
  - An answer is lost after its commit: outcomes are sent again and come back as "repeated", and the claim is repeated
    with `holding`: what the lost one had leased is handed out again, in smaller portions each time, in case the answer
    was too large to arrive. The two go in turns then, so that neither can hold up the other. Until then outcomes stay
    here, and a drain does not end: what was leased to us unheard has to be handed back.
  - The lease runs out while a handler runs: the outcome comes back as "stale" and has changed nothing.
  - One outcome that the database refuses would hold up its whole batch for ever: after a refusal each is sent alone,
    and the one that is refused again is recorded without its result, or as a dead letter that says so. What is not
    answered at all is sent in smaller portions each time, and the one that fails alone goes to the end. Outcomes wait
    for their next try on their own, while claims and sweeps go on; and as long as too many wait, nothing is claimed.
  - This process was frozen, or cut off from the database, for longer than a lease: each sweep names what is held here,
    which is renewed before the sweep ends what has run out; and after an outage nobody sweeps for a few seconds, so
    that the others can renew what they hold.
"""

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta

from listener.answers import Claim
from listener.attempt import Attempt, Stop
from listener.config import Tempo
from listener.errors import StoreRefused, StoreUnavailable
from listener.events import (
    AttemptsLost,
    Available,
    Claimed,
    Emit,
    MissedWakeup,
    Unavailable,
    UnknownTypes,
)
from listener.jobs import AttemptRef, Job, WokenBy
from listener.outbox import Outbox, Trouble, is_about_content
from listener.outcomes import Ended, Outcome, Snooze
from listener.redaction import Redactor
from listener.registry import Registry
from listener.resources import Provided
from listener.store import ClaimRequest
from listener.wakeups import Bell

# While more work waits, a call goes out for a quarter of the places, or after this pause with what has ended by then.
_GATHER_SECONDS = 0.01
# Due rows that a claim could not get are in another worker's hands for a moment: look again after this, not at once.
_CONTENDED_SECONDS = 0.05
_MOST_HALVINGS = 10  # of at most 1000 places
# Claims that go on while no outcome gets through must not fill the memory.
_MOST_WAITING = 1000
# An outage must not use up the time that a drain has.
_DRAINING_PAUSE_SECONDS = 0.5
# A job due for longer than this, found by a sweep, was owed a wake-up that never came.
_OWED = timedelta(seconds=1)


class Worker:
    """Runs the jobs of one queue, at most `places` at once."""

    def __init__(
        self,
        queue: str,
        registry: Registry,
        resources: Mapping[Provided, object],
        *,
        outbox: Outbox,
        bell: Bell,
        places: int,
        tempo: Tempo,
        redactor: Redactor,
        emit: Emit,
    ) -> None:
        self.queue = queue
        self.running: dict[AttemptRef, Attempt] = {}
        """Attempts whose handler has not returned."""
        self._registry = registry
        self._types = registry.types(queue)
        self._resources = resources
        self._bell = bell
        self._places = places
        self._tempo = tempo
        self._redactor = redactor
        self._emit = emit
        self._outbox = outbox
        self._loop: asyncio.Task[object] | None = None
        self._floor: object = None
        self._due_at: float | None = None
        self._sweep_at = 0.0
        self._draining = False
        self._looked = False
        self._unsure = False
        """Whether an answer that was lost may have leased jobs to us."""
        self._out_of_reach = False
        """Whether somebody has locked what was leased to us unheard."""
        self._again = False
        """Whether the last look did not do all that it was for."""
        self._no_sweep_before = 0.0
        self._halvings = 0
        """How often to halve what the next call asks for: grows when one was not answered, falls again."""
        self._asks_next = False
        """Whether it is the claim's turn, while outcomes and claims go separately."""
        self._pause = 0.0
        """Seconds before the last call is repeated; 0 when it was answered."""
        self._outcomes_pause = 0.0
        """The same for calls that only say outcomes, and hold up nothing else."""
        self._outcomes_at = 0.0
        self._calls = Trouble(queue)
        self._outcomes = Trouble(f"outcomes of {queue}")

    @property
    def held(self) -> list[AttemptRef]:
        """Every attempt whose lease must be kept: running, or ended but not yet recorded."""
        return [*self.running, *self._outbox.refs]

    @property
    def _free(self) -> int:
        """How many more jobs there is room for."""
        return min(self._places - len(self.running), _MOST_WAITING - len(self._outbox))

    @property
    def is_full(self) -> bool:
        return self._free <= 0

    @property
    def problem(self) -> str | None:
        """Why this queue is not being worked on, or None while it is."""
        for trouble in (self._calls, self._outcomes):
            if trouble.problem is not None:
                return trouble.problem
        if overdue := sum(attempt.is_overdue for attempt in self.running.values()):
            return f"{self.queue}: handlers that go on after their time-out: {overdue}"
        return None if self._looked else f"{self.queue}: has not looked into its queue yet"

    def stop_all(self, why: Stop) -> None:
        """Tells every running attempt to stop."""
        for attempt in list(self.running.values()):
            attempt.stop(why)

    def stop(self, ref: AttemptRef, why: Stop) -> None:
        """Tells one running attempt to stop; one that has ended is past that."""
        if (attempt := self.running.get(ref)) is not None:
            attempt.stop(why)

    def press(self) -> None:
        """Tells those to stop, again and again, whose time-out did not end them: each holds a place and a lease."""
        for attempt in list(self.running.values()):
            if attempt.is_overdue:
                attempt.stop(Stop.OVERDUE)

    def hold_sweeps(self, wait: timedelta) -> None:
        """The others have to renew first. One that is full makes no calls, and hears of an outage by the beats."""
        self._no_sweep_before = time.monotonic() + wait.total_seconds()

    async def keep(self) -> None:
        """Everything that is not recorded yet outlives this process, where there is a disk for it."""
        await self._outbox.keep()

    def drain(self) -> None:
        """From now on claims nothing; `run` returns when all that runs has ended and is recorded."""
        self._draining = True
        self._bell.ring(WokenBy.FREE)

    async def run(self) -> None:
        """Works until drained."""
        woken_by = WokenBy.START
        self._loop = asyncio.current_task()
        async with asyncio.TaskGroup() as attempts:
            while not self._is_done:
                for job in await self._look(woken_by):
                    self._start(job, woken_by, attempts)
                woken_by = await self._wait(woken_by)

    @property
    def _is_done(self) -> bool:
        return self._draining and not self.held and not self._unsure

    # -- look ------------------------------------------------------------------------------------------------------

    async def _look(self, woken_by: WokenBy) -> Sequence[Job]:
        """One call that records what has ended and claims for the free places; answers what it brought."""
        ended, request = self._words(woken_by)
        left_out = len(ended) < len(self._outbox)
        self._again = False
        if not ended and request is None:
            return []
        try:
            recorded, claim = await self._outbox.say(ended, request)
        except StoreRefused as error:
            if ended and is_about_content(error):
                await self._record_singly(ended)
            else:
                await self._not_answered(error, ended, request)
            return []
        except StoreUnavailable as error:
            self._unsure |= request is not None and error.was_sent
            await self._not_answered(error, ended, request)
            return []
        self._answered(ended, request)
        await self._outbox.settle(ended, recorded)
        may_say_more = left_out and time.monotonic() >= self._outcomes_at
        if request is None or claim is None:
            self._again = may_say_more or self._halvings > 0
            return []
        self._halvings = max(self._halvings - 1, 0)
        self._again = may_say_more or self._halvings > 0
        self._learn(request, claim)
        return claim.jobs

    def _words(self, woken_by: WokenBy) -> tuple[list[Ended], ClaimRequest | None]:
        """What to say in the next call: all outcomes that have gathered, and what to ask for.

        After a failure they go in turns, outcomes first, so that neither can hold up the other.
        """
        ended = self._outbox.portion() if time.monotonic() >= self._outcomes_at else []
        request = self._request(woken_by)
        if not (self._outbox.is_troubled or self._halvings) or not ended or request is None:
            return ended, request
        asks, self._asks_next = self._asks_next, not self._asks_next
        return ([], request) if asks else (ended, None)

    def _request(self, woken_by: WokenBy) -> ClaimRequest | None:
        """What to ask for now: nothing while full; a sweep at start, on a join, and when it is time.

        While draining only what a lost answer may have leased to us, to hand it back.
        """
        free = self._free
        if free <= 0 or (self._draining and not self._unsure):
            return None
        now = time.monotonic()
        sweep = (
            not (self._draining or self._pause)
            and now >= self._no_sweep_before
            and (now >= self._sweep_at or woken_by in {WokenBy.START, WokenBy.JOINED})
        )
        return ClaimRequest(
            queue=self.queue,
            types=[] if self._draining else self._types,
            max_jobs=max(1, free >> self._halvings),
            lease=self._tempo.lease,
            woken_by=woken_by,
            floor=self._floor,
            sweep=sweep,
            holding=self.held if self._unsure or sweep else None,
        )

    async def _record_singly(self, ended: Sequence[Ended]) -> None:
        """After the batch was refused: each outcome alone."""
        try:
            await self._outbox.record_singly(ended)
        except (StoreRefused, StoreUnavailable) as error:
            self._pause_outcomes(error)
        else:
            self._answered(ended, None)
        self._again = True

    async def _not_answered(
        self, error: StoreRefused | StoreUnavailable, ended: Sequence[Ended], request: ClaimRequest | None
    ) -> None:
        if request is None:
            self._pause_outcomes(error)
            self._again = True
        else:
            self._halvings = min(self._halvings + 1, _MOST_HALVINGS)
            self._pause = self._longer(self._pause)
            self._calls.begins(error)
            reason = str(error) if self._looked else f"{error}; waiting for the database to be there"
            self._emit(Unavailable(self.queue, reason, timedelta(seconds=self._pause)))
        await self._outbox.unanswered(ended)

    def _pause_outcomes(self, error: StoreRefused | StoreUnavailable) -> None:
        self._outcomes_pause = self._longer(self._outcomes_pause)
        self._outcomes_at = time.monotonic() + self._spread(self._outcomes_pause)
        self._outcomes.begins(error)
        self._emit(Unavailable(self._outcomes.whose, str(error), timedelta(seconds=self._outcomes_pause)))

    def _longer(self, pause: float) -> float:
        first = self._tempo.reconnect.total_seconds()
        return min(pause * 2, first * 10) if pause else first

    def _spread(self, pause: float) -> float:
        """Many processes must not call again in the same moment."""
        return (min(pause, _DRAINING_PAUSE_SECONDS) if self._draining else pause) * random.uniform(0.5, 1.0)

    def _answered(self, ended: Sequence[Ended], request: ClaimRequest | None) -> None:
        if ended:
            self._outcomes_pause = self._outcomes_at = 0.0
            if (away := self._outcomes.ends()) is not None:
                self._emit(Available(self._outcomes.whose, away))
        if request is None:
            return
        self._pause = 0.0
        self._looked = True
        if (away := self._calls.ends()) is not None:
            if away > self._tempo.lease / 2:
                self.hold_sweeps(self._tempo.calm_after_outage)
            self._emit(Available(self.queue, away))

    # -- run -------------------------------------------------------------------------------------------------------

    def _learn(self, request: ClaimRequest, claim: Claim) -> None:
        """Remembers what a claim said about later, and tells what it said about now."""
        now = time.monotonic()
        self._unsure = claim.unsettled > 0
        self._out_of_reach = self._unsure and not claim.jobs
        self._again |= self._unsure
        self._floor = claim.floor
        self._due_at = None if claim.next_in is None else now + claim.next_in.total_seconds()
        if not claim.jobs and claim.next_in == timedelta():
            self._due_at = now + _CONTENDED_SECONDS
        if request.sweep:
            self._sweep_at = now + self._tempo.sweep.total_seconds()
            self._emit(UnknownTypes(self.queue, claim.unknown_types))
        if claim.lost_refused:
            reason = f"jobs whose worker vanished and that the database refuses to end: {claim.lost_refused}"
            self._emit(Unavailable(f"sweeps of {self.queue}", reason, self._tempo.sweep))
        if claim.lost_retried or claim.lost_dead:
            self._emit(AttemptsLost(self.queue, claim.lost_retried, claim.lost_dead))
        if claim.jobs:
            self._emit(Claimed(self.queue, request.woken_by, len(claim.jobs), claim.waited, claim.jobs))
            if request.woken_by is WokenBy.SWEEP and claim.waited > _OWED:
                self._emit(MissedWakeup(self.queue, len(claim.jobs), claim.waited))

    def _start(self, job: Job, woken_by: WokenBy, attempts: asyncio.TaskGroup) -> None:
        attempt = Attempt(
            job,
            self._registry.handlers[job.queue, job.type],
            self._resources,
            woken_by=woken_by,
            redactor=self._redactor,
            emit=self._emit,
            tell=self._outbox.reporter.tell,
        )
        if self._draining:  # the claim was under way when the drain began
            self._has_ended(attempt, Snooze(timedelta(), "claimed by a worker that was stopping"))
            self._bell.ring(WokenBy.FREE)  # no handler will, and the outcome has to be said
            return
        self.running[job.ref] = attempt
        attempts.create_task(self._attempt(attempt), name=f"{job.queue} job {job.id}")

    async def _attempt(self, attempt: Attempt) -> None:
        try:
            outcome = await attempt.run()
            if outcome is not None:
                self._has_ended(attempt, outcome)
        except asyncio.CancelledError as error:
            if self._loop is None or self._loop.cancelling():
                raise
            # Without an outcome the job would be ours by its lease and handed out to us again, for ever.
            self._has_ended(attempt, attempt.cancelled_itself(error))
        finally:
            del self.running[attempt.job.ref]
            self._bell.ring(WokenBy.FREE)

    def _has_ended(self, attempt: Attempt, outcome: Outcome) -> None:
        job = attempt.job
        self._outbox.add(Ended(job.ref, job.type, outcome, attempt.duration, attempt.woken_by))

    # -- wait ------------------------------------------------------------------------------------------------------

    async def _wait(self, woken_by: WokenBy) -> WokenBy:
        """Until there is a reason to look again; answers the reason."""
        if self._is_done:
            return woken_by  # the last outcome is recorded: nobody would ring any more
        if self._pause:
            await asyncio.sleep(self._spread(self._pause))
            return woken_by
        if self._again:
            if self._out_of_reach:
                await asyncio.sleep(min(self._tempo.reconnect.total_seconds(), _DRAINING_PAUSE_SECONDS))
            return woken_by
        now = time.monotonic()
        full = self._free <= 0 or self._draining
        more_waits = self._due_at is not None and self._due_at <= now
        if more_waits and not full:
            return WokenBy.FREE
        sweep_at = max(self._sweep_at, self._no_sweep_before)
        reasons = [] if full else [sweep_at, self._due_at or sweep_at]
        if len(self._outbox) and self._outcomes_at:
            reasons.append(self._outcomes_at)
        rung = await self._bell.wait(max(0.0, min(reasons) - now) if reasons else None)
        if rung is None:
            return WokenBy.SWEEP if self._sweep_at <= time.monotonic() else WokenBy.DUE
        if more_waits and self.running and len(self._outbox) < self._places / 4:
            await asyncio.sleep(_GATHER_SECONDS)
        return rung
