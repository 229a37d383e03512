"""The only file that logs: it turns the facts of `events.py` into one line each, without secrets.

It also hands each fact to whoever else listens: what counts (`telemetry/counts.py`), and what exports.

On a terminal a line reads as a sentence; elsewhere it is one JSON object, with the same sentence as `message` and each
fact under its own name. Lines of handlers and warnings of libraries go through the same redaction.
"""

import json
import logging
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, TextIO

from loguru import logger

from listener import events as e
from listener.keyring import KeyRefused, KeyTaken, KeyUnusable, mend
from listener.outcomes import Answer, Cancel, Completed, Dead, Retry, Snooze
from listener.redaction import Redactor

if TYPE_CHECKING:
    from loguru import Message


# The Realtime client logs whole frames that it could not read, its transport the address with the key in it. What is
# worth knowing of them the subscription tells in its own words.
_QUOTE_WHAT_THEY_CARRY = ("realtime", "websockets")
# What would move the cursor, begin a line or change how the rest is read, on a terminal or in a viewer of logs.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_WARNING = re.compile(r".*?:\d+: \w+")  # file, line and class of a Python warning, without its text
_LEVELS = {"WARNING", "ERROR", "CRITICAL"}
_MOST_REASONS = 20
_IN_THE_SENTENCE = {"queue", "job_id", "type", "outcome", "answer"}


