"""Outcomes that could not be recorded, kept on disk: a process that dies while the database is away loses none.

One append-only file per process, in a folder that all processes of a machine share. A line keeps an outcome, or says
that one was settled since; when nothing is left to settle the file is emptied. It holds no payload and no result, and
error texts only as they would stand in a dead letter.

Races and crashes:
  - The owner holds a lock on its file as long as it lives. Whoever starts takes over every file whose lock is free:
    its outcomes are written into the taker's own file first and removed then, so a crash in between doubles them at
    most, and the database answers the second one "repeated".
  - A line that was cut off by a crash, or by a full disk, is passed over; each line is on the disk before its call is
    tried again, and so is the name of the file.
  - An outcome that was settled but not marked so is sent again: "repeated", or "stale" when the job has moved on.
  - A full or broken disk is told once per outage and costs only this protection: the outcomes stay in memory. A disk
    that does not answer at all is not waited for: from then on nothing is written.
  - A file that cannot be taken over (it is too large beside what is here, or somebody else's) is told, and left to the
    next process; it keeps no process from starting.
"""

import asyncio
import fcntl
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO, cast

from listener.errors import PulseError
from listener.events import Emit, Swallowed
from listener.jobs import AttemptRef, WokenBy
from listener.outcomes import Cancel, Completed, Dead, Ended, ErrorText, Outcome, Retry, Snooze

_SUFFIX = ".outcomes"
_LARGEST = 16_000_000  # bytes: some 50,000 outcomes
_PATIENCE_SECONDS = 10.0
_NO_RESULT = {"result_not_kept": "its process ended before the database was back"}


class Journal:
    """The file of one process; without a folder it keeps nothing. Safe for many loops; opened by `open_journal`."""

    def __init__(self, folder: Path | None, worker_id: str, emit: Emit) -> None:
        self._folder = folder
        self._name = worker_id
        self._emit = emit
        self._file: BinaryIO | None = None
        self._kept: set[AttemptRef] = set()
        self._writing = asyncio.Lock()
        self._failed = False
        self._is_still = False

    async def keep(self, waiting: Sequence[Ended]) -> None:
        """Returns when all of them are on the disk, or when that failed and was told."""
        async with self._writing:
            fresh = [one for one in waiting if one.ref not in self._kept]
            if self._file is None or not fresh:
                return
            # After a failure the last line may be half there: a blank one ends it.
            before = [b"\n"] if self._failed else []
            if await self._written(_append, self._file, before + [_line(one) for one in fresh]):
                self._kept.update(one.ref for one in fresh)

    async def settle(self, refs: Iterable[AttemptRef]) -> None:
        """The database has answered these: they need not survive us."""
        async with self._writing:
            settled = self._kept.intersection(refs)
            if self._file is None or not settled:
                return
            self._kept -= settled
            if self._kept:
                await self._written(_append, self._file, [_json({"settled": ref}) for ref in settled])
            else:
                await self._written(_empty, self._file)

    def open(self) -> list[Ended]:
        """Makes the file and takes over those of dead processes. Blocks; raises PulseError."""
        if self._folder is None:
            return []
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            # Under its real name only when it is locked: nobody may take it for the file of a dead process.
            fresh = self._folder / f"{self._name}.new"
            self._file = os.fdopen(os.open(fresh, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600), "ab")
            fcntl.flock(self._file, fcntl.LOCK_EX)
            fresh.rename(self._own)
            _sync_folder(self._folder)
            return [one for path in sorted(self._folder.glob(f"*{_SUFFIX}")) for one in self._take_over(path)]
        except OSError as error:
            self.close()
            raise PulseError(
                f"The folder PULSE_JOURNAL={self._folder} cannot be used: {error.strerror}."
            ) from error

    def close(self) -> None:
        """Leaves the file to the next process when anything is left in it, and removes it otherwise. Blocks."""
        if self._file is None:
            return
        if not self._kept:
            self._own.unlink(missing_ok=True)
        self._file.close()
        self._file = None

    @property
    def _own(self) -> Path:
        return Path(self._folder or "", f"{self._name}{_SUFFIX}")

    def _take_over(self, path: Path) -> list[Ended]:
        if path == self._own or self._file is None:
            return []
        try:
            with path.open("rb") as left:
                fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
                found = list(_read(left).values())
                _append(self._file, [_line(one) for one in found])
                self._kept.update(one.ref for one in found)
                path.unlink(missing_ok=True)
                return found
        except (FileNotFoundError, BlockingIOError):
            return []  # somebody else was first, or its owner lives
        except (OSError, PulseError) as error:
            self._emit(Swallowed(f"journal of outcomes, {path.name}", error))
            return []

    async def _written(self, write: Callable[..., None], *words: object) -> bool:
        if self._is_still:
            return False
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await asyncio.to_thread(write, *words)
        except TimeoutError:
            self._is_still = True
            text = f"the disk has not answered for {_PATIENCE_SECONDS:.0f} s; from now on outcomes stay in memory only"
            self._emit(Swallowed("journal of outcomes", PulseError(text)))
            return False
        except (OSError, PulseError) as error:
            if not self._failed:
                self._failed = True
                self._emit(Swallowed("journal of outcomes", error))
            return False
        self._failed = False
        return True


