"""Each fact is one line, without secrets; and no line is worth a job."""

import io
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from loguru import logger

from devstack.keys import LOCAL
from listener import events as e
from listener.jobs import AttemptRef, Job, WokenBy
from listener.keyring import KeyRefused, KeyTaken, KeyUnusable
from listener.metrics import Metrics, tell_on
from listener.outcomes import (
    Answer,
    Cancel,
    Completed,
    Dead,
    Ended,
    ErrorText,
    Outcome,
    Recorded,
    Retry,
    Snooze,
)
from listener.redaction import Redactor

SECRET = LOCAL.secret
NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECONDS = timedelta(seconds=2)
JOB = Job(
    7, "broker", "execute_order", {"card": "4242424242424242", "n": Decimal(1)}, None, 0, NOW, 1, 0, 4, NOW
)


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where the lines go; the process's own logging comes back after the test."""
    root = logging.getLogger()
    handlers = list(root.handlers)
    levels = {
        name: logging.getLogger(name).level
        for name in ("", "httpx", "realtime._async.client", "websockets.client")
    }
    yield io.StringIO()
    logger.remove()
    root.handlers[:] = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def finished(outcome: Outcome, recorded: Recorded) -> e.Finished:
    return e.Finished(Ended(JOB.ref, JOB.type, outcome, SECONDS, WokenBy.REALTIME), outcome, recorded)


def recorded(
    status: str = "completed",
    *,
    answer: Answer = Answer.RECORDED,
    run_in: timedelta | None = None,
    failed_job_id: int | None = None,
) -> Recorded:
    return Recorded(AttemptRef("broker", 7, 1), answer, status, run_in, failed_job_id)


ERROR = ErrorText("OSError", f"could not reach with {SECRET}", "Traceback")