class Metrics:
    """Receives every fact, from any thread."""

    def __init__(self, redactor: Redactor, *listeners: e.Emit) -> None:
        self._redactor = redactor
        self._listeners = list(listeners)
        self._unknown: dict[str, Mapping[str, int]] = {}
        self._troubles: dict[str, Counter[str]] = {}
        """How often the same reason came in the trouble that goes on, by whom it troubles."""

    def listen(self, listener: e.Emit) -> None:
        """From now on this one hears every fact, before it is told."""
        self._listeners.append(listener)

    def __call__(self, event: e.Event) -> None:
        """Hands the fact on and tells it. Never raises: neither a number nor a log line is worth a job."""
        for listener in self._listeners:
            try:
                listener(event)
            except Exception as error:  # noqa: BLE001
                sys.stderr.write(f"could not count {type(event).__name__}: {type(error).__name__}\n")
        try:
            self._tell(event)
        except Exception as error:  # noqa: BLE001
            sys.stderr.write(f"could not log {type(event).__name__}: {type(error).__name__}\n")

    def _tell(self, event: e.Event) -> None:  # noqa: C901 - one case per fact, none of them complex
        clean = self._redactor.text  # for words that are not our own
        match event:
            case e.Finished():
                self._finished(event)
            case e.Called() | e.AttemptBegan() | e.AttemptEnded() | e.LoopAnswered():
                pass  # they come with every job and every second: they are counted, and no line of them is written
            case e.Started(worker_id, queues, types, took):
                served = f"serving {', '.join(queues)}" if queues else "door only"
                self._log(
                    "INFO",
                    f"started, {served} ({', '.join(types)})",
                    worker_id=worker_id,
                    took_seconds=_seconds(took),
                )
            case e.DoorOpen(url):
                self._log("INFO", "door open", url=url)
            case e.Recovered(count):
                self._log("WARNING", f"recording {count} outcomes that a process left when it died")
            case e.Claimed(queue, woken_by, count, waited):
                self._log(
                    "DEBUG", f"{queue}: claimed {count}", woken_by=woken_by, waited_seconds=_seconds(waited)
                )
            case e.MissedWakeup(queue, count, waited):
                self._log(
                    "WARNING",
                    f"{queue}: a sweep found {count} due that Realtime did not announce",
                    waited_seconds=_seconds(waited),
                )
            case e.AttemptsLost(queue, retried, dead):
                text = f"{queue}: workers vanished in mid-job: {retried} to be retried, {dead} dead letters"
                self._log("ERROR", text)
            case e.UnknownTypes(queue, counts):
                self._unknown_types(queue, counts)
            case e.AttemptStopped(job, why):
                self._log(
                    "WARNING",
                    f"{job.queue} job {job.id} {job.type}: told to stop ({why})",
                    attempt=job.attempt,
                )
            case e.Hearing(deaf_for):
                self._troubles.pop("Realtime", None)
                self._log("INFO", "Realtime is ready", deaf_seconds=_seconds(deaf_for))
            case e.Deaf(reason, retry_in):
                if tries := self._tries("Realtime", reason):
                    self._log(
                        "WARNING",
                        f"deaf to Realtime: {clean(reason)}; sweeps go on",
                        **tries,
                        retry_in_seconds=_seconds(retry_in),
                    )
            case e.Unannounced(problem):
                self._log(
                    "WARNING",
                    f"PULSE_LISTEN is broadcast, but {clean(problem)} Until then sweeps find the jobs",
                )
            case e.Unavailable(call, reason, retry_in):
                if tries := self._tries(call, reason):
                    self._log(
                        "WARNING",
                        f"{call}: {clean(reason)}; nothing is lost, asking again",
                        **tries,
                        retry_in_seconds=_seconds(retry_in),
                    )
            case e.Available(call, after):
                if self._troubles.pop(call, None):
                    self._log("INFO", f"{call}: the REST API answers again", after_seconds=_seconds(after))
            case e.NotExported(exporter, reason, retry_in):
                if tries := self._tries(exporter, reason):
                    self._log(
                        "WARNING",
                        f"metrics to {exporter}: {clean(reason)}; no job is affected, trying again",
                        **tries,
                        retry_in_seconds=_seconds(retry_in),
                    )
            case e.Exported(exporter, after):
                if self._troubles.pop(exporter, None):
                    self._log(
                        "INFO", f"metrics to {exporter} are delivered again", after_seconds=_seconds(after)
                    )
            case e.SlotInserted(name, slot, job_id, created):
                how = "inserted" if created else "was there already"
                self._log("INFO", f"schedule {name}: slot {slot} {how} as job {job_id}")
            case e.SlotsLeftOut(name, count):
                self._log(
                    "WARNING",
                    f"schedule {name}: {count} slots get no job, by its policy: they were missed, or came too soon",
                )
            case e.ScheduleRefused(name, why):
                self._log("WARNING", f"schedule {name} stands still: {clean(why)}")
            case e.SlotWithoutHandler(type_, queue):
                text = f"schedule {type_}: no handler here; its rows in {queue}_jobs wait for a process that has one"
                self._log("WARNING", text)
            case e.Swallowed(where, error):
                self._log("ERROR", f"{where}: {type(error).__name__}: {clean(str(error))}")
            case e.StoodStill(how_long, where):
                text = f"blocked at {where}: no other job runs and no lease is renewed until that is over"
                self._log("ERROR", text, still_seconds=_seconds(how_long))
            case e.Draining(running, grace):
                self._log(
                    "INFO",
                    f"draining: {running} running, nothing new is claimed",
                    grace_seconds=_seconds(grace),
                )
            case e.Drained(took, handed_back, abandoned):
                text = f"drained: {handed_back} handed back, {abandoned} did not stop"
                self._log("WARNING" if abandoned else "INFO", text, took_seconds=_seconds(took))
            case KeyTaken(name):
                self._log("INFO", f"{name}: the project takes the next key, and everything here shows it now")
            case KeyRefused(name, another):
                then = "trying another one" if another else f"work is kept. {mend(name)}"
                self._log(
                    "WARNING" if another else "ERROR",
                    f"{name}: the project refuses the key (HTTP 401); {then}",
                )
            case KeyUnusable(problem):
                self._log("ERROR", f"the key in use stays: {clean(problem)}")

    def _finished(self, event: e.Finished) -> None:
        ended, outcome, recorded = event.ended, event.outcome, event.recorded
        queue, id_, attempt = ended.ref
        level, became = "INFO", "completed"
        clean = self._redactor.text
        match outcome:
            case Completed():
                pass
            case Snooze(_, reason):
                became = f"snoozed ({clean(reason)})"
            case Cancel(reason):
                became = f"cancelled ({clean(reason)})"
            case Retry(error) | Dead(error):
                level = "WARNING"
                became = f"failed, {error.error_class}: {clean(error.message)}"
        if recorded.failed_job_id is not None:
            level, became = "ERROR", f"{became}; dead letter {recorded.failed_job_id}"
        elif recorded.run_in is not None and recorded.status == "pending":
            became = f"{became}; again in {recorded.run_in.total_seconds():.3g} s"
        if recorded.answer is Answer.STALE:
            level, became = "WARNING", f"{became}, but STALE: the job is {recorded.status} by another attempt"
        self._log(
            level,
            f"{queue} job {id_} {ended.type}: {became}",
            queue=queue,
            job_id=id_,
            type=ended.type,
            attempt=attempt,
            duration_seconds=_seconds(ended.duration),
            outcome=outcome.kind,
            answer=recorded.answer.value,
            woken_by=ended.woken_by.value,
        )

    def _tries(self, whom: str, reason: str) -> dict[str, int]:
        """How often it has been so in this trouble, as a fact to tell; nothing when that is not worth a line. The 1st,
        2nd, 4th, 8th … time is: an outage of an hour must not fill the log."""
        trouble = self._troubles.setdefault(whom, Counter())
        if len(trouble) >= _MOST_REASONS:  # a reason that differs each time is one reason too
            reason = ""
        trouble[reason] += 1
        tries = trouble[reason]
        return {"tries": tries} if tries.bit_count() == 1 else {}

    def _unknown_types(self, queue: str, counts: Mapping[str, int]) -> None:
        """Told when it changes, not at every sweep."""
        if self._unknown.get(queue, {}) != counts:
            self._unknown[queue] = dict(counts)
            if counts:
                listed = ", ".join(f"{type_} ({count})" for type_, count in sorted(counts.items()))
                self._log(
                    "WARNING", f"{queue}: rows of types that no handler here serves are waiting: {listed}"
                )

    def _log(self, level: str, text: str, **facts: object) -> None:
        shown = {name: _harmless(value) if isinstance(value, str) else value for name, value in facts.items()}
        logger.bind(**shown).log(level, _harmless(text.replace("\n", " ")))


