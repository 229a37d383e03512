"""The journal: what comes back from the disk, after crashes of every kind, and what never gets there."""

import fcntl
import os
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from listener import journal as room
from listener.errors import PulseError
from listener.events import Event, Swallowed
from listener.jobs import AttemptRef, WokenBy
from listener.journal import Journal, open_journal
from listener.outcomes import Cancel, Completed, Dead, Ended, ErrorText, Outcome, Retry, Snooze

ERROR = ErrorText("OSError", "no route", "Traceback of many lines")
OUTCOMES: list[Outcome] = [
    Completed(),
    Snooze(timedelta(seconds=1.5), "later"),
    Cancel("over"),
    Retry(ErrorText("OSError", "no route")),
    Retry(ErrorText("OSError", "no route"), timedelta(seconds=7)),
    Dead(ErrorText("OSError", "no route")),
]


def ended(id_: int, outcome: Outcome) -> Ended:
    return Ended(AttemptRef("broker", id_, 2), "execute_order", outcome, timedelta(seconds=3), WokenBy.SWEEP)


@pytest.fixture
def told() -> list[Event]:
    return []


@pytest.fixture
def journal(tmp_path: Path, told: list[Event]) -> Iterator[Journal]:
    """The journal of a process that dies with the block: its file stays as it is."""
    journal = Journal(tmp_path, "one", told.append)
    assert journal.open() == []
    yield journal
    assert journal._file is not None
    journal._file.close()


def crash(journal: Journal) -> None:
    """The process is gone: the kernel frees its lock, and nothing is tidied up."""
    assert journal._file is not None
    fcntl.flock(journal._file, fcntl.LOCK_UN)


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def left_in(folder: Path, told: list[Event], taker: str = "two") -> list[Ended]:
    with open_journal(folder, taker, told.append) as (_, left):
        return left


async def test_every_outcome_comes_back(journal: Journal, tmp_path: Path, told: list[Event]) -> None:
    kept = [ended(id_, outcome) for id_, outcome in enumerate(OUTCOMES)]
    await journal.keep(kept[:2])
    await journal.keep(kept)
    crash(journal)
    assert left_in(tmp_path, told, "two") == kept
    assert left_in(tmp_path, told, "three") == kept, "the second died before they were settled"
    assert told == []


async def test_results_and_stacks_stay_out(journal: Journal, tmp_path: Path, told: list[Event]) -> None:
    await journal.keep([ended(1, Completed({"card": "4242"})), ended(2, Dead(ERROR))])
    assert b"4242" not in (tmp_path / "one.outcomes").read_bytes()
    assert b"Traceback" not in (tmp_path / "one.outcomes").read_bytes()
    assert (tmp_path / "one.outcomes").stat().st_mode & 0o077 == 0
    crash(journal)
    first, second = left_in(tmp_path, told)
    assert first.outcome == Completed({"result_not_kept": "its process ended before the database was back"})
    assert second.outcome == Dead(ErrorText("OSError", "no route"))


async def test_what_was_settled_is_not_left(journal: Journal, tmp_path: Path, told: list[Event]) -> None:
    await journal.keep([ended(1, Completed()), ended(2, Completed())])
    await journal.settle([AttemptRef("broker", 1, 2), AttemptRef("broker", 9, 9)])
    crash(journal)
    assert [one.ref.id for one in left_in(tmp_path, told)] == [2]


async def test_when_all_is_settled_the_file_is_empty(journal: Journal, tmp_path: Path) -> None:
    await journal.keep([ended(1, Completed())])
    await journal.settle([AttemptRef("broker", 1, 2)])
    assert (tmp_path / "one.outcomes").read_bytes() == b""
    await journal.keep([ended(2, Completed())])
    assert (tmp_path / "one.outcomes").read_bytes().count(b"\n") == 1


async def test_the_file_of_a_living_process_is_left_alone(
    journal: Journal, tmp_path: Path, told: list[Event]
) -> None:
    await journal.keep([ended(1, Completed())])
    assert left_in(tmp_path, told) == []
    assert (tmp_path / "one.outcomes").exists()