@pytest.mark.parametrize(
    ("outcome", "answer", "level", "told"),
    [
        (Completed({"x": 1}), recorded(), "INFO", "completed"),
        (
            Snooze(SECONDS, "closed"),
            recorded("pending", run_in=SECONDS),
            "INFO",
            "snoozed (closed); again in 2 s",
        ),
        (Cancel("gone"), recorded("cancelled"), "INFO", "cancelled (gone)"),
        (Retry(ERROR), recorded("pending", run_in=SECONDS), "WARNING", "again in 2 s"),
        (Retry(ERROR), recorded("failed", failed_job_id=3), "ERROR", "dead letter 3"),
        (Dead(ERROR), recorded("failed", failed_job_id=3), "ERROR", "dead letter 3"),
        (Completed(), recorded("pending", answer=Answer.STALE), "WARNING", "STALE"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_became_of_a_job(
    stream: io.StringIO, outcome: Outcome, answer: Recorded, level: str, told: str
) -> None:
    redactor = Redactor([SECRET])
    tell_on(stream, redactor)
    metrics = Metrics(redactor)
    metrics(finished(outcome, answer))
    (line,) = lines(stream)
    assert line["level"] == level
    assert told in str(line["message"])
    assert (line["queue"], line["job_id"], line["attempt"]) == ("broker", 7, 1)
    assert (line["duration_seconds"], line["woken_by"]) == (2.0, "realtime")
    assert SECRET not in stream.getvalue()
    assert "42424242" not in stream.getvalue()


EVENTS: list[e.Event] = [
    KeyTaken("PULSE_WORKER_KEY_FILE"),
    KeyRefused("PULSE_WORKER_KEY_FILE", another=True),
    KeyRefused("PULSE_WORKER_KEY_FILE", another=False),
    KeyUnusable(f"PULSE_WORKER_KEY_FILE holds {SECRET}."),
    e.Started("worker", ["broker"], ["broker/execute_order"], SECONDS),
    e.Started("worker", [], [], SECONDS),
    e.DoorOpen("http://127.0.0.1:8000"),
    e.Claimed("broker", WokenBy.SWEEP, 3, SECONDS),
    e.MissedWakeup("broker", 3, SECONDS),
    e.AttemptsLost("broker", 1, 2),
    e.Recovered(3),
    e.AttemptStopped(JOB, "drain"),
    e.Hearing(SECONDS),
    e.Deaf("closed", SECONDS),
    e.Unannounced("inserts into jobs are not announced."),
    e.Unavailable("broker", f"HTTP 503 {SECRET}", SECONDS),
    e.Available("broker", SECONDS),
    e.NotExported("Datadog", f"HTTP 503 {SECRET}", SECONDS),
    e.Exported("Datadog", SECONDS),
    e.SlotInserted("prune", "prune@2026-01-01T00:00Z", 7, True),
    e.SlotWithoutHandler("aggregate", "alerts"),
    e.SlotsLeftOut("prune", 3),
    e.ScheduleRefused("prune", f"there is no queue {SECRET}"),
    KeyTaken("PULSE_WORKER_KEY"),
    KeyRefused("PULSE_WORKER_KEY", True),
    KeyUnusable(f"PULSE_WORKER_KEY is no key {SECRET}"),
    e.ScheduleRefused("prune", f"not today {SECRET}"),
    e.StoodStill(SECONDS, "/app/handlers/broker/execute_order.py:12 in execute_order"),
    e.Swallowed("door", OSError(f"{SECRET} in\nthree\nlines")),
    e.Draining(3, SECONDS),
    e.Drained(SECONDS, 1, 0),
    e.Drained(SECONDS, 1, 2),
    e.UnknownTypes("broker", {"reindex": 2}),
]


UNTOLD: list[e.Event] = [
    e.Called("claim", SECONDS, "ok"),
    e.AttemptBegan(JOB),
    e.AttemptEnded(JOB, None),
    e.LoopAnswered(SECONDS),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_every_event_is_one_line_without_secrets(
    stream: io.StringIO, capsys: pytest.CaptureFixture[str], event: e.Event
) -> None:
    redactor = Redactor([SECRET])
    tell_on(stream, redactor, "DEBUG")
    metrics = Metrics(redactor)
    before = 0
    if isinstance(event, e.Available | e.Exported):
        metrics(event)
        assert lines(stream) == [], "nothing had been away"
        away = e.Unavailable if isinstance(event, e.Available) else e.NotExported
        metrics(away("broker" if away is e.Unavailable else "Datadog", "no connection", SECONDS))
        before = 1
    metrics(event)
    assert len(lines(stream)) == before + 1
    assert SECRET not in stream.getvalue()
    assert "42424242" not in stream.getvalue()
    assert capsys.readouterr().err == ""


def test_every_kind_of_event_was_told_here() -> None:
    kinds = {type(event) for event in EVENTS + UNTOLD} | {e.Finished}
    assert kinds == set(e.Event.__args__)


@pytest.mark.parametrize("event", UNTOLD, ids=lambda event: type(event).__name__)
def test_what_comes_with_every_job_or_second_is_no_line(stream: io.StringIO, event: e.Event) -> None:
    tell_on(stream, redactor := Redactor(), "DEBUG")
    Metrics(redactor)(event)
    assert stream.getvalue() == ""


def test_a_listener_that_breaks_harms_neither_the_others_nor_the_line(
    stream: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    heard: list[e.Event] = []

    def broken(_: e.Event) -> None:
        raise ValueError(SECRET)

    tell_on(stream, redactor := Redactor())
    metrics = Metrics(redactor, broken)
    metrics.listen(heard.append)
    metrics(e.Recovered(3))
    assert heard == [e.Recovered(3)]
    assert len(lines(stream)) == 1
    assert capsys.readouterr().err == "could not count Recovered: ValueError\n"


def test_unknown_types_are_told_when_they_change(stream: io.StringIO) -> None:
    tell_on(stream, redactor := Redactor())
    metrics = Metrics(redactor)
    for counts in ({}, {"a": 1}, {"a": 1}, {"a": 2}, {}, {"a": 2}):
        metrics(e.UnknownTypes("broker", counts))
    assert [str(line["message"]).rpartition(": ")[2] for line in lines(stream)] == ["a (1)", "a (2)", "a (2)"]


def test_an_outage_of_realtime_is_told_ever_more_rarely_until_its_reason_changes(stream: io.StringIO) -> None:
    tell_on(stream, redactor := Redactor())
    metrics = Metrics(redactor)
    for reason in ["refused"] * 9 + ["closed"]:
        metrics(e.Deaf(reason, SECONDS))
    metrics(e.Hearing(SECONDS))
    metrics(e.Deaf("closed", SECONDS))
    told = [(str(line["message"]).split()[3], line["tries"]) for line in lines(stream) if "tries" in line]
    assert told == [
        ("refused;", 1),
        ("refused;", 2),
        ("refused;", 4),
        ("refused;", 8),
        ("closed;", 1),
        ("closed;", 1),
    ]


def test_an_outage_of_the_database_is_told_ever_more_rarely(stream: io.StringIO) -> None:
    """Whatever its reasons are, and in whatever order they come."""
    tell_on(stream, redactor := Redactor())
    metrics = Metrics(redactor)
    for n in range(2_000):
        metrics(e.Unavailable("broker", ("no connection", "HTTP 503", f"other {n}")[n % 3], SECONDS))
    assert len(lines(stream)) < 60
    assert sum(map(len, metrics._troubles.values())) < 30, "memory"
    metrics(e.Available("broker", SECONDS))
    metrics(e.Unavailable("broker", "no connection", SECONDS))
    *_, again, anew = lines(stream)
    assert again["message"] == "broker: the REST API answers again"
    assert anew["tries"] == 1


def test_on_a_terminal_a_line_is_a_sentence() -> None:
    stream = Terminal()
    tell_on(stream, redactor := Redactor())
    Metrics(redactor)(e.Deaf("closed", SECONDS))
    logger.remove()
    assert "deaf to Realtime: closed; sweeps go on  tries=1  retry_in_seconds=2.0\n" in stream.getvalue()


def test_braces_and_tags_in_a_message_are_text(stream: io.StringIO) -> None:
    tell_on(stream, redactor := Redactor())
    Metrics(redactor)(e.Deaf("{nothing} <red>%s</red> {0}", SECONDS))
    assert "{nothing} <red>%s</red> {0}" in str(lines(stream)[0]["message"])


def test_nothing_moves_the_cursor_or_forges_a_line() -> None:
    stream = Terminal()
    tell_on(stream, redactor := Redactor())
    evil = "\x1b[2J\r12:00 INFO payment job 1: completed\n\u2028\x9b0m\u202eabc\x07"
    Metrics(redactor)(e.Deaf(evil, SECONDS))
    Metrics(redactor)(e.Started(evil, [evil], [], SECONDS))
    logging.getLogger("odd").warning("%s", evil)
    logger.remove()
    told = stream.getvalue()
    assert told.count("\n") == 3
    assert not [one for one in told if one != "\n" and not one.isprintable()]


def test_a_log_line_that_a_library_got_wrong_fails_nobody(stream: io.StringIO) -> None:
    tell_on(stream, Redactor())
    logging.getLogger("odd").warning("%d", SECRET)
    assert lines(stream)[0]["message"] == "a log line that cannot be put together"


def test_a_line_that_cannot_be_written_costs_nothing_but_itself(
    stream: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken(Redactor):
        def text(self, text: str, payload: object = None) -> str:
            raise RuntimeError(f"with {SECRET}")

    tell_on(stream, Redactor())
    Metrics(Broken())(e.Deaf("closed", SECONDS))
    assert capsys.readouterr().err == "could not log Deaf: RuntimeError\n"


def test_a_line_for_which_there_is_no_place_is_not_printed_elsewhere(
    stream: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    class Full(io.StringIO):
        def write(self, _: str) -> int:
            raise OSError(28, "No space left on device")

    tell_on(Full(), Redactor())
    Metrics(Redactor())(e.Deaf("closed by Alice", SECONDS))
    logger.error("mail to Alice")
    assert capsys.readouterr().err == 2 * "could not write a log line: OSError\n"


def test_lines_of_handlers_are_redacted_with_what_they_bind(stream: io.StringIO) -> None:
    tell_on(stream, Redactor([SECRET]))
    as_handler = {"__name__": "handlers.alerts.email", "logger": logger, "secret": SECRET}
    exec("logger.bind(key=secret, many=[secret], n=7).warning('sent ' + secret + '\\ud800')", as_handler)
    (line,) = lines(stream)
    assert SECRET not in stream.getvalue()
    assert (line["message"], line["key"], line["n"]) == ("sent ‹secret›\\ud800", "‹secret›", 7)


def test_what_a_library_says_below_a_warning_is_not_told_even_when_it_was_switched_on(
    stream: io.StringIO,
) -> None:
    tell_on(stream, Redactor(), "DEBUG")
    for name in ("httpx", "realtime._async.client", "websockets.client"):
        logging.getLogger(name).setLevel(logging.DEBUG)
        logging.getLogger(name).debug("sent %s", "Alice")
        logging.getLogger(name).info("sent %s", "Alice")
    logging.getLogger("realtime._async.client").error("cannot read %s", "Alice")
    assert stream.getvalue() == ""


def test_other_libraries_are_redacted_and_their_tracebacks_left_out(stream: io.StringIO) -> None:
    tell_on(stream, Redactor([SECRET]))
    library = logging.getLogger("a.stranger")
    try:
        raise OSError("4242424242424242")
    except OSError:
        library.exception("could not use %s", SECRET)
    library.info("not told")
    logging.getLogger("odd").log(35, "a level of its own")
    first, second = lines(stream)
    assert (first["message"], first["library"]) == ("could not use ‹secret›", "a.stranger")
    assert second["message"] == "a level of its own"
    assert "42424242" not in stream.getvalue()
