"""Every file says what it is for, and none grows into a maze."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.tree import ROOT, files, name

PYTHON = [*files("*.py"), ROOT / "dev"]
LONGEST = 400


@pytest.mark.parametrize("path", PYTHON, ids=name)
def test_python_file_begins_by_saying_its_one_job(path: Path) -> None:
    said = ast.get_docstring(ast.parse(path.read_text()))
    assert said, f"{name(path)} needs a docstring as its first line"
    first = said.splitlines()[0]
    assert first.endswith((".", ":", "?")), f"the first line of {name(path)} is not a whole sentence: {first}"


@pytest.mark.parametrize("path", [*PYTHON, *files("*.sql")], ids=name)
def test_file_is_short_enough_to_be_read(path: Path) -> None:
    length = len(path.read_text().splitlines())
    assert length <= LONGEST, f"{name(path)} has {length} lines: look for the second room in it"


@pytest.mark.parametrize("path", [*files("*.sql")], ids=name)
def test_sql_file_begins_by_saying_its_one_job(path: Path) -> None:
    assert path.read_text().startswith("-- "), f"{name(path)} needs a comment as its first line"


def test_sql_files_are_read_in_the_order_of_their_numbers() -> None:
    numbers = [path.name.partition("_")[0] for path in (ROOT / "sql").glob("*.sql")]
    assert all(len(number) == 3 and number.isdigit() for number in numbers), numbers
    assert len(set(numbers)) == len(numbers), "two SQL files share a number"


def test_every_command_of_the_procfile_exists() -> None:
    commands = [line.partition(":")[2].split() for line in (ROOT / "Procfile").read_text().splitlines()]
    assert {words[0] for words in commands} == {"pulse"}
    help_text = subprocess.run(
        [sys.executable, "-m", "listener", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for words in commands:
        assert words[1] in help_text
