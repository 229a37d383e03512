"""The key of a worker: what a process says of a wrong one at its start, and the command that makes a right one."""

import asyncio
import time

import aiohttp
import pytest

from console.program import run
from devstack.gateway import Gateway
from devstack.keys import JWT_SECRET, LOCAL
from listener.config import Config, read_config
from listener.errors import ConfigError

KEY = LOCAL.mint("pulse_worker")
GOOD = {
    "SUPABASE_URL": "https://project.supabase.co",
    "PULSE_WORKER_KEY": KEY,
    "SUPABASE_PUBLISHABLE_KEY": LOCAL.publishable,
}


def problem(**changes: str) -> str:
    with pytest.raises(ConfigError) as refused:
        read_config(GOOD | changes)
    (only,) = refused.value.problems
    return only


def read(**changes: str) -> Config:
    return read_config(GOOD | changes)


@pytest.mark.parametrize("public", [LOCAL.publishable, LOCAL.anon])
def test_it_takes_the_place_of_the_service_key(public: str) -> None:
    config = read(SUPABASE_PUBLISHABLE_KEY=public)
    assert (config.key, config.apikey) == (KEY, public)


def test_it_goes_before_the_service_key_and_neither_is_ever_printed() -> None:
    config = read(SUPABASE_SERVICE_ROLE_KEY=LOCAL.secret)
    assert config.key == KEY
    assert {KEY, LOCAL.secret} <= set(config.secrets)
    assert KEY not in repr(config)


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("garbage", "is no JWT"),
        ("é.é.é", "is no JWT"),
        (LOCAL.secret, "is no JWT"),
        (LOCAL.service_role, "role 'service_role'"),
        (LOCAL.mint("authenticated"), "role 'authenticated'"),
        (LOCAL.mint("pulse_worker", exp=time.time() - 1), "has expired"),
        (LOCAL.sign({"role": "pulse_worker"}), "of no time when it ends"),
    ],
)
def test_a_wrong_key_is_told_at_start(key: str, told: str) -> None:
    said = problem(PULSE_WORKER_KEY=key)
    assert said.startswith("PULSE_WORKER_KEY")
    assert told in said
    assert "pulse worker-key" in said
    assert key not in said


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("", "is not set"),
        (LOCAL.secret, "neither a publishable key"),
        (LOCAL.service_role, "neither a publishable key"),
        (LOCAL.mint("anon", exp=time.time() - 1), "has expired"),
    ],
)
def test_the_gateway_is_shown_the_public_key_and_no_other(key: str, told: str) -> None:
    said = problem(SUPABASE_PUBLISHABLE_KEY=key)
    assert said.startswith("SUPABASE_PUBLISHABLE_KEY")
    assert told in said


def test_it_cannot_listen_to_broadcasts_and_says_so() -> None:
    assert "PULSE_LISTEN=broadcast needs the service key" in problem(PULSE_LISTEN="broadcast")


async def test_the_command_makes_a_key_that_opens_what_a_worker_needs(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SUPABASE_JWT_SECRET", JWT_SECRET)
    assert await asyncio.to_thread(run, ["worker-key", "--days", "30"]) == 0
    key = capsys.readouterr().out.strip()
    assert read(PULSE_WORKER_KEY=key).key == key
    claims = LOCAL.verify(key)
    assert claims["role"] == "pulse_worker"
    assert claims["exp"] == pytest.approx(time.time() + 30 * 86400, abs=60)

    headers = {"apikey": LOCAL.publishable, "Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(gateway.url, headers=headers) as session:
        async with session.post("/rest/v1/rpc/canary", json={"token": "t"}) as answer:
            assert answer.status == 200
        async with session.get("/rest/v1/jobs?select=id") as answer:
            assert answer.status == 403


@pytest.mark.parametrize(
    ("words", "secret", "told"),
    [((), "", "SUPABASE_JWT_SECRET is not set"), (("--days", "0"), JWT_SECRET, "--days must be from 1")],
)
def test_the_command_says_what_it_misses(
    words: tuple[str, ...],
    secret: str,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SUPABASE_JWT_SECRET", secret)
    assert run(["worker-key", *words]) == 2
    assert told in capsys.readouterr().err
