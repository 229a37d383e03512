"""docs/faults.md names what there is: every switch and act of Realtime, every fault of REST, and none besides."""

import inspect
import re
from dataclasses import fields
from pathlib import Path
from typing import get_args

from devstack.realtime.acts import Acts
from devstack.realtime.faults import RealtimeFaults
from devstack.rest.faults import What

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
CASES = (
    *(f"D{n}" for n in range(1, 14)),
    *(f"F{n}" for n in range(1, 11)),
    *(f"6.{n}" for n in range(1, 12)),
)


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under a heading."""
    part = PAGE.read_text().partition(f"## {heading}\n")[2].partition("\n##")[0]
    found = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if line[:1] == "|"
    ]
    return found[2:]


def test_every_switch_and_act_is_described_and_no_other() -> None:
    assert [row[0].strip("`") for row in rows("The switches")] == [
        each.name for each in fields(RealtimeFaults)
    ]
    assert {row[0].strip("`") for row in rows("The acts")} == set(Acts.names())


def test_every_fault_of_rest_is_described_and_no_other() -> None:
    assert [row[0].strip("`") for row in rows("REST")] == list(get_args(What))


def test_every_way_to_make_something_happen_exists() -> None:
    switches = {each.name for each in fields(RealtimeFaults)}
    arguments = {name for act in Acts.names() for name in inspect.signature(getattr(Acts, act)).parameters}
    cases: list[str] = []
    for heading in ("What the official Python client", "What can happen to a project", "What was seen"):
        for case, _, how in rows(next(line for line in titles() if line.startswith(heading))):
            cases.append(case)
            assert set(re.findall(r"`([a-z_]+)`", how)) <= switches | set(Acts.names()) | arguments | {
                "numeric",
                "exp",
            }
            assert how
    assert [case for case in cases if case != "–"] == list(CASES)


def titles() -> list[str]:
    return re.findall(r"^### (.*)$", PAGE.read_text(), re.MULTILINE)
