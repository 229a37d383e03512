"""A process that cannot work says so at its start: everything at once, with the mend, and without a secret."""

import time
from contextlib import suppress
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devstack.keys import LOCAL
from listener.config import Tempo, is_loopback, process_environment, read_config
from listener.errors import ConfigError
from listener.resources import Setting

URL = "https://project.supabase.co"
GOOD = {"SUPABASE_URL": URL, "SUPABASE_SERVICE_ROLE_KEY": LOCAL.service_role}


def problems(environment: dict[str, str], *declared: Setting) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as refused:
        read_config(environment, declared)
    return refused.value.problems


def test_everything_that_is_missing_is_told_at_once_with_where_to_find_it() -> None:
    stripe = Setting("STRIPE_SECRET_KEY", "Stripe dashboard")
    optional = Setting("STRIPE_API_BASE", "for tests", required=False)
    told = problems({}, stripe, optional)
    assert [text.split(" ")[0] for text in told] == [
        "STRIPE_SECRET_KEY",
        "SUPABASE_URL",
        "SUPABASE_SERVICE_ROLE_KEY",
    ]
    assert all("Find it here: " in text for text in told)


def test_a_missing_value_and_a_wrong_one_are_told_together() -> None:
    told = problems({"SUPABASE_URL": "http://example.com"})
    assert any("SUPABASE_SERVICE_ROLE_KEY is not set" in text for text in told)
    assert any("https://" in text for text in told)


@pytest.mark.parametrize("key", [LOCAL.service_role, LOCAL.secret, LOCAL.mint("service_role")])
@pytest.mark.parametrize(
    "url", [URL, URL + "/", "http://127.0.0.1:54321", "http://localhost:54321", "http://[::1]:1"]
)
def test_good_ones(key: str, url: str) -> None:
    config = read_config({"SUPABASE_URL": url, "SUPABASE_SERVICE_ROLE_KEY": key})
    assert (config.supabase_url, config.key) == (url.rstrip("/"), key)
    assert key in config.secrets
    assert key not in repr(config)


@pytest.mark.parametrize(
    ("key", "told"),
    [
        (LOCAL.anon, "role 'anon'"),
        (LOCAL.publishable, "publishable"),
        (LOCAL.mint("service_role", exp=time.time() - 60), "has expired"),
        (LOCAL.mint("authenticated"), "role 'authenticated'"),
        ("garbage", "neither"),
        ("eyJ.eyJ.eyJ", "neither"),
        ("a.b.c", "neither"),
        ("é.é.é", "neither"),
        ("eyJhbGciOiJub25lIn0.W10.x", "neither"),  # its claims are a list
    ],
)
def test_a_key_of_the_wrong_kind(key: str, told: str) -> None:
    (text,) = problems({**GOOD, "SUPABASE_SERVICE_ROLE_KEY": key})
    assert told in text
    assert "SUPABASE_SERVICE_ROLE_KEY" in text
    assert key not in text


@pytest.mark.parametrize(
    "url",
    [
        "project.supabase.co",
        "ftp://project.supabase.co",
        "https://",
        "http://project.supabase.co",
        f"{URL}/rest/v1",
        f"{URL}?x=1",
        "http://[::1",
        "https://host:port",
        "https://user:password@project.supabase.co",
        "HTTPS://project.supabase.co",
        f"{URL}#",
        f"{URL}?",
        "https://pro ject.supabase.co",
        "https://project\\.supabase.co",
        f"https://{'a' * 64}.supabase.co",
        "https://project..supabase.co",
    ],
)
def test_a_url_of_the_wrong_form(url: str) -> None:
    (text,) = problems({**GOOD, "SUPABASE_URL": url})
    assert "SUPABASE_URL" in text
    assert "password" not in text


@given(url=st.text(max_size=40), key=st.text(max_size=40) | st.just(LOCAL.service_role))
def test_no_text_breaks_the_reading(url: str, key: str) -> None:
    with suppress(ConfigError):
        config = read_config({"SUPABASE_URL": url, "SUPABASE_SERVICE_ROLE_KEY": key})
        assert config.supabase_url.startswith("http")


