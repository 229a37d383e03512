"""`pulse secrets check` says what is set, old, ending or too powerful, and shows no value whatever happens."""

import asyncio
import json
import time
from pathlib import Path

import pytest

from console.program import run
from devstack.gateway import Gateway
from devstack.keys import JWT_SECRET, LOCAL, Keys

SECRETS = {
    "PULSE_DOOR_TOKENS": "ci:the-planted-token-of-ci:10/60,shop:the-planted-token-of-shop",
    "STRIPE_SECRET_KEY": "sk_live_planted0001",
    "SUPABASE_JWT_SECRET": JWT_SECRET,
    "DATABASE_URL": "postgresql://the_user:planted-password@127.0.0.1:5432/postgres",
}
NAMES = (
    "SUPABASE_URL SUPABASE_SERVICE_ROLE_KEY PULSE_WORKER_KEY SUPABASE_PUBLISHABLE_KEY PULSE_DOOR_TOKEN"
    " SUPABASE_SERVICE_ROLE_KEY_FILE PULSE_WORKER_KEY_FILE"
).split()


class Checked:
    def __init__(self, code: int, words: list[dict[str, object]]) -> None:
        self.code = code
        self.said = {(str(one["name"]), str(one["kind"])): one for one in words}

    def of(self, name: str, key: str = "problem") -> str:
        """What is said of that name, in all its rows."""
        return " ".join(str(one[key]) for (named, _), one in self.said.items() if named == name and one[key])


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in (*NAMES, *SECRETS):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def checked(
    capsys: pytest.CaptureFixture[str], environment: pytest.MonkeyPatch, *words: str, **set_to: str
) -> Checked:
    for name, value in set_to.items():
        environment.setenv(name, value)
    code = run(["secrets", "check", "--json", *words])
    out, err = capsys.readouterr()
    run(["secrets", "check", *words])
    shown = "".join(capsys.readouterr())
    for value in (*set_to.values(), "planted", JWT_SECRET):
        if len(value) > 9 and not value.startswith(("http", "/")):
            assert value not in out + err + shown
    return Checked(code, json.loads(out))


def test_a_worker_with_its_own_key_is_told_nothing(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    key = LOCAL.mint("pulse_worker", exp=time.time() + 90 * 86400)
    one = checked(
        capsys, environment, "--offline", PULSE_WORKER_KEY=key, SUPABASE_PUBLISHABLE_KEY=LOCAL.publishable
    )
    assert one.of("PULSE_WORKER_KEY") == one.of("PULSE_WORKER_KEY", "advice") == ""
    assert one.said["PULSE_WORKER_KEY", "JWT"]["role"] == "pulse_worker"


CASES: list[tuple[dict[str, str], str, str]] = [
    ({}, "SUPABASE_SERVICE_ROLE_KEY", "is not set"),
    ({"SUPABASE_SERVICE_ROLE_KEY": LOCAL.service_role}, "SUPABASE_SERVICE_ROLE_KEY", "a legacy key"),
    ({"PULSE_WORKER_KEY": LOCAL.mint("pulse_worker")}, "PULSE_WORKER_KEY", "it ends in"),
    ({"PULSE_WORKER_KEY": LOCAL.mint("pulse_worker", exp=1)}, "PULSE_WORKER_KEY", "it has ended"),
    ({"PULSE_WORKER_KEY": LOCAL.mint("pulse_worker", exp=2**32)}, "PULSE_WORKER_KEY", "ends sooner"),
    ({"PULSE_WORKER_KEY": "planted-garbage"}, "PULSE_WORKER_KEY", "it is no key"),
    (
        {
            "PULSE_WORKER_KEY": LOCAL.mint(
                "pulse_worker", iat=time.time() - 500 * 86400, exp=time.time() + 9**7
            )
        },
        "PULSE_WORKER_KEY",
        "it is 500 d old",
    ),
    (
        {"PULSE_WORKER_KEY": LOCAL.mint("pulse_worker"), "SUPABASE_SERVICE_ROLE_KEY": LOCAL.secret},
        "SUPABASE_SERVICE_ROLE_KEY",
        "take it out of this environment",
    ),
    ({"PULSE_WORKER_KEY_FILE": "/nowhere"}, "PULSE_WORKER_KEY_FILE", "cannot be read"),
    (SECRETS, "SUPABASE_JWT_SECRET", "take it out of this environment"),
    ({"PULSE_DOOR_TOKENS": "ci:planted"}, "PULSE_DOOR_TOKENS", "can be guessed"),
]


@pytest.mark.parametrize(("set_to", "name", "told"), CASES, ids=[told for _, _, told in CASES])
def test_what_is_wrong_is_told_with_its_mend(
    set_to: dict[str, str],
    name: str,
    told: str,
    environment: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    one = checked(capsys, environment, "--offline", **set_to)
    assert told in one.of(name)
    assert one.code == 1


def test_what_would_be_safer_is_told_too(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = checked(capsys, environment, "--offline", SUPABASE_SERVICE_ROLE_KEY=LOCAL.secret, **SECRETS)
    assert "pulse worker-key" in one.of("SUPABASE_SERVICE_ROLE_KEY", "advice")
    assert "a restricted key" in one.of("STRIPE_SECRET_KEY", "advice")
    assert one.said["STRIPE_SECRET_KEY", "live key"]
    assert "pulse migrate" in one.of("DATABASE_URL", "advice")
    assert one.said["DATABASE_URL", "login"]["role"] == "the_user"


def test_a_key_file_that_everybody_may_read_is_told(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "key"
    file.write_text(LOCAL.secret)
    for mode, is_told in ((0o644, True), (0o640, False)):
        file.chmod(mode)
        one = checked(capsys, environment, "--offline", SUPABASE_SERVICE_ROLE_KEY_FILE=str(file))
        assert (f"chmod o-rwx {file}" in one.of("SUPABASE_SERVICE_ROLE_KEY_FILE")) is is_told


async def test_a_key_that_the_project_refuses_is_told(
    database: str, environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Gateway(database, keys=Keys()) as gateway:
        good = gateway.keys.secret
        settings = {"SUPABASE_URL": gateway.url, "SUPABASE_SERVICE_ROLE_KEY": good}
        one = await asyncio.to_thread(lambda: checked(capsys, environment, **settings))
        assert one.of("SUPABASE_SERVICE_ROLE_KEY") == ""
        gateway.keys.withdrawn.add(good)
        one = await asyncio.to_thread(lambda: checked(capsys, environment, **settings))
        assert "the project refuses it (HTTP 401)" in one.of("SUPABASE_SERVICE_ROLE_KEY")
        assert one.code == 1
