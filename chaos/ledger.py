"""The ledger: what handlers really did, written beside the job system, so that nothing of it has to be believed.

One file per worker process and one line per fact, written by one call before the handler's answer goes back to the
engine: a process that is killed a moment later has still written what it did. An effect is a handler that returned
normally; with two of them for one job, its work was done twice.
"""

import os
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from listener.jobs import Job
from listener.outcomes import Cancel, Snooze
from listener.registry import Handler

_JOB = "chaos_job"  # a keyword that no handler of anybody asks for


class Word(StrEnum):
    """What a line says."""

    BEGAN = "began"
    DID = "did"
    """The handler returned: its effect has happened."""
    LEFT = "left"
    """The handler ended without an effect: it raised, snoozed, cancelled its job or was stopped."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line."""

    word: Word
    job_id: int
    attempt: int
    at: float
    """By this machine's clock, which the database shares."""
    pid: int
    key: str


class Ledger:
    """The file of this process."""

    def __init__(self, folder: Path) -> None:
        name = folder / f"{os.getpid()}-{time.time_ns()}.ledger"
        self._file = os.open(name, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)

    def write(self, word: Word, job: Job) -> None:
        """Returns when the system has the line: the end of this process cannot lose it."""
        line = f"{word} {job.id} {job.attempt} {time.time():.6f} {os.getpid()} {job.key}\n"
        os.write(self._file, line.encode())

    def kept_by(self, handler: Handler) -> Handler:
        """The same handler, with a ledger."""
        return replace(handler, run=self._noting(handler.run), wants={**handler.wants, _JOB: Job})

    def _noting(self, run: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
        async def noted(payload: object, *, chaos_job: Job, **arguments: object) -> object:
            self.write(Word.BEGAN, chaos_job)
            try:
                answer = await run(payload, **arguments)
            except BaseException:
                self.write(Word.LEFT, chaos_job)
                raise
            has_left = isinstance(answer, Snooze | Cancel)
            self.write(Word.LEFT if has_left else Word.DID, chaos_job)
            return answer

        return noted


def read(folder: Path) -> Iterator[Entry]:
    """Every line of every process."""
    for file in sorted(folder.glob("*.ledger")):
        for line in file.read_text().splitlines():
            word, job_id, attempt, at, pid, key = line.split(" ")
            yield Entry(Word(word), int(job_id), int(attempt), float(at), int(pid), key)
