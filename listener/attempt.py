"""One attempt at one job: check the payload, run the handler under its time-out, turn what happens into an outcome.

How an attempt can be stopped, and what then counts:

    why       told by                                   an answer in spite of it    otherwise
    drain     the process is ending                     stands                      handed back, uncounted
    cancel    somebody asked to cancel the job          stands                      cancelled
    lost      the job has moved on to another attempt   sent, answered "stale"      nothing is recorded
    overdue   its time-out has passed, and it hangs     stands                      failed, to be retried

A stop is a cancellation of the handler's task; the handler may clean up, and may finish all the same. It may be told
again, and is then cancelled again; the first reason stands. A cancellation that nobody here asked for passes through:
the worker knows whether it is the process that comes down, or the handler's own doing, which is a failure.

A handler that has returned has done its work: whatever is wrong with its result, the job is completed, without it.
"""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from enum import StrEnum
from typing import cast

from pydantic import BaseModel, ValidationError
from pydantic_core import to_jsonable_python

from listener.errors import PulseError, Reject, RetryAfter
from listener.events import AttemptBegan, AttemptEnded, AttemptStopped, Emit, Swallowed
from listener.jobs import Job, WokenBy
from listener.outcomes import Cancel, Completed, Dead, ErrorText, Json, Outcome, Retry, Snooze
from listener.progress import Progress, Report
from listener.redaction import Redactor, is_plain, keep_at_hand, storable
from listener.registry import Handler
from listener.resources import Provided
from listener.traces import carry

_LARGEST_RESULT = 256_000
_LONGEST_FAULTS = 2_000
_OVERDUE_AFTER = timedelta(seconds=10)


class Stop(StrEnum):
    """Why a running attempt is told to stop."""

    DRAIN = "drain"
    CANCEL = "cancel"
    LOST = "lost"
    OVERDUE = "overdue"


