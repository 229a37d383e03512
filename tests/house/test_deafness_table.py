"""No fault of Realtime in docs/faults.md is left untried: each has its entry, or a reason why it harms nobody."""

import re

from tests.faults.deafness import FAULTS, HARMLESS
from tests.house.tree import ROOT

TABLES = ("What the official Python client", "What can happen to a project", "What was seen")


def rows() -> list[str]:
    """The numbers of the rows, or the words of those that have none."""
    page = (ROOT / "docs" / "faults.md").read_text()
    found: list[str] = []
    for part in page.split("\n### ")[1:]:
        if part.startswith(TABLES):
            table = part.partition("\n## ")[0]
            cells = re.findall(r"^\| ([DF6–]\S*) \| ([^|]+) \|", table, re.MULTILINE)
            found += [words.strip() if number == "–" else number for number, words in cells]
    return found


def test_every_fault_has_its_entry_or_its_reason() -> None:
    named = " ".join(fault.rows for fault in FAULTS.values())
    tried = {row for row in rows() if re.search(rf"(?<![\w.]){re.escape(row)}(?![\w.])", named)}
    assert len(rows()) > 30
    assert set(rows()) - tried - HARMLESS.keys() == set()
    assert not tried & HARMLESS.keys(), "tried and called harmless"


def test_every_entry_is_about_a_row_that_exists() -> None:
    numbers = {number for fault in FAULTS.values() for number in re.findall(r"[DF]\d+|6\.\d+", fault.rows)}
    assert numbers | HARMLESS.keys() <= set(rows())
    assert all(len(reason) > 20 for reason in HARMLESS.values())
