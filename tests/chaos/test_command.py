"""The command line of the lab: what it refuses, and what it says where it is not installed."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from chaos.__main__ import main

BARE = """
import sys
sys.path[:0] = sys.argv[1:]
from console.program import run
sys.exit(run(["chaos", "--seed", "7"]))
"""


def test_where_it_is_not_deployed_it_says_where_it_is(tmp_path: Path, checkout: Path) -> None:
    for package in ("listener", "console"):
        (tmp_path / package).symlink_to(checkout / package)
    words = [sys.executable, "-I", "-S", "-c", BARE, str(tmp_path), sysconfig.get_path("purelib")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "✗ The crash lab is not installed here: run this in a checkout of the project.\n"


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["--faults", "kill,rain"], "there is no fault 'rain'"),
        (["--minutes", "0"], "a number above 0"),
        (["--jobs", "0"], "a number above 0"),
        (["--workers", "0"], "a number above 0"),
        (["--sabotage", "nowhere.sql"], "there is no file nowhere.sql"),
        (["--jobs-from", "tests"], "has no chaos_jobs.py"),
    ],
)
def test_words_that_make_no_storm_are_refused_in_a_sentence(
    words: list[str], answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code: object = main(words)
    except SystemExit as left:
        code = left.code
    assert code == 2
    assert answer in capsys.readouterr().err
