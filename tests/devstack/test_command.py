"""`python -m devstack`: up in the background, found again, stopped; a taken port is named."""

import json
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack.keys import LOCAL
from devstack.postgres import throw_away_folder
from devstack.running import read_note

ROOT = Path(__file__).parents[2]
MIGRATION = """
    create function answer() returns int language sql as 'select 42';
    grant execute on function answer to service_role;
"""


@pytest.fixture
def project() -> Iterator[Path]:
    with throw_away_folder() as folder:
        folder.chmod(0o755)
        (folder / "supabase" / "migrations").mkdir(parents=True)
        (folder / "supabase" / "migrations" / "001_answer.sql").write_text(MIGRATION)
        yield folder


def _devstack(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "devstack", *words],
        cwd=project,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_life_in_the_background(project: Path) -> None:
    port, db_port = _free_port(), _free_port()
    ports = ["--port", str(port), "--db-port", str(db_port)]
    started = _devstack(project, "start", "--detach", *ports)
    try:
        assert started.returncode == 0, started.stderr
        assert "Applied 1 migrations" in started.stdout
        assert LOCAL.secret in started.stdout
        assert f":{port}" in _devstack(project, "status").stdout
        assert f":{port}" in _devstack(project, "start").stdout, "a second start shows the running one"
        asked = urllib.request.Request(
            f"http://127.0.0.1:{port}/rest/v1/rpc/answer", b"{}", {"apikey": LOCAL.secret}
        )
        asked.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(asked) as answered:
            assert json.load(answered) == 42
    finally:
        stopped = _devstack(project, "stop")
    assert stopped.stdout == "Stopped.\n"
    assert read_note(project / ".devstack") is None
    assert _devstack(project, "status").returncode == 1
    _changed_migration_is_told(project, ports)


def _changed_migration_is_told(project: Path, ports: list[str]) -> None:
    with (project / "supabase" / "migrations" / "001_answer.sql").open("a") as file:
        file.write("-- changed\n")
    try:
        assert "applied: 001_answer." in _devstack(project, "start", "--detach", *ports).stdout
    finally:
        _devstack(project, "stop")
    try:
        assert "Applied 1" in _devstack(project, "start", "--detach", "--fresh", *ports).stdout
    finally:
        _devstack(project, "stop")


def test_taken_port_is_named_and_another_offered(project: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = _devstack(project, "start", "--port", str(port))
    assert refused.returncode == 1
    assert f"port {port} is taken; --port " in refused.stderr


def test_bad_migration_is_named(project: Path) -> None:
    (project / "supabase" / "migrations" / "002_bad.sql").write_text("create table t (id nope)")
    refused = _devstack(project, "start", "--port", str(_free_port()), "--db-port", str(_free_port()))
    assert refused.returncode == 1
    assert '002_bad.sql: type "nope" does not exist' in refused.stderr


def test_nothing_to_stop(project: Path) -> None:
    assert _devstack(project, "stop").stdout == "Nothing runs here.\n"