@pytest.mark.parametrize(
    "end", [b'{"ref":["broker",7,1],"ki', b"\x00\xff\n", b"[]\n", b'{"ref":1}\n', b"null\n"]
)
async def test_a_line_that_cannot_be_read_costs_only_itself(
    journal: Journal, tmp_path: Path, told: list[Event], end: bytes
) -> None:
    await journal.keep([ended(1, Completed())])
    with (tmp_path / "one.outcomes").open("ab") as file:
        file.write(end)
    crash(journal)
    assert left_in(tmp_path, told) == [ended(1, Completed())]


async def test_it_does_not_grow_without_bound(
    journal: Journal, tmp_path: Path, told: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_LARGEST", 1000)
    for id_ in range(100):
        await journal.keep([ended(id_, Completed())])
    assert (tmp_path / "one.outcomes").stat().st_size < 2000
    assert [type(event) for event in told] == [Swallowed], "told once"
    await journal.settle([AttemptRef("broker", id_, 2) for id_ in range(100)])
    await journal.keep([ended(200, Completed())])
    assert (tmp_path / "one.outcomes").read_bytes().count(b"\n") == 1


async def test_a_broken_disk_is_told_once_and_costs_nothing_else(
    journal: Journal, told: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.fsync", broken)
    await journal.keep([ended(1, Completed())])
    await journal.keep([ended(1, Completed()), ended(2, Completed())])
    assert [type(event) for event in told] == [Swallowed]


async def test_a_disk_that_was_full_for_a_while_spoils_no_line(
    journal: Journal, tmp_path: Path, told: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of a line got there. What is written next must not become its other half."""
    real = os.fsync

    def full(number: int) -> None:
        with (tmp_path / "one.outcomes").open("r+b") as file:
            file.truncate(20)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    await journal.keep([ended(1, Completed())])
    monkeypatch.setattr("os.fsync", real)
    await journal.keep([ended(1, Completed()), ended(2, Completed())])
    crash(journal)
    assert left_in(tmp_path, told) == [ended(1, Completed()), ended(2, Completed())]


async def test_a_disk_that_does_not_answer_is_not_waited_for(
    journal: Journal, told: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs = threading.Event()

    def still(_: int) -> None:
        hangs.wait(30)

    monkeypatch.setattr("os.fsync", still)
    monkeypatch.setattr(room, "_PATIENCE_SECONDS", 0.05)
    try:
        await journal.keep([ended(1, Completed())])
        await journal.keep([ended(1, Completed()), ended(2, Completed())])
        await journal.settle([AttemptRef("broker", 1, 2)])
    finally:
        hangs.set()
    assert [type(event) for event in told] == [Swallowed]
    assert "has not answered" in str(told)


async def test_what_dead_processes_left_keeps_nobody_from_starting(
    journal: Journal, tmp_path: Path, told: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than fits into one file, and something that is no file: the rest is taken over, and nothing is deleted."""
    await journal.keep([ended(1, Completed())])
    crash(journal)
    for name in ("three", "two"):
        (tmp_path / f"{name}.outcomes").write_bytes((tmp_path / "one.outcomes").read_bytes())
    (tmp_path / "zero.outcomes").mkdir()
    monkeypatch.setattr(room, "_LARGEST", 1)
    assert left_in(tmp_path, told, "new") == [ended(1, Completed())]
    assert [type(event) for event in told] == [Swallowed] * 3
    assert len(names(tmp_path)) == 4, "its own, two files and the folder"


async def test_without_a_folder_nothing_is_kept(told: list[Event]) -> None:
    with open_journal(None, "one", told.append) as (journal, left):
        await journal.keep([ended(1, Completed())])
        await journal.settle([AttemptRef("broker", 1, 2)])
        assert left == []


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path, told: list[Event]) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(PulseError, match=r"PULSE_JOURNAL=.*file"),
        open_journal(tmp_path / "file", "x", told.append),
    ):
        pass
