"""A skip is a skip on a bare machine and a failure where everything must be tested."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.tree import ROOT

SKIPPED = {
    "test_in_a_test": "import pytest\ndef test_x():\n    pytest.skip('no time')\n",
    "test_by_a_mark": "import pytest\n@pytest.mark.skipif(True, reason='no time')\ndef test_x(): pass\n",
    "test_whole_file": "import pytest\npytest.skip('no time', allow_module_level=True)\n",
    "test_counterpart": "from tests.skips import POSTGREST\ndef test_x():\n    POSTGREST.path()  # no time\n",
}


@pytest.mark.parametrize("no_skip", ["", "1"])
def test_skips(tmp_path: Path, no_skip: str) -> None:
    for file, text in SKIPPED.items():
        (tmp_path / f"{file}.py").write_text(text)
    (tmp_path / "test_expected.py").write_text(
        "import pytest\n@pytest.mark.xfail(reason='known')\ndef test_x(): assert False\n"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.skips",
        "-ra",
        "--continue-on-collection-errors",
        str(tmp_path),
    ]
    ran = subprocess.run(
        command, cwd=ROOT, env={"PULSE_NO_SKIP": no_skip}, capture_output=True, text=True, check=False
    )
    summary = ran.stdout.splitlines()[-1]
    if no_skip:
        assert ran.returncode == 1
        assert "skipped" not in summary
        assert "2 failed" in summary
        assert "2 errors" in summary  # pytest calls a failure outside of the test's own body an error
    else:
        assert ran.returncode == 0
        assert "4 skipped" in summary
    assert "1 xfailed" in summary
