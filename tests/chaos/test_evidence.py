"""What the evidence is read from: the workers' own words, and the ledger that their handlers write."""

import asyncio
import json
import logging
import math
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from loguru import logger

from chaos.evidence import from_logs
from chaos.ledger import Ledger, Word, read
from listener import events as e
from listener.jobs import AttemptRef, Job, WokenBy
from listener.metrics import Metrics, tell_on
from listener.outcomes import Answer, Completed, Ended, Recorded, Snooze
from listener.redaction import Redactor
from listener.registry import Handler, Payload

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
JOB = Job(7, "broker", "execute_order", {}, None, 0, NOW, 2, 0, 4, NOW)


@pytest.fixture
def metrics(tmp_path: Path) -> Iterator[Metrics]:
    """What a worker tells its facts to; the lines go to a file of this test."""
    root = logging.getLogger()
    handlers, levels = (
        list(root.handlers),
        {name: logging.getLogger(name).level for name in ("", "realtime", "websockets")},
    )
    with (tmp_path / "worker-0-1.log").open("w") as stream:
        tell_on(stream, Redactor(()))
        yield Metrics(Redactor(()))
        logger.remove()
    root.handlers[:] = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def test_the_words_of_a_worker_are_understood(tmp_path: Path, metrics: Metrics) -> None:
    metrics(e.Deaf("the connection broke", SECOND))
    metrics(e.Deaf("cannot connect", SECOND))
    metrics(e.Hearing(SECOND))
    metrics(e.MissedWakeup("broker", 3, SECOND))
    metrics(e.Recovered(2))
    ended = Ended(JOB.ref, JOB.type, Completed(), SECOND, WokenBy.SWEEP)
    for answer in (Answer.RECORDED, Answer.STALE):
        recorded = Recorded(AttemptRef("broker", 7, 2), answer, "completed", None, None)
        metrics(e.Finished(ended, Completed(), recorded))

    said = from_logs(tmp_path, math.inf)

    assert (said.deaf, said.wakeups_lost, said.recovered, said.stale) == (1, 3, 2, 1)
    assert from_logs(tmp_path, 0.0).wakeups_lost == 0, (
        "what is owed after the storm is owed by the lab's clock"
    )


@pytest.mark.parametrize(("last", "seconds"), [("Realtime is ready", 5), ("drained", 7)])
def test_deafness_goes_to_the_word_that_it_is_over_or_to_the_end(
    tmp_path: Path, last: str, seconds: float
) -> None:
    told = [
        (0, "Realtime is ready"),
        (2, "deaf to Realtime: …"),
        (4, "deaf to Realtime: …"),
        (7, last),
        (9, "drained"),
    ]
    lines = [
        json.dumps({"time": (NOW + at * SECOND).isoformat(), "level": "INFO", "message": message})
        for at, message in told
    ]
    (tmp_path / "worker-0-1.log").write_text("\n".join([*lines, '{"time": "cut o']))
    assert from_logs(tmp_path, math.inf).deaf_seconds == seconds


async def hang() -> None:
    await asyncio.Event().wait()


async def fail() -> None:
    raise OSError


async def snooze() -> Snooze:
    return Snooze(SECOND, "not yet")


async def succeed() -> None:
    return


@pytest.mark.parametrize(
    ("work", "last"), [(succeed, Word.DID), (snooze, Word.LEFT), (fail, Word.LEFT), (hang, Word.LEFT)]
)
async def test_the_ledger_tells_work_that_was_done_from_work_that_was_left(
    tmp_path: Path, work: Callable[[], Awaitable[object]], last: Word
) -> None:
    async def run(_: Payload) -> object:
        return await work()

    handler = Handler("broker", "execute_order", run, Payload, {}, SECOND, None)
    noted = Ledger(tmp_path).kept_by(handler)
    running = asyncio.ensure_future(noted.run(Payload(), chaos_job=JOB))
    await asyncio.wait([running], timeout=0 if work is hang else None)
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled() or running.exception() is None or work is fail

    assert [(one.word, one.job_id, one.attempt, one.key) for one in read(tmp_path)] == [
        (word, 7, 2, JOB.key) for word in (Word.BEGAN, last)
    ]
