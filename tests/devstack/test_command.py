"""`python -m devstack` as a person uses it: start, look, ask, break, reset, stop."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from devstack.gateway import Gateway
from devstack.keys import LOCAL, Keys
from devstack.postgres import throw_away_folder
from devstack.running import is_held, read_note

ROOT = Path(__file__).parents[2]
MIGRATION = """
    create table answers (value int);
    grant select, insert on answers to service_role;
"""


@dataclass(frozen=True)
class Project:
    """A project's folder, and the words to start its stack on ports of its own."""

    folder: Path
    start: tuple[str, ...]

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "devstack", *words],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )

    def write(self, name: str, text: str) -> None:
        path = self.folder / "supabase" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def variables(self) -> dict[str, str]:
        told: dict[str, str] = json.loads(self("status", "-o", "json").stdout)
        return told

    def answers(self, body: bytes | None = None) -> object:
        told = self.variables()
        asked = urllib.request.Request(
            f"{told['REST_URL']}/answers",
            body,
            {"apikey": told["SECRET_KEY"], "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(asked, timeout=10) as answered:
            text = answered.read()
        return json.loads(text) if text else None


@pytest.fixture
def project() -> Iterator[Project]:
    with throw_away_folder() as folder:
        folder.chmod(0o755)
        ports = ("--port", str(_free_port()), "--db-port", str(_free_port()))
        project = Project(folder, ("start", "--detach", *ports))
        project.write("migrations/001_answers.sql", MIGRATION)
        yield project
        project("stop")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_life_in_the_background(project: Project) -> None:
    project.write("seed.sql", "set search_path = ''; insert into public.answers values (42)")
    started = project(*project.start)
    assert started.returncode == 0, started.stderr
    assert "Applied 001_answers.\nSeeded from supabase/seed.sql." in started.stdout
    assert LOCAL.secret in started.stdout
    assert project("status").stdout in started.stdout
    assert project("start").stdout == project("status").stdout, "a second start shows the running one"
    assert 'API_URL="http://127.0.0.1:' in project("status", "-o", "env").stdout
    assert project.answers() == [{"value": 42}]
    project.answers(b'{"value": 1}')
    assert project("stop").stdout == "Stopped.\n"
    assert read_note(project.folder / ".devstack") is None
    assert project("status").returncode == 1
    project.write("migrations/001_answers.sql", MIGRATION + "-- changed\n")
    again = project(*project.start).stdout
    assert "Changed since they were applied: 001_answers." in again
    assert "Seeded" not in again
    assert project.answers() == [{"value": 42}, {"value": 1}], "the data stayed"
    assert project("reset").stdout == "The database was emptied and made anew.\n"
    assert project.answers() == [{"value": 42}]
    project("stop")
    assert "with a new one" in project("reset").stdout
    assert "Seeded" in project(*project.start).stdout


def test_forgets_when_told_to(project: Project) -> None:
    assert project(*project.start, "--forget").returncode == 0
    note = read_note(project.folder / ".devstack")
    assert note is not None
    project.answers(b'{"value": 1}')
    assert project("reset").returncode == 0
    assert project.answers() == []
    project("stop")
    assert not Path(note.cluster).exists()
    assert not (project.folder / ".devstack" / "postgres").exists()


def test_logs_tell_what_was_refused_and_no_values(project: Project) -> None:
    assert "there is no" in project("logs").stderr
    project(*project.start)
    with pytest.raises(urllib.error.HTTPError):
        project.answers(b'{"value": "a-secret"}')
    assert " POST /rest/v1/answers 400, " in project("logs").stdout
    assert "a-secret" not in project("logs").stdout
    assert "invalid input syntax" in project("logs", "--postgres").stdout


def test_faults_from_the_shell(project: Project) -> None:
    project(*project.start)
    assert json.loads(project("faults").stdout)["realtime"]["deaf"] is False
    assert json.loads(project("faults", '{"realtime": {"deaf": true}}').stdout)["realtime"]["deaf"] is True
    assert json.loads(project("faults").stdout)["realtime"]["deaf"] is True
    assert json.loads(project("faults", "off").stdout)["realtime"]["deaf"] is False
    refused = project("faults", '{"realtime": {"mute": true}}')
    assert refused.returncode == 1
    assert "realtime has no fault mute" in refused.stderr


def test_acts_from_the_shell(project: Project) -> None:
    project(*project.start)
    assert "close_sockets" in json.loads(project("act").stdout)
    assert json.loads(project("act", "close_sockets", '{"code": 1001}').stdout) == {"done": "close_sockets"}
    assert "there is no act 'nope'" in project("act", "nope").stderr
    assert "close_sockets: code" in project("act", "close_sockets", '{"code": "x"}').stderr


def test_config_of_the_project(project: Project) -> None:
    secret = "a secret of this project, long enough for anybody"
    project.write("config.toml", '[api]\nport = "env(MY_PORT)"\n[auth]\njwt_secret = "env(MY_SECRET)"\n')
    (project.folder / ".env").write_text(f"MY_PORT={_free_port()} # mine\nexport MY_SECRET='{secret}'\n")
    project("start", "--detach", "--forget")
    told = project.variables()
    assert told["API_URL"].endswith((project.folder / ".env").read_text().split("=")[1].split()[0])
    assert told["SERVICE_ROLE_KEY"] == Keys(jwt_secret=secret).service_role != LOCAL.service_role
    assert project.answers() == []


def test_stop_while_a_client_listens_and_a_kill(project: Project) -> None:
    """Nothing is left behind when the process is killed: the next start takes over."""
    project(*project.start)
    note = read_note(project.folder / ".devstack")
    assert note is not None
    os.kill(note.pid, signal.SIGKILL)
    while is_held(project.folder / ".devstack"):
        pass
    assert project("stop").stdout == "Nothing runs here.\n"
    assert project(*project.start).returncode == 0
    assert project.answers() == []


def test_taken_port_is_named_and_another_offered(project: Project) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = project("start", "--port", str(port))
    assert refused.returncode == 1
    assert f"port {port} is taken; --port " in refused.stderr


def test_bad_migration_is_named(project: Project) -> None:
    project.write("migrations/002_bad.sql", "create table t (id nope)")
    refused = project(*project.start)
    assert refused.returncode == 1
    assert '002_bad.sql: type "nope" does not exist' in refused.stdout


def test_bad_seed_and_missing_extension_are_named(project: Project) -> None:
    project.write("seed.sql", "create extension pgcrypto")
    refused = project(*project.start)
    assert refused.returncode == 1
    assert "supabase/seed.sql: extension" in refused.stdout
    assert "--postgres FOLDER" in refused.stdout


def test_reset_onto_a_bad_migration_ends_with_the_reason(project: Project) -> None:
    project(*project.start)
    project.write("migrations/001_answers.sql", "nonsense")
    assert "the stack ended" in project("reset").stderr
    assert "001_answers.sql: syntax error" in (project.folder / ".devstack" / "start.log").read_text()


def test_dev_stack_serves_the_project_one_is_in(project: Project) -> None:
    """From another project's folder, whose modules must not be taken for ours."""
    (project.folder / "aiohttp.py").write_text("raise SystemExit('a stranger')")
    dev = [sys.executable, str(ROOT / "dev"), "stack"]
    started = subprocess.run([*dev, *project.start], cwd=project.folder, capture_output=True, text=True)
    assert "Applied 001_answers." in started.stdout, started
    assert project.answers() == []


def test_nothing_to_stop(project: Project) -> None:
    assert project("stop").stdout == "Nothing runs here.\n"


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.0.1", "::", "example.com"])
def test_serves_loopback_only(host: str) -> None:
    with pytest.raises(ValueError, match="loopback"):
        Gateway("postgresql://localhost/x", host=host)


def test_tokens_for_a_person(project: Project) -> None:

    project(*project.start)
    stranger = "00000000-0000-4000-8000-00000000000a"
    token = project("token", "--user", stranger, "--role", "service_role", "--expires", "60").stdout.strip()
    claims = LOCAL.verify(token)
    assert (claims["sub"], claims["role"]) == (stranger, "service_role")
    assert int(str(claims["exp"])) - int(str(claims["iat"])) == 60
    unknown = project("token", "--user", "nobody@example.com")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "nobody here has the address nobody@example.com: sign up with it first" in unknown.stderr
