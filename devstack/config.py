"""What a project's `supabase/config.toml` says to this stack, with `env(NAME)` filled in from `.env` files.

The file is the one of the Supabase CLI; what it configures and this stack does not have is passed over.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar, cast

from dotenv import dotenv_values

from devstack.keys import JWT_SECRET
from devstack.running import Refused

FILE: Final = Path("supabase", "config.toml")
# The first that names a variable wins; the process's own environment goes before all of them.
ENV_FILES: Final = ("supabase/.env.local", "supabase/.env", ".env.local", ".env")
SHORTEST_SECRET: Final = 16  # characters; the CLI refuses shorter ones too
SHORTEST_PASSWORD: Final = 6  # as Auth itself insists
LARGEST_PORT: Final = 65535
LONGEST_JWT: Final = 604_800  # seconds, a week, as the CLI documents it
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Config:
    """One project's settings; the defaults are those of `supabase init`."""

    api_port: int = 54321
    db_port: int = 54322
    schemas: tuple[str, ...] = ("public", "graphql_public")
    extra_search_path: tuple[str, ...] = ("public", "extensions")
    max_rows: int | None = 1000  # of one answer; None where the file says 0
    jwt_expiry: int = 3600  # seconds that an access token of Auth is good for
    jwt_secret: str = JWT_SECRET
    seeds: tuple[str, ...] = ("./seed.sql",)  # patterns, relative to the folder `supabase`
    enable_signup: bool = True
    minimum_password_length: int = 6
    refresh_token_reuse_interval: int = 10  # seconds in which a used refresh token may be used once more


def read_config(project: Path) -> Config:
    """The settings of the project in this folder; raises Refused, naming file and option."""
    path = project / FILE
    try:
        text = path.read_text()
    except FileNotFoundError:
        return Config()
    try:
        options: dict[str, object] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Refused(f"{FILE}: {error}") from error
    return _Reader(options, _environment(project)).config()


@dataclass(frozen=True, slots=True)
class _Reader:
    options: Mapping[str, object]
    environment: Mapping[str, str]

    def config(self) -> Config:
        usual = Config()
        max_rows = self._number("api.max_rows", usual.max_rows or 0)
        seeded = self._get("db.seed.enabled", bool, default=True)
        return Config(
            api_port=self._port("api.port", usual.api_port),
            db_port=self._port("db.port", usual.db_port),
            schemas=self._names("api.schemas", usual.schemas),
            extra_search_path=self._names("api.extra_search_path", usual.extra_search_path),
            max_rows=max_rows or None,
            jwt_expiry=self._number("auth.jwt_expiry", usual.jwt_expiry, at_least=1, at_most=LONGEST_JWT),
            jwt_secret=self._secret(),
            enable_signup=self._get("auth.enable_signup", bool, default=usual.enable_signup),
            minimum_password_length=self._number(
                "auth.minimum_password_length", usual.minimum_password_length, at_least=SHORTEST_PASSWORD
            ),
            refresh_token_reuse_interval=self._number(
                "auth.refresh_token_reuse_interval", usual.refresh_token_reuse_interval
            ),
            seeds=self._names("db.seed.sql_paths", usual.seeds) if seeded else (),
        )

    def _port(self, name: str, default: int) -> int:
        return self._number(name, default, at_least=1, at_most=LARGEST_PORT)

    def _number(self, name: str, default: int, *, at_least: int = 0, at_most: int = 2**31 - 1) -> int:
        found = self._found(name)
        if isinstance(found, str) and found.isascii() and found.isdigit():  # env(…) can only give text
            found = int(found)
        if found is None:
            return default
        if isinstance(found, bool) or not isinstance(found, int) or not at_least <= found <= at_most:
            raise Refused(f"{FILE}: {name} must be a number from {at_least} to {at_most}")
        return found

    def _names(self, name: str, default: tuple[str, ...]) -> tuple[str, ...]:
        listed = cast("list[object]", self._get(name, list, default=list(default)))
        texts = tuple(self._filled(each) for each in listed if isinstance(each, str) and each)
        if len(texts) != len(listed):
            raise Refused(f'{FILE}: {name} must be a list of names, for example ["public"]')
        return texts

    def _secret(self) -> str:
        secret = self._get("auth.jwt_secret", str, default=JWT_SECRET)
        if len(secret) < SHORTEST_SECRET:
            raise Refused(f"{FILE}: auth.jwt_secret must have at least {SHORTEST_SECRET} characters")
        return secret

    def _get(self, name: str, kind: type[T], *, default: T) -> T:
        found = self._found(name)
        if found is None:
            return default
        if not isinstance(found, kind):
            raise Refused(f"{FILE}: {name} must be a {kind.__name__}")
        return found

    def _found(self, name: str) -> object:
        section, _, last = name.rpartition(".")
        at: Mapping[str, object] = self.options
        for part in section.split("."):
            inner = at.get(part, {})
            if not isinstance(inner, dict):
                raise Refused(f"{FILE}: {section} must be a section")
            at = cast("dict[str, object]", inner)
        found = at.get(last)
        return self._filled(found) if isinstance(found, str) else found

    def _filled(self, text: str) -> str:
        named = re.fullmatch(r"env\((\w+)\)", text.strip())
        if named is None:
            return text
        if named[1] not in self.environment:
            raise Refused(f"{FILE} asks for env({named[1]}): set it, or write it into .env")
        return self.environment[named[1]]


def _environment(project: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in reversed(ENV_FILES):
        found |= {key: value for key, value in dotenv_values(project / name).items() if value is not None}
    return found | os.environ
