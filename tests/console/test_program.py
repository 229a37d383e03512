"""The program as a newcomer meets it: its help, its words, and what it says to wrong ones."""

import asyncio
import os
import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path

import pytest

from console.asking import operator_config
from console.command import Group
from console.program import INTERRUPTED, commands, run
from devstack.keys import LOCAL
from tests.house.tree import ROOT

COMMANDS = {one.name: one for one in commands()}


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    try:
        code = run(words)
    except SystemExit as left:
        code = int(left.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["help"]], ids=str)
def test_the_help_names_every_command_under_its_heading(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = said(capsys, *words)
    assert (code, err) == (0, "")
    headings = [out.index(f"\n{group}\n") for group in Group]
    assert headings == sorted(headings)
    for name, command in COMMANDS.items():
        assert f"  {name.ljust(max(map(len, COMMANDS)))}  {command.says}\n" in out
    assert max(map(len, out.splitlines())) <= 110


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_teaches_with_examples_that_its_own_parser_takes(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = COMMANDS[name]
    if command.forwards:
        return
    code, out, _ = said(capsys, name, "--help")
    assert code == 0
    assert f"usage: pulse {name}" in out
    assert ("--json" in out) is command.has_json
    assert said(capsys, "help", name)[1] == out
    parser = ArgumentParser()
    command.arguments(parser)
    for action in parser._actions:
        assert action.help, f"pulse {name}: {action.dest} says nothing about itself"


def test_a_wrong_word_is_answered_with_the_one_that_was_meant(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = said(capsys, "enqeue")
    assert (code, out) == (2, "")
    assert "did you mean enqueue?" in err
    for wrong in ("screen", "__main__", "program", "../worker", "worker_", ""):
        assert said(capsys, wrong)[0] == 2


def test_a_command_starts_without_loading_the_others() -> None:
    look = """if True:
        import sys
        from console.program import run
        try:
            run(["retry", "--help"])
        finally:
            print(*sys.modules, file=sys.stderr)
    """
    done = subprocess.run([sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert "console.retry" in loaded
    assert not loaded & {"console.worker", "listener.service", "realtime", "supabase"}


def test_python_m_listener_and_python_m_console_are_the_same_program() -> None:
    helps = {
        subprocess.run(
            [sys.executable, "-m", package, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
        for package in ("listener", "console")
    }
    assert len(helps) == 1
    assert "usage: pulse" in helps.pop()


def test_a_reader_that_has_seen_enough_is_no_failure() -> None:
    pulse = subprocess.Popen(
        [sys.executable, "-m", "console", "--help"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert pulse.stdout is not None
    pulse.stdout.close()
    _, err = pulse.communicate(timeout=30)
    assert err == b""


def test_what_operators_do_is_done_with_the_service_key_even_beside_that_of_a_worker(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SUPABASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("SUPABASE_SERVICE_ROLE_KEY", LOCAL.secret)
    monkeypatch.setenv("PULSE_WORKER_KEY", LOCAL.mint("pulse_worker"))
    assert operator_config().key == LOCAL.secret
    monkeypatch.delenv("SUPABASE_SERVICE_ROLE_KEY")
    monkeypatch.setenv("SUPABASE_SERVICE_ROLE_KEY_FILE", str(tmp_path / "key"))
    (tmp_path / "key").write_text(LOCAL.secret)
    assert operator_config().key == LOCAL.secret


@pytest.mark.parametrize("words", [[], ["--per", "user"], ["--at-once", "3", "--starts", "3"]], ids=str)
def test_a_limit_that_would_limit_nothing_is_asked_for_its_numbers(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is asked: `--per user` without numbers would lift the limit that the platform comes with."""
    code, _, err = said(capsys, "limits", "set", *words)
    assert code == 2
    assert "--starts" in err


async def test_a_project_that_does_not_answer_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUPABASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("SUPABASE_SERVICE_ROLE_KEY", LOCAL.secret)
    code, out, err = await asyncio.to_thread(said, capsys, "stats")
    assert (code, out) == (1, "")
    assert "http://127.0.0.1:9 did not answer. Is SUPABASE_URL right" in err


def test_a_worker_without_handlers_says_so_and_does_not_look_well(tmp_path: Path) -> None:
    (tmp_path / "handlers").mkdir()
    (tmp_path / "handlers" / "__init__.py").touch()
    settings = {"SUPABASE_URL": "http://127.0.0.1:9", "SUPABASE_SERVICE_ROLE_KEY": LOCAL.secret}
    done = subprocess.run(
        [sys.executable, "-m", "console", "worker", "--no-door"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), **settings},
        capture_output=True,
        text=True,
        check=False,
        timeout=40,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "There is no handler" in done.stderr


def test_ctrl_c_while_a_command_still_loads_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("console.program.import_module", pressed)
    assert run(["jobs"]) == INTERRUPTED
