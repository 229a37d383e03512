"""The lines of a Realtime recording: which there are, and which row a line tells of."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from tests.contract.realtime_bench import Frame

RECORDINGS = Path(__file__).parents[1] / "recordings"
_NUMBERED = re.compile(r"insert (\w+) i=(\d+)|.*values\('(\w+)','\{\"i\":(\d+)\}'\)")

Line = dict[str, Any]


def lines(recording: str) -> list[Line]:
    """A recording, line by line."""
    found = RECORDINGS / f"{recording}.jsonl"
    return [json.loads(line) for line in found.read_text().splitlines()]


def realtime_recordings() -> list[str]:
    """The recordings of Realtime by name."""
    return sorted(path.stem for path in RECORDINGS.glob("*.jsonl") if not path.stem.startswith("pgrst"))


def answers(recording: str) -> list[int]:
    """The lines, counted from 1, of what the recorded server sent: all of them are compared. An end without a code
    is the recorder's own."""
    return [
        number
        for number, line in enumerate(lines(recording), start=1)
        if line["dir"] == "s->c" and not (line["kind"] == "tcp_end" and line["close_code"] is None)
    ]


def numbered(statement: str) -> tuple[str, int] | None:
    """What tells a numbered row from the others: its job type and its number."""
    match = _NUMBERED.fullmatch(statement)
    return None if match is None else (match[1] or match[3], int(match[2] or match[4]))


def heard(line: Line) -> tuple[str, int] | None:
    """The numbered job that a line tells a client of; the number is -1 for one without."""
    frame: Any = line.get("frame")
    if line["dir"] != "s->c" or frame is None or "clipped" in frame:
        return None
    payload: Frame = frame["payload"] if "payload" in frame else frame[4]
    record: Frame = payload.get("data", {}).get("record", {})
    body = record.get("payload")
    if "job_type" not in record or not isinstance(body, dict):
        return None
    return record["job_type"], cast(Frame, body).get("i", -1)


def others(key: tuple[str, int], later: Sequence[Line]) -> tuple[list[Frame], list[Frame]]:
    """The events of unnumbered rows heard before and after that of the row `key`, up to the next statement."""
    before: list[Frame] = []
    after: list[Frame] = []
    now = before
    for line in later:
        if line.get("kind") == "sql" and now is after:
            break
        told = heard(line)
        if told == key:
            now = after
        elif told is not None and told[1] < 0:
            now.append(line["frame"]["payload"]["data"])
    return before, after