@contextmanager
def open_journal(folder: Path | None, worker_id: str, emit: Emit) -> Iterator[tuple[Journal, list[Ended]]]:
    """The journal of this process, and the outcomes that dead processes left. Raises PulseError."""
    journal = Journal(folder, worker_id, emit)
    left = journal.open()
    try:
        yield journal, left
    finally:
        journal.close()


def _append(file: BinaryIO, lines: Sequence[bytes]) -> None:
    if os.fstat(file.fileno()).st_size > _LARGEST:
        raise PulseError(f"it has grown to {_LARGEST} bytes; further outcomes stay in memory only")
    file.write(b"".join(lines))
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """The name of a new file is on the disk too."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _empty(file: BinaryIO) -> None:
    file.truncate(0)


def _read(file: BinaryIO) -> dict[AttemptRef, Ended]:
    waiting: dict[AttemptRef, Ended] = {}
    for line in file:
        try:
            words = cast("dict[str, object]", json.loads(line))
            if "settled" in words:
                waiting.pop(_ref(words["settled"]), None)
            else:
                ended = _ended(words)
                waiting[ended.ref] = ended
        except (ValueError, TypeError, KeyError):
            continue  # cut off by a crash, or of another version
    return waiting


def _json(words: object) -> bytes:
    return json.dumps(words, separators=(",", ":")).encode() + b"\n"


def _line(ended: Ended) -> bytes:
    words: dict[str, object] = {
        "ref": ended.ref,
        "type": ended.type,
        "kind": ended.outcome.kind,
        "seconds": ended.duration.total_seconds(),
        "woken_by": ended.woken_by,
    }
    match ended.outcome:
        case Completed(result):
            words["had_result"] = result is not None
        case Snooze(delay, reason):
            words |= {"delay": delay.total_seconds(), "reason": reason}
        case Cancel(reason):
            words["reason"] = reason
        case Retry(error, delay):
            words |= {"error": [error.error_class, error.message]}
            words["delay"] = delay and delay.total_seconds()
        case Dead(error):
            words |= {"error": [error.error_class, error.message]}
    return _json(words)


def _ended(words: dict[str, object]) -> Ended:
    return Ended(
        _ref(words["ref"]),
        str(words["type"]),
        _outcome(words),
        _seconds(words["seconds"]),
        WokenBy(str(words["woken_by"])),
    )


def _ref(words: object) -> AttemptRef:
    queue, id_, attempt = cast("tuple[str, int, int]", words)
    return AttemptRef(str(queue), int(id_), int(attempt))


def _outcome(words: dict[str, object]) -> Outcome:
    match words["kind"]:
        case "completed":
            return Completed(_NO_RESULT if words["had_result"] else None)
        case "snooze":
            return Snooze(_seconds(words["delay"]), str(words["reason"]))
        case "cancel":
            return Cancel(str(words["reason"]))
        case "retry":
            return Retry(_error(words), None if words["delay"] is None else _seconds(words["delay"]))
        case "dead":
            return Dead(_error(words))
        case other:
            raise ValueError(f"there is no outcome {other!r}")


def _error(words: dict[str, object]) -> ErrorText:
    error_class, message = cast("tuple[str, str]", words["error"])
    return ErrorText(str(error_class), str(message))


def _seconds(words: object) -> timedelta:
    return timedelta(seconds=float(cast("float", words)))