class Attempt:
    """A claimed job on its way to an outcome. Created by the worker, run once."""

    def __init__(
        self,
        job: Job,
        handler: Handler,
        resources: Mapping[Provided, object],
        *,
        woken_by: WokenBy,
        redactor: Redactor,
        emit: Emit,
        tell: Callable[[Report], None] = lambda _: None,
    ) -> None:
        self.job = job
        self.woken_by = woken_by
        self.started = time.monotonic()
        self.duration = timedelta()
        self._handler = handler
        self._resources = resources
        self._redactor = redactor
        self._emit = emit
        self._progress = Progress(job.ref, tell, lambda note: redactor.text(note, {}))
        self._task: asyncio.Task[object] | None = None
        self._why: Stop | None = None

    @property
    def is_overdue(self) -> bool:
        """Whether the handler goes on although its time-out has cancelled it a while ago."""
        limit = self._handler.timeout + _OVERDUE_AFTER
        return self._task is not None and time.monotonic() - self.started > limit.total_seconds()

    def stop(self, why: Stop) -> None:
        """Tells the handler to stop; the first reason stands. It may take its time, or not listen at all."""
        if self._why is None:
            self._why = why
            self._emit(AttemptStopped(self.job, why))
        if self._task is not None:
            self._task.cancel()

    def cancelled_itself(self, error: asyncio.CancelledError) -> Outcome:
        """What to record when a cancellation passed through `run` that was not the process's own."""
        text = "The handler, or a library that it uses, cancelled its own task; nobody had asked to stop it."
        stack = self._redactor.error(error, self.job.data).stack
        outcome = Retry(ErrorText("CancelledError", text, stack), self._delay())
        self._emit(AttemptEnded(self.job, outcome))
        return outcome

    async def run(self) -> Outcome | None:
        """The outcome to record, or None when the job is no longer ours. Raises nothing but foreign cancellation."""
        self._task = asyncio.current_task()
        self.started = time.monotonic()
        keep_at_hand(self.job.data)
        carry(self.job.traceparent)
        self._emit(AttemptBegan(self.job))
        outcome = await self._ends()
        self._emit(AttemptEnded(self.job, outcome))
        return outcome

    async def _ends(self) -> Outcome | None:
        """With whatever the handler raises turned into an outcome."""
        try:
            return await self._run()
        except asyncio.CancelledError as error:
            if self._why is not None:
                return self._stopped(self._why)
            if self._task is not None and self._task.cancelling():
                raise
            return self._failed(error)
        # Whatever a handler raises is its own failure, of any kind, or it would end the process of all others.
        except BaseException as error:  # noqa: BLE001
            return self._stopped(self._why) if self._why is not None else self._failed(error)
        finally:
            self._task = None
            self.duration = timedelta(seconds=time.monotonic() - self.started)

    async def _run(self) -> Outcome:
        if self._why is not None:
            raise asyncio.CancelledError  # told to stop before it began
        try:
            payload = self._handler.payload.model_validate(self.job.data)
        except ValidationError as error:
            return Dead(ErrorText("InvalidPayload", _fields(error)))
        limit = self._handler.timeout
        scope = asyncio.timeout(limit.total_seconds())
        try:
            async with scope:
                answer = await self._handler.run(payload, **self._arguments())
        except TimeoutError:
            if not scope.expired():
                raise  # the handler's own, a failure like any other
            return self._timed_out()
        return self._interpret(answer)

    def _arguments(self) -> dict[str, object]:
        own: Mapping[Provided, object] = {Job: self.job, Progress: self._progress}
        given = {**self._resources, **own}
        return {name: given[wanted] for name, wanted in self._handler.wants.items()}

    def _stopped(self, why: Stop) -> Outcome | None:
        match why:
            case Stop.DRAIN:
                return Snooze(timedelta(), "its worker was stopped")
            case Stop.CANCEL:
                return Cancel("asked to cancel while it ran")
            case Stop.LOST:
                return None
            case Stop.OVERDUE:
                return self._timed_out()

    def _timed_out(self) -> Outcome:
        text = f"The handler did not finish within {self._handler.timeout.total_seconds():g} s."
        return Retry(ErrorText("TimedOut", text), self._delay())

    def _failed(self, error: BaseException) -> Outcome:
        text = self._redactor.error(error, self.job.data)
        match error:
            case Reject():
                return Dead(text)
            case RetryAfter(delay=timedelta() as delay):
                return Retry(text, delay)
            case _:
                return Retry(text, self._delay())

    def _delay(self) -> timedelta | None:
        """By the type's own policy; one that breaks must not take the process with it, and leaves the table."""
        try:
            backoff = self._handler.backoff
            delay: object = None if backoff is None else backoff(self.job.attempt - self.job.uncounted)
        except Exception as error:  # noqa: BLE001
            self._emit(Swallowed(f"backoff of {self.job.type}", error))
            return None
        return delay if isinstance(delay, timedelta) else None

    def _interpret(self, answer: object) -> Outcome:
        """What a handler returned, as an outcome. Raises TypeError when it meant something that was said wrongly."""
        match answer:
            case Snooze(timedelta() as delay, reason):
                return Snooze(delay, self._redactor.text(reason, self.job.data))
            case Cancel(reason):
                return Cancel(self._redactor.text(reason, self.job.data))
            case None:
                return Completed()
            case Snooze() | Cancel() | Completed() | Retry() | Dead():
                raise TypeError(
                    f"{type(answer).__name__} is not for a handler to return, or not with these words."
                )
            case BaseModel() | Mapping():
                return self._completed(cast("object", answer))
            case _:
                expected = "None, a mapping, a pydantic model, Snooze(timedelta, …) or Cancel"
                return self._without_result(f"a handler returns {expected}, not {type(answer).__name__}")

    def _completed(self, result: object) -> Outcome:
        """With the result as JSON has it: proven here, so that one that cannot travel does not hold up its batch."""
        try:
            text = json.dumps(to_jsonable_python(result), allow_nan=False)
            if len(text) > _LARGEST_RESULT:
                return self._without_result(f"{len(text)} characters as JSON, and {_LARGEST_RESULT} are kept")
            return Completed(cast("Json", storable(json.loads(text))))
        except Exception as error:  # noqa: BLE001 - its text may quote the result
            return self._without_result(f"{type(error).__name__} on the way to JSON")

    def _without_result(self, why: str) -> Outcome:
        self._emit(
            Swallowed(f"result of {self.job.queue} job {self.job.id} {self.job.type}", PulseError(why))
        )
        return Completed({"result_not_kept": why})


def _plainly(kind: str) -> str:
    """Pydantic's word for what is wrong; where that says little, ours."""
    return "not a uuid" if kind in ("uuid_parsing", "uuid_type") else kind.replace("_", " ")


def _fields(error: ValidationError) -> str:
    """Which fields do not fit and why, without any value; the messages of pydantic may quote, so types are used."""
    faults = [
        f"{'.'.join(_step(step) for step in fault['loc']) or 'data'}: {_plainly(fault['type'])}"
        for fault in error.errors(include_input=False, include_url=False, include_context=False)
    ]
    return f"The payload does not fit {error.title}: {'; '.join(faults)}."[:_LONGEST_FAULTS]


def _step(step: int | str) -> str:
    """One step of the way to a field. Keys come from the payload: what is no plain word may be a value."""
    return (
        step
        if isinstance(step, str) and is_plain(step)
        else f"[{step}]"
        if isinstance(step, int)
        else "‹key›"
    )