@given(rest=st.text(min_size=1, max_size=20))
def test_no_strange_key_gets_through(rest: str) -> None:
    """What cannot stand in a header would break the first call instead of the start."""
    try:
        config = read_config({**GOOD, "SUPABASE_SERVICE_ROLE_KEY": f"sb_secret_{rest}"})
    except ConfigError:
        return
    assert config.key.isascii()
    assert config.key.isprintable()
    assert " " not in config.key


def test_declared_secrets_are_secrets_and_the_rest_is_not() -> None:
    stripe = Setting("STRIPE_SECRET_KEY", "there")
    base = Setting("STRIPE_API_BASE", "there", secret=False)
    door = {"PULSE_DOOR_TOKEN": "a long token"}
    config = read_config(
        {**GOOD, **door, "STRIPE_SECRET_KEY": "sk_x", "STRIPE_API_BASE": "base", "OTHER": "o"}, [stripe, base]
    )
    assert set(config.secrets) == {"sk_x", "a long token", LOCAL.service_role}
    assert [one.value for one in config.door_tokens] == ["a long token"]
    assert config.settings["OTHER"] == "o"


def test_what_looks_secret_is_secret_whoever_reads_it() -> None:
    others = {
        "BROKER_API_KEY": "broker-key-0001",
        "SMTP_PASSWORD": "a password",
        "SESSION_TOKENS": "one,two,three",
        "DATABASE_URL": "postgresql://user:pass%2Fword@host/db",
        "KEY": "short",
        "MONKEY": "no key at all",
        "PWD": "/a/working/folder",
    }
    config = read_config({**GOOD, **others})
    assert {"broker-key-0001", "a password", "one,two,three", "pass%2Fword", "pass/word"} < set(
        config.secrets
    )
    assert set(config.secrets).isdisjoint({"short", "no key at all", "/a/working/folder"})


def test_a_token_that_can_be_guessed_is_refused_and_not_quoted() -> None:
    with pytest.raises(ConfigError, match="can be guessed") as raised:
        read_config({**GOOD, "PULSE_DOOR_TOKEN": "letmein"})
    assert "letmein" not in str(raised.value)


def test_what_is_wrong_with_a_setting_is_told_without_its_value() -> None:
    for name, value in (
        ("SUPABASE_URL", f"{URL}/?apikey=planted-key"),
        ("SUPABASE_URL", "https://user:planted-key@example.com"),
        ("SUPABASE_SERVICE_ROLE_KEY", "planted-key"),
        ("PULSE_LISTEN", "planted-key"),
    ):
        with pytest.raises(ConfigError) as raised:
            read_config({**GOOD, name: value})
        assert name in str(raised.value)
        assert "planted-key" not in str(raised.value)


def test_an_empty_door_token_is_none() -> None:
    assert read_config({**GOOD, "PULSE_DOOR_TOKEN": ""}).door_tokens == []


def test_blanks_around_a_pasted_value_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPABASE_URL", f" {URL}\n")
    assert process_environment()["SUPABASE_URL"] == URL


@pytest.mark.parametrize(
    ("host", "answer"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.0.1", False),
        ("localhost.example.com", False),
        ("", False),
    ],
)
def test_loopback(host: str, answer: bool) -> None:
    assert is_loopback(host) is answer


def test_the_clockwork_of_listening_keeps_what_is_promised() -> None:
    """Hearing again within 5 s of the end of a fault that can be known, and within 30 s of any other's."""
    call, opening = (
        timedelta(seconds=1),
        timedelta(seconds=2),
    )  # generous; a cold server was ready after 1.6 s
    listening = Tempo().listening
    assert listening.known + opening <= timedelta(seconds=5)
    assert listening.unknown + call + opening <= timedelta(seconds=30)
    # A server that has to start up for us, a busy one, and a key that is cut once a day.
    assert listening.ready >= timedelta(seconds=12)
    assert listening.canary_back >= timedelta(seconds=5)
    assert listening.recycle < timedelta(hours=24)