def tell_on(stream: TextIO, redactor: Redactor, level: str = "INFO") -> None:
    """Sends all log lines of the process to `stream`: ours, those of handlers, and other libraries' warnings."""
    logger.remove()
    write = _sentence if stream.isatty() else _json

    def sink(message: "Message") -> None:
        record = message.record
        if record["name"] != __name__:  # a line of a handler
            record["message"] = _harmless(redactor.text(record["message"]))
            record["extra"] = {name: _fact(value, redactor) for name, value in record["extra"].items()}
        try:
            stream.write(write(message))
            stream.flush()
        except Exception as error:  # noqa: BLE001 - loguru would print the whole record
            sys.stderr.write(f"could not write a log line: {type(error).__name__}\n")

    # diagnose would print the values of local variables, payloads and keys among them
    logger.add(sink, level=level, format="{message}", colorize=False, diagnose=False, backtrace=False)
    logging.raiseExceptions = False  # it would print the words of a line that cannot be put together
    logging.basicConfig(handlers=[_Foreign(redactor.text)], level=logging.WARNING, force=True)


class _Foreign(logging.Handler):
    """Other libraries' log records, redacted. Their tracebacks are left out: they may quote what they carried."""

    def __init__(self, redact: Callable[[str], str]) -> None:
        # Below that they quote what they send and receive, and a handler may have switched it on.
        super().__init__(logging.WARNING)
        self._redact = redact
        self.addFilter(lambda record: record.name.partition(".")[0] not in _QUOTE_WHAT_THEY_CARRY)

    def emit(self, record: logging.LogRecord) -> None:
        level = (
            record.levelname if record.levelname in _LEVELS else "WARNING"
        )  # a library may have levels of its own
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - a library's mistake in a log line is not its caller's failure
            text = "a log line that cannot be put together"
        if record.name == "py.warnings" and (named := _WARNING.match(text)):
            text = named[0]
        logger.bind(library=record.name).log(level, _harmless(self._redact(text)))


def _sentence(message: "Message") -> str:
    record = message.record
    told = {name: value for name, value in record["extra"].items() if name not in _IN_THE_SENTENCE}
    facts = "  ".join(f"{name}={value}" for name, value in told.items())
    line = f"{record['time']:HH:mm:ss.SSS} {record['level'].name:<7} {record['message']}  {facts}"
    return line.rstrip() + "\n"


def _json(message: "Message") -> str:
    record = message.record
    words = {"time": record["time"].isoformat(), "level": record["level"].name, "message": record["message"]}
    return json.dumps(words | record["extra"], default=str, ensure_ascii=False) + "\n"


def _fact(value: object, redactor: Redactor) -> object:
    """What a handler bound to its line: numbers as they are, all else as text."""
    return value if isinstance(value, int | float | None) else _harmless(redactor.text(str(value)))


def _harmless(text: str) -> str:
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def _seconds(duration: timedelta) -> float:
    return round(duration.total_seconds(), 3)
