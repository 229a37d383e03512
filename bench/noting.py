"""What limited handlers note of their runs: a file per process, by the one clock that all processes of a machine share.

Nothing of the queue is asked and nothing of it is needed: what the files say was seen from inside the handlers.
"""

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from listener import Job, Payload

FOLDER: Final = "BENCH_NOTES"
"""The environment variable that names the folder of the notes."""
OPEN: Final = "open"
"""The file in that folder for which those wait that are told to."""
_LOOK_SECONDS: Final = 0.01


class Work(Payload):
    """What a limited job is to do."""

    account_id: str
    seconds: float = 0.0
    waits: bool = False
    """Until the file `open` is there."""


class Who(NamedTuple):
    """By what limits count a job."""

    type: str
    user: str
    account: str


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a handler, in nanoseconds of the machine's monotonic clock."""

    who: Who
    job: int
    attempt: int
    pid: int
    begin: int
    end: int | None
    """None: it never came to its end, since its process was killed."""


class Notes:
    """The file of this process. A line is with the system once it is written: the process may be killed."""

    def __init__(self, folder: Path, file: int) -> None:
        self._gate = folder / OPEN
        self._file = file

    @classmethod
    @contextmanager
    def opened(cls, folder: Path) -> Iterator["Notes"]:
        """Closed after the block."""
        file = os.open(folder / f"{os.getpid()}.notes", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            yield cls(folder, file)
        finally:
            os.close(file)

    async def of(self, job: Job, work: Work) -> None:
        """Does the work of a job between the two lines."""
        self._note("begin", time.monotonic_ns(), job, work)
        while work.waits and not self._is_open():  # noqa: ASYNC110 - a file tells nobody that it is there
            await asyncio.sleep(_LOOK_SECONDS)
        await asyncio.sleep(work.seconds)
        self._note("end", time.monotonic_ns(), job, work)

    def _is_open(self) -> bool:
        return self._gate.exists()

    def _note(self, what: str, moment: int, job: Job, work: Work) -> None:
        words = (what, moment, job.id, job.attempt, os.getpid(), job.type, job.user_id, work.account_id)
        os.write(self._file, (" ".join(map(str, words)) + "\n").encode())


def runs_in(folder: Path) -> list[Run]:
    """All runs that the files of a folder tell of, by their beginning."""
    begun: dict[tuple[int, int, int], Run] = {}
    ended: dict[tuple[int, int, int], int] = {}
    for file in folder.glob("*.notes"):
        for line in file.read_text().splitlines():
            what, moment, job, attempt, pid, type_, user, account = line.split(" ")
            ref = (int(job), int(attempt), int(pid))
            if what == "end":
                ended[ref] = int(moment)
                continue
            if ref in begun:
                raise ValueError(f"attempt {attempt} of job {job} was run twice by one process")
            begun[ref] = Run(Who(type_, user, account), *ref, int(moment), None)
    return sorted(
        (Run(run.who, *ref, run.begin, ended.get(ref)) for ref, run in begun.items()),
        key=lambda run: run.begin,
    )
