"""`./dev` answers on a bare machine, before anything is installed."""

import importlib.util
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from types import ModuleType

import pytest

from tests.house.tree import ROOT

COMMANDS = ["demo", "stack", "test", "check", "bench", "chaos", "help"]


def _dev(*words: str) -> subprocess.CompletedProcess[str]:
    bare = [sys.executable, "-I", "-S", str(ROOT / "dev")]  # no site-packages, no variables of Python
    return subprocess.run([*bare, *words], env={}, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def dev() -> ModuleType:
    loader = SourceFileLoader("dev", str(ROOT / "dev"))
    spec = importlib.util.spec_from_loader("dev", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.mark.parametrize("words", [[], ["help"], ["--help"]])
def test_tells_what_it_can_do(words: list[str]) -> None:
    told = _dev(*words)
    assert told.returncode == 0
    assert all(f"./dev {command} " in told.stdout for command in COMMANDS)


@pytest.mark.parametrize("words", [["tset"], ["check", "pylint"]])
def test_names_what_it_knows_when_it_does_not_know_a_word(words: list[str]) -> None:
    told = _dev(*words)
    assert told.returncode == 2
    assert words[-1] in told.stderr
    assert ("mypy" if words[0] == "check" else "./dev test") in told.stderr


def test_says_what_to_install_where_no_python_will_do(
    dev: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="1"):
        dev.private_uv(None)
    assert "apt install python3" in capsys.readouterr().err


def test_is_made_anew_when_the_lock_file_changes_or_the_folder_moves(
    dev: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamp: dict[str, str] = {"root": str(ROOT), "made_from": dev.fingerprint(), "groups": "check dev"}
    monkeypatch.setattr(dev, "read_stamp", lambda: stamp)
    assert dev.recorded() == {"check", "dev"}
    stamp["root"] = "/elsewhere"
    assert not dev.recorded()
    stamp.update(root=str(ROOT), made_from="another lock file")
    assert not dev.recorded()
