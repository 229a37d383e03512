"""`supabase/config.toml`: what is read, what is filled in, and what is refused by name."""

from pathlib import Path

import pytest

from devstack.config import Config, read_config
from devstack.running import Refused


def _project(folder: Path, text: str) -> Path:
    (folder / "supabase").mkdir(exist_ok=True)
    (folder / "supabase" / "config.toml").write_text(text)
    return folder


def test_without_a_file_it_is_as_after_supabase_init(tmp_path: Path) -> None:
    assert read_config(tmp_path) == Config()


def test_everything_that_is_read(tmp_path: Path) -> None:
    text = """
        project_id = "mine"
        [api]
        port = 1
        schemas = ["api"]
        extra_search_path = []
        max_rows = 0
        [db]
        port = 2
        [db.seed]
        sql_paths = ["./seeds/*.sql"]
        [auth]
        jwt_expiry = 60
        enable_signup = false
        minimum_password_length = 9
        refresh_token_reuse_interval = 0
        jwt_secret = "0123456789abcdef"
        [studio]
        port = 3
    """
    assert read_config(_project(tmp_path, text)) == Config(
        1, 2, ("api",), (), None, 60, "0123456789abcdef", ("./seeds/*.sql",), False, 9, 0
    )


def test_seeds_can_be_switched_off(tmp_path: Path) -> None:
    assert read_config(_project(tmp_path, "[db.seed]\nenabled = false")).seeds == ()


def test_env_comes_from_the_process_then_from_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = _project(tmp_path, '[api]\nport = "env(PORT_A)"\n[db]\nport = "env(PORT_B)"\n')
    (project / ".env").write_text("PORT_A=1\nPORT_B=2")
    (project / "supabase" / ".env").write_text("PORT_B=3")
    assert (read_config(project).api_port, read_config(project).db_port) == (1, 3)
    monkeypatch.setenv("PORT_A", "4")
    assert read_config(project).api_port == 4


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[api", "config.toml: "),
        ("api = 1", "api must be a section"),
        ("[api]\nport = 70000", "api.port must be a number from 1 to 65535"),
        ("[api]\nport = true", "api.port must be a number"),
        ('[api]\nport = "env(NOT_THERE)"', "env(NOT_THERE)"),
        ("[api]\nschemas = [1]", "api.schemas must be a list of names"),
        ('[api]\nschemas = "public"', "api.schemas must be a list"),
        ("[api]\nmax_rows = -1", "api.max_rows must be a number from 0"),
        ("[auth]\njwt_expiry = 0", "auth.jwt_expiry must be a number from 1 to 604800"),
        ('[auth]\njwt_secret = "short"', "auth.jwt_secret must have at least 16 characters"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(Refused) as refused:
        read_config(_project(tmp_path, text))
    assert named in str(refused.value)
