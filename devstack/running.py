"""Which stack runs over a data folder: a lock that dies with its holder, and a note of where it listens.

The lock says whether somebody runs (no process id can be mistaken for another one's); the note says who
and where, and counts only while the lock is held. A held lock without a note is a stack that is coming up.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import time
from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, TextIO

from devstack.keys import Keys

ASKED_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Note:
    """A running stack that is ready."""

    pid: int
    started: float  # seconds since 1970; another one after a reset
    port: int
    db_port: int
    jwt_secret: str
    cluster: str  # folder of the database server

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def variables(self) -> dict[str, str]:
        """Addresses and keys under the names that `supabase status -o env` gives them."""
        keys = Keys(jwt_secret=self.jwt_secret)
        return {
            "API_URL": self.url,
            "REST_URL": f"{self.url}/rest/v1",
            "REALTIME_URL": f"ws://127.0.0.1:{self.port}/realtime/v1",
            "AUTH_URL": f"{self.url}/auth/v1",
            "DB_URL": f"postgresql://postgres:postgres@127.0.0.1:{self.db_port}/postgres",
            "PUBLISHABLE_KEY": keys.publishable,
            "SECRET_KEY": keys.secret,
            "ANON_KEY": keys.anon,
            "SERVICE_ROLE_KEY": keys.service_role,
            "JWT_SECRET": self.jwt_secret,
        }

    def table(self) -> str:
        """The same for the eyes."""
        named = {name.replace("_", " "): value for name, value in self.variables().items()}
        return "\n".join(f"{name:>16}: {value}" for name, value in named.items())


class Refused(Exception):
    """Something that whoever typed the command has to mend; the message says what."""


class AlreadyRunning(Exception):
    """Another process holds the folder."""


@contextlib.contextmanager
def held(folder: Path) -> Generator[None]:
    """Holds the folder for this process; raises AlreadyRunning."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".gitignore").write_text("*\n")
    with (folder / "lock").open("a") as lock:
        # Whoever only asks whether somebody runs here holds the lock for an instant, too.
        deadline = time.monotonic() + ASKED_SECONDS
        while not _locked(lock):
            if time.monotonic() > deadline:
                raise AlreadyRunning
            time.sleep(0.005)
        remove_note(folder)  # of a process that was killed
        try:
            yield
        finally:
            remove_note(folder)


def write_note(folder: Path, note: Note) -> None:
    """Says where this process listens; in one step, so that a reader never sees half of it."""
    fresh = folder / "running.json.new"
    fresh.touch(mode=0o600)
    fresh.write_text(json.dumps(asdict(note)))
    fresh.rename(folder / "running.json")


def remove_note(folder: Path) -> None:
    """Takes the note back: this process does not listen any more, or not yet again."""
    (folder / "running.json").unlink(missing_ok=True)


def is_held(folder: Path) -> bool:
    """Whether a process holds the folder, ready or not."""
    if not folder.is_dir():
        return False
    with (folder / "lock").open("a") as lock:
        return not _locked(lock)


def read_note(folder: Path) -> Note | None:
    """The stack that runs over this folder and is ready, or None."""
    if not is_held(folder):
        return None
    try:
        return Note(**json.loads((folder / "running.json").read_text()))
    except FileNotFoundError:
        return None


def _locked(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
