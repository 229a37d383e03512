"""Every promise of the README has its entry in docs/promises.md, and the tests that the entry names exist."""

import ast
import re
from dataclasses import dataclass

import pytest

from tests.house.tree import ROOT

PAGE = ROOT / "docs" / "promises.md"
_ENTRY = re.compile(r"^## (\d+)\. (.+?)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_PART = re.compile(r"^\*\*(.+?)\.\*\*\s(.*?)(?=^\*\*|\Z)", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"^- `(tests/[\w/]+\.py)`:\s(.*?)(?=^- |\Z)", re.MULTILINE | re.DOTALL)
_TEST = re.compile(r"`(test_\w+)`")


@dataclass(frozen=True)
class Entry:
    """One promise with what is said about it, by part."""

    number: int
    promise: str
    parts: dict[str, str]

    @property
    def tests(self) -> list[tuple[str, str]]:
        """(file, function) of each test that is named."""
        return [
            (file, test)
            for file, named in _FILE.findall(self.parts.get("Tests", ""))
            for test in _TEST.findall(named)
        ]


def entries() -> list[Entry]:
    """What docs/promises.md tells, in its order."""
    return [
        Entry(int(number), " ".join(promise.split()), dict(_PART.findall(body)))
        for number, promise, body in _ENTRY.findall(PAGE.read_text())
    ]


def promised() -> list[tuple[int, str]]:
    """The numbered promises of the README."""
    part = (ROOT / "README.md").read_text().partition("\n## Promises\n")[2].partition("\n## ")[0]
    found = re.findall(r"^(\d+)\. (.*?)(?=^\d+\. |^\n|\Z)", part, re.MULTILINE | re.DOTALL)
    return [(int(number), " ".join(text.split())) for number, text in found]


def test_the_readme_and_the_page_make_the_same_promises() -> None:
    assert len(promised()) > 10
    assert [(entry.number, entry.promise) for entry in entries()] == promised()
    assert [number for number, _ in promised()] == list(range(1, len(promised()) + 1))


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: str(entry.number))
def test_a_promise_says_what_was_tried_which_tests_hold_it_and_what_it_does_not_say(entry: Entry) -> None:
    assert list(entry.parts) == ["Tried", "Tests", "Not promised"]
    assert all(text.strip() for text in entry.parts.values())
    assert entry.tests
    written = entry.parts["Tests"].count("`test_")
    assert len(entry.tests) == written, "a test is named outside of the list of its file"


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: str(entry.number))
def test_every_test_that_a_promise_names_exists(entry: Entry) -> None:
    for file, test in entry.tests:
        tree = ast.parse((ROOT / file).read_text())
        known = {
            node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        assert test in known, f"promise {entry.number} names {file}::{test}, which does not exist"
