"""Which stack runs over a data folder: a lock that dies with its holder, and a note of where it listens.

The lock says whether somebody runs (no process id can be mistaken for another one's); the note says who
and where, and counts only while the lock is held.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from devstack.keys import LOCAL


@dataclass(frozen=True, slots=True)
class Note:
    """A running stack."""

    pid: int
    port: int
    db_port: int


class Refused(Exception):
    """Something that whoever typed the command has to mend; the message says what."""


class AlreadyRunning(Exception):
    """Another process holds the folder."""


@contextlib.contextmanager
def held(folder: Path) -> Generator[None]:
    """Holds the folder for this process; raises AlreadyRunning."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as lock:
        if not _locked(lock):
            raise AlreadyRunning
        try:
            yield
        finally:
            (folder / "running.json").unlink(missing_ok=True)


def write_note(folder: Path, port: int, db_port: int) -> None:
    """Says where this process listens; in one step, so that a reader never sees half of it."""
    fresh = folder / "running.json.new"
    fresh.write_text(json.dumps(asdict(Note(os.getpid(), port, db_port))))
    fresh.rename(folder / "running.json")


def read_note(folder: Path) -> Note | None:
    """The stack that runs over this folder and is ready, or None."""
    try:
        with (folder / "lock").open("a") as lock:
            if _locked(lock):
                return None
        return Note(**json.loads((folder / "running.json").read_text()))
    except FileNotFoundError:
        return None


def _locked(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def table(port: int, db_port: int) -> str:
    """What `supabase start` prints: addresses and keys."""
    rows = {
        "API URL": f"http://127.0.0.1:{port}",
        "DB URL": f"postgresql://postgres:postgres@127.0.0.1:{db_port}/postgres",
        "Publishable key": LOCAL.publishable,
        "Secret key": LOCAL.secret,
        "anon key": LOCAL.anon,
        "service_role key": LOCAL.service_role,
    }
    return "\n".join(f"{name:>16}: {value}" for name, value in rows.items())
