"""Whatever a handler does, its attempt ends in an outcome that can be recorded."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import cast
from uuid import UUID

import pytest
from pydantic import BaseModel

from listener.attempt import Attempt, Stop
from listener.backoff import Backoff
from listener.errors import Reject, RetryAfter
from listener.events import Emit, Swallowed
from listener.jobs import Job, WokenBy
from listener.outcomes import Cancel, Completed, Dead, Outcome, Retry, Snooze, to_json
from listener.redaction import Redactor
from listener.registry import Payload
from tests.listener.working import Anything, Told, runs
from tests.waiting import until

HOUR = timedelta(hours=1)
KEPT_OUT = "Alice Smith"


def attempt_at(
    function: Callable[..., Awaitable[object]],
    *,
    payload: type[BaseModel] = Anything,
    timeout: timedelta = HOUR,
    backoff: Backoff | None = None,
    attempt: int = 1,
    uncounted: int = 0,
    data: dict[str, object] | None = None,
    emit: Emit | None = None,
) -> Attempt:
    now = datetime.now(UTC)
    job = Job(7, "broker", "x", data or {"name": KEPT_OUT}, None, 0, now, attempt, uncounted, 4, now)
    handler = runs(function, queue="broker", name="x", payload=payload, timeout=timeout, backoff=backoff)
    return Attempt(
        job, handler, {}, woken_by=WokenBy.START, redactor=Redactor(), emit=Told() if emit is None else emit
    )


async def outcome_of(function: Callable[..., Awaitable[object]], **how: object) -> Outcome:
    """What it ends in; whatever that is, it has a JSON form that the store can send."""
    attempt = attempt_at(function, **how)  # type: ignore[arg-type]
    outcome = await asyncio.create_task(attempt.run())
    assert outcome is not None
    to_json(attempt.job.ref, outcome)
    return outcome


def answering(answer: object) -> Callable[[Anything], Awaitable[object]]:
    async def x(_payload: Anything) -> object:
        return answer

    return x


def raising(error: BaseException) -> Callable[[Anything], Awaitable[object]]:
    async def x(_payload: Anything) -> object:
        raise error

    return x


class Result(BaseModel):
    order_id: int
    price: Decimal


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (None, Completed()),
        ({}, Completed({})),
        ({"n": 1}, Completed({"n": 1})),
        (Result(order_id=1, price=Decimal("1.50")), Completed({"order_id": 1, "price": "1.50"})),
        (Snooze(HOUR, "later"), Snooze(HOUR, "later")),
        (Cancel("gone"), Cancel("gone")),
        (Snooze(HOUR, f"waits for {KEPT_OUT}"), Snooze(HOUR, "waits for ‹name›")),
        (Cancel(f"{KEPT_OUT} left"), Cancel("‹name› left")),
    ],
)
async def test_what_a_handler_may_return(answer: object, outcome: Outcome) -> None:
    assert await outcome_of(answering(answer)) == outcome


class Telegram:
    """Nothing that JSON knows."""

    def __repr__(self) -> str:
        return "a telegram"


class Share(BaseModel):
    share: float


@pytest.mark.parametrize(
    "answer",
    [
        "done",
        42,
        [{"n": 1}],
        {"share": float("nan")},
        Share(share=float("nan")),
        {"what": Telegram()},
        {"page": "x" * 300_000},
    ],
    ids=lambda answer: repr(answer)[:40],
)
async def test_a_result_that_cannot_be_kept_does_not_undo_the_work(answer: object) -> None:
    """The handler has returned: running it again would do its outside effects again."""
    told = Told()
    outcome = await attempt_at(answering(answer), emit=told).run()
    assert isinstance(outcome, Completed)
    assert list(outcome.result or {}) == ["result_not_kept"]
    assert [event.where for event in told.of(Swallowed)] == ["result of broker job 7 x"]


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ({"at": datetime(2026, 1, 1, tzinfo=UTC)}, {"at": "2026-01-01T00:00:00Z"}),
        ({"id": UUID(int=1)}, {"id": str(UUID(int=1))}),
        ({"price": Decimal("0.10")}, {"price": "0.10"}),
        ({1: {2}}, {"1": [2]}),
        ({"text": "a \0 and half a \ud800"}, {"text": "a ␀ and half a \\ud800"}),
    ],
    ids=repr,
)
async def test_a_result_is_kept_as_json_that_the_database_can_store(answer: object, kept: object) -> None:
    outcome = await outcome_of(answering(answer))
    assert outcome == Completed(cast("dict[str, object]", kept))


async def test_a_snooze_that_was_said_wrongly_is_not_taken_for_done() -> None:
    outcome = await outcome_of(answering(Snooze(5, "not a timedelta")))  # type: ignore[arg-type]
    assert isinstance(outcome, Retry)


async def test_a_handler_that_hangs_after_its_time_out_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("listener.attempt._OVERDUE_AFTER", timedelta())
    hanging = asyncio.Event()

    async def hangs(_payload: Anything) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            hanging.set()
            await asyncio.Event().wait()

    attempt = attempt_at(hangs, timeout=timedelta(milliseconds=1))
    running = asyncio.create_task(attempt.run())
    await hanging.wait()
    await until("it is overdue", lambda: attempt.is_overdue)
    attempt.stop(Stop.OVERDUE)
    outcome = await running
    assert isinstance(outcome, Retry)
    assert outcome.error.error_class == "TimedOut"


async def test_keys_of_a_payload_that_may_be_values_are_not_told() -> None:
    class Narrow(Payload):
        order_id: int

    data: dict[str, object] = {"alice@example.com": 1, "DE89370400440532013000": {}, "a\nb": 2, "extra": 3}
    outcome = await attempt_at(answering(None), data=data, payload=Narrow).run()
    assert isinstance(outcome, Dead)
    assert "order_id" in outcome.error.message.replace("orderId", "order_id")
    assert "extra: extra forbidden" in outcome.error.message
    for value in ("alice", "DE89", "\n"):
        assert value not in outcome.error.message


@pytest.mark.parametrize(
    ("error", "kind", "delay"),
    [
        (ValueError("no"), Retry, None),
        (Reject("never"), Dead, None),
        (RetryAfter(HOUR, "too many requests"), Retry, HOUR),
        (RetryAfter(5, "not a timedelta"), Retry, None),  # type: ignore[arg-type]
        (SystemExit(3), Retry, None),
        (asyncio.CancelledError(), Retry, None),
        (TimeoutError("the provider's"), Retry, None),
        (ExceptionGroup("two", [ValueError("a"), KeyError("b")]), Retry, None),
        (MemoryError(), Retry, None),
        (RecursionError("deep"), Retry, None),
    ],
    ids=repr,
)
async def test_what_a_handler_may_raise(
    error: BaseException, kind: type[Retry | Dead], delay: timedelta | None
) -> None:
    outcome = await outcome_of(raising(error))
    assert isinstance(outcome, Retry | Dead)
    assert type(outcome) is kind
    assert outcome.error.error_class == type(error).__name__
    assert outcome.error.stack is not None
    assert "in x\n" in outcome.error.stack
    if isinstance(outcome, Retry):
        assert outcome.delay == delay


async def test_an_error_that_cannot_be_printed_is_a_failure_like_any_other() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("cannot")

    outcome = await outcome_of(raising(Mute()))
    assert isinstance(outcome, Retry)
    assert outcome.error.error_class == "Mute"


async def test_an_error_names_the_payload_field_and_not_its_value() -> None:
    outcome = await outcome_of(raising(ValueError(f"no account for {KEPT_OUT}")))
    assert isinstance(outcome, Retry)
    assert outcome.error.message == "no account for ‹name›"
    assert KEPT_OUT not in str(outcome.error.stack)


async def test_a_time_out_names_its_limit() -> None:
    async def x(_payload: Anything) -> None:
        await asyncio.Event().wait()

    outcome = await outcome_of(x, timeout=timedelta(milliseconds=20))
    assert isinstance(outcome, Retry)
    assert (outcome.error.error_class, outcome.error.message) == (
        "TimedOut",
        "The handler did not finish within 0.02 s.",
    )


async def test_clean_up_that_fails_at_the_time_out_is_a_failure() -> None:
    async def x(_payload: Anything) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise OSError("could not clean up")

    outcome = await outcome_of(x, timeout=timedelta(milliseconds=20))
    assert isinstance(outcome, Retry)
    assert outcome.error.error_class == "OSError"


async def test_the_backoff_of_a_type_counts_the_failures_that_count() -> None:
    asked: list[int] = []

    def backoff(failed: int) -> timedelta:
        asked.append(failed)
        return HOUR * failed

    outcome = await outcome_of(raising(ValueError()), backoff=backoff, attempt=5, uncounted=3)
    assert asked == [2]
    assert isinstance(outcome, Retry)
    assert outcome.delay == 2 * HOUR


def broken_backoff(_failed: int) -> timedelta:
    raise OverflowError("too long")


def wrong_backoff(_failed: int) -> timedelta:
    return 5  # type: ignore[return-value]


@pytest.mark.parametrize("backoff", [broken_backoff, wrong_backoff])
@pytest.mark.parametrize("timeout", [HOUR, timedelta()])
async def test_a_broken_backoff_leaves_the_table(backoff: Backoff, timeout: timedelta) -> None:
    async def x(_payload: Anything) -> None:
        await asyncio.sleep(0)
        raise ValueError("first trouble")

    outcome = await outcome_of(x, backoff=backoff, timeout=timeout)
    assert isinstance(outcome, Retry)
    assert outcome.delay is None


async def test_a_validator_that_breaks_is_a_failure_and_not_the_end() -> None:
    class Odd(Anything):
        @classmethod
        def model_validate(cls, *_: object, **__: object) -> "Odd":
            raise LookupError("in the model")

    assert isinstance(await outcome_of(answering(None), payload=Odd), Retry)


@pytest.mark.parametrize(
    ("why", "kind"), [(Stop.DRAIN, Snooze), (Stop.CANCEL, Cancel), (Stop.LOST, type(None))]
)
@pytest.mark.parametrize("clean_up", [None, RuntimeError("while cleaning up"), SystemExit(1)])
async def test_a_stopped_attempt(why: Stop, kind: type, clean_up: BaseException | None) -> None:
    inside = asyncio.Event()

    async def x(_payload: Anything) -> None:
        inside.set()
        try:
            await asyncio.Event().wait()
        finally:
            if clean_up is not None:
                raise clean_up

    attempt = attempt_at(x)
    task = asyncio.create_task(attempt.run())
    await inside.wait()
    attempt.stop(why)
    attempt.stop(Stop.LOST)  # the first reason stands
    assert type(await task) is kind


@pytest.mark.parametrize("why", [Stop.DRAIN, Stop.LOST])
async def test_an_answer_in_spite_of_a_stop_stands(why: Stop) -> None:
    inside = asyncio.Event()

    async def x(_payload: Anything) -> None:
        inside.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return

    attempt = attempt_at(x)
    task = asyncio.create_task(attempt.run())
    await inside.wait()
    attempt.stop(why)
    assert await task == Completed()


async def test_a_cancellation_from_outside_passes_through() -> None:
    inside = asyncio.Event()

    async def x(_payload: Anything) -> None:
        inside.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(attempt_at(x).run())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


class Panic(BaseException):
    """As extension modules written in Rust raise it."""


@pytest.mark.parametrize("error", [Panic("x"), KeyboardInterrupt(), GeneratorExit(), SystemExit(0)], ids=repr)
async def test_no_exit_of_a_handler_is_one_of_the_process(error: BaseException) -> None:
    outcome = await outcome_of(raising(error))
    assert isinstance(outcome, Retry)
    assert outcome.error.error_class == type(error).__name__
