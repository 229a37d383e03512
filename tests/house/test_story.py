"""What the README and its companions promise about the house is there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.tree import ROOT, files, name

README = ROOT / "README.md"
_LINK = re.compile(r"\[[^\]]*\]\((?!https?:|mailto:|#)([^)#\s]+)")
_CODE = re.compile(r"`([^`\s]+)`")


def test_each_file_of_a_jobs_life_exists() -> None:
    told = _section("A job's life")
    paths = [word for word in _CODE.findall(told) if word.endswith((".py", ".sql"))]
    assert len(paths) >= 7, "the README should tell a job's life file by file"
    missing = [path for path in paths if not (ROOT / path).is_file()]
    assert not missing


def test_every_dev_command_that_is_written_down_exists() -> None:
    usage = subprocess.run(
        [sys.executable, ROOT / "dev", "help"], capture_output=True, text=True, check=True
    ).stdout
    known = set(re.findall(r"^ +\./dev (\w+)", usage, re.MULTILINE))
    for page in files("*.md"):
        written = set(re.findall(r"\./dev (\w+)", page.read_text()))
        assert written <= known, f"{name(page)} speaks of {written - known}"


@pytest.mark.parametrize("page", [*files("*.md")], ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = [target for target in _LINK.findall(page.read_text()) if not (page.parent / target).exists()]
    assert not broken


def _section(title: str) -> str:
    """The text under the heading of that name, up to the next heading."""
    found = re.search(
        rf"^#+ {re.escape(title)}\s*$(.*?)(?=^#|\Z)", README.read_text(), re.MULTILINE | re.DOTALL
    )
    assert found, f"the README has no section {title!r}"
    return found[1]
