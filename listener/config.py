"""What a process needs to know before it starts, read from the environment; every fault is named at once."""

import base64
import binascii
import ipaddress
import json
import os
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from listener.errors import ConfigError
from listener.resources import Setting, Settings

WHERE_KEYS = (
    "Supabase dashboard, Project Settings, API keys (locally: `python -m devstack status`, `supabase status`)"
)
SUPABASE_URL = Setting("SUPABASE_URL", WHERE_KEYS, secret=False)
SUPABASE_SERVICE_ROLE_KEY = Setting("SUPABASE_SERVICE_ROLE_KEY", WHERE_KEYS)
DOOR_TOKEN = Setting(
    "PULSE_DOOR_TOKEN",
    "any long random text that you choose; callers send it as a Bearer token",
    required=False,
)
JOURNAL = Setting(
    "PULSE_JOURNAL",
    "a folder on a disk that outlives the process, for outcomes that cannot be recorded while the database is away",
    required=False,
    secret=False,
)
LISTEN = Setting(
    "PULSE_LISTEN",
    "postgres_changes (the default), or broadcast after `select announce_by_broadcast()`",
    required=False,
    secret=False,
)
DATABASE_URL = Setting(
    "DATABASE_URL",
    "Supabase dashboard, Connect, Session pooler (locally: postgresql://postgres:postgres@127.0.0.1:54322/postgres)",
)
_WAYS_TO_LISTEN = ("postgres_changes", "broadcast")
_KEY = re.compile(r"[A-Za-z0-9._=-]+")
_SECRET_KEY = re.compile(r"sb_secret_[A-Za-z0-9_-]{8,}")
_HOST = re.compile(r"(?:[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})*\.?|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?")


@dataclass(frozen=True, slots=True)
class Config:
    """The settings of one process. Built once; nothing else reads the environment."""

    supabase_url: str
    service_key: str = field(repr=False)
    settings: Settings = field(repr=False)
    """The whole environment, for the resources and webhooks that declared what they read of it."""
    secrets: tuple[str, ...] = field(repr=False)
    """Values that must never be printed."""
    door_token: str | None = field(default=None, repr=False)
    listens_to_broadcast: bool = False
    """Whether wake-ups come as broadcasts of the database instead of as changes of its tables."""
    journal: Path | None = None
    """The folder in which outcomes outlive a process that dies while the database is away."""


@dataclass(frozen=True, slots=True)
class Timings:
    """The clockwork of listening. It adds up to the two promises that `known` and `unknown` tell."""

    ready: timedelta = timedelta(seconds=15)
    """From connecting to "ready", at the first try after having heard."""
    ready_cold: timedelta = timedelta(seconds=30)
    """The same at every further try: a server that has to start up for us first may need this long."""
    look: timedelta = timedelta(seconds=1)
    """How often the client's tasks are checked."""
    canary: timedelta = timedelta(seconds=15)
    """Between two canaries, give or take a fifth; the first follows "ready" at once."""
    canary_back: timedelta = timedelta(seconds=5)
    """How long a canary may take from the database's answer until it is heard."""
    recycle: timedelta = timedelta(hours=23)
    """The age at which an epoch is replaced, less up to a tenth: secret keys are disconnected at 24 hours."""
    close: timedelta = timedelta(seconds=1)
    """For a polite goodbye; then the socket is simply dropped."""
    again: timedelta = timedelta(milliseconds=500)
    """The wait after a first failure, give or take a half; doubles up to `again_cap`."""
    again_cap: timedelta = timedelta(seconds=2)
    """Also how long an epoch must have heard for the next failure to count as a first one. No longer: the end of an
    outage of any length is to be noticed within seconds."""
    patience: timedelta = timedelta(seconds=2)
    """The least wait after a rate limit or a refused key; up to half as long again."""

    @property
    def known(self) -> timedelta:
        """From the end of a fault that the client can know of until the next try to connect, at the most."""
        noticed = self.look + self.close + self.again * 1.5
        return max(noticed, self.again_cap * 1.5, self.patience * 1.5)

    @property
    def unknown(self) -> timedelta:
        """The same for a fault that only a lost canary tells of, from the last one that came back."""
        return self.canary * 1.2 + self.canary_back + self.close + self.again_cap * 1.5


@dataclass(frozen=True, slots=True)
class Tempo:
    """How often and how long, with the values that production uses; tests hand in quicker ones."""

    lease: timedelta = timedelta(seconds=60)
    """How long an attempt may be silent before another worker takes its job."""
    sweep: timedelta = timedelta(seconds=5)
    """The longest that a due job waits when nobody announces it."""
    grace: timedelta = timedelta(seconds=24)
    """How long running attempts may finish after SIGTERM; Heroku kills after 30 s, and the rest is for recording."""
    reconnect: timedelta = timedelta(milliseconds=500)
    """The first pause when the REST API does not answer; doubles up to ten times this."""
    listening: Timings = Timings()


def read_config(environment: Mapping[str, str], declared: Iterable[Setting] = ()) -> Config:
    """Builds the Config, or raises ConfigError that names every missing or wrong variable and where to find it."""
    # By name: a resource may well declare one of ours again.
    wanted = {setting.name: setting for setting in [*declared, SUPABASE_URL, SUPABASE_SERVICE_ROLE_KEY]}
    problems = [problem for setting in wanted.values() if (problem := setting.problem(environment))]
    url = environment.get(SUPABASE_URL.name, "").rstrip("/")
    key = environment.get(SUPABASE_SERVICE_ROLE_KEY.name, "")
    listen = environment.get(LISTEN.name) or _WAYS_TO_LISTEN[0]
    problems += filter(None, [url and _url_problem(url), key and _key_problem(key), _listen_problem(listen)])
    if problems:
        raise ConfigError(problems)
    secret_names = {setting.name for setting in [*wanted.values(), DOOR_TOKEN] if setting.secret}
    secrets = tuple(value for name in sorted(secret_names) if (value := environment.get(name)))
    journal = environment.get(JOURNAL.name)
    return Config(
        url,
        key,
        dict(environment),
        secrets,
        environment.get(DOOR_TOKEN.name) or None,
        listen == "broadcast",
        Path(journal) if journal else None,
    )


def process_environment() -> dict[str, str]:
    """The variables of this process, with surrounding blanks removed: a pasted key often ends in a newline."""
    return {name: value.strip() for name, value in os.environ.items()}


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _url_problem(url: str) -> str | None:
    wrong = f"{SUPABASE_URL.name} must look like https://your-project.supabase.co. Find it here: {WHERE_KEYS}"
    try:
        parts = urlsplit(url)
        is_origin = parts.scheme in {"http", "https"} and parts.port != 0 and "@" not in parts.netloc
    except ValueError:  # a bracket or a port that is none
        return wrong
    if not is_origin or not _HOST.fullmatch(parts.netloc) or not url.startswith(parts.scheme):
        return wrong
    if parts.path or parts.query or "?" in url or "#" in url:
        _, _, rest = url.partition(parts.netloc)
        return f"{SUPABASE_URL.name} must end after the host: leave {rest} out."
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        return f"{SUPABASE_URL.name} must begin with https:// unless it is this machine: each call carries the key."
    return None


def _listen_problem(listen: str) -> str | None:
    if listen in _WAYS_TO_LISTEN:
        return None
    return f"{LISTEN.name} must be one of {', '.join(_WAYS_TO_LISTEN)}, not {listen[:40]!r}."


def _key_problem(key: str) -> str | None:
    """Checks what can be known without asking: is it a service key at all, of either format, and still valid?"""
    name = SUPABASE_SERVICE_ROLE_KEY.name
    sendable = _KEY.fullmatch(key) is not None
    if _SECRET_KEY.fullmatch(key):
        return None
    if key.startswith("sb_publishable_"):
        return f"{name} holds the publishable key, which may not run jobs. Take the secret key: {WHERE_KEYS}"
    claims = _claims(key) if sendable else None
    if claims is None:
        return f"{name} is neither a secret key (sb_secret_…) nor a service_role JWT (eyJ…). Find it here: {WHERE_KEYS}"
    if claims.get("role") != "service_role":
        return f"{name} holds the key of the role {claims.get('role')!r}. Take the service_role key: {WHERE_KEYS}"
    expires = claims.get("exp")
    if isinstance(expires, int | float) and expires < time.time():
        return f"{name} has expired. Take a fresh one: {WHERE_KEYS}"
    return None


def _claims(token: str) -> dict[str, object] | None:
    """The claims of a JWT, unverified (the server verifies), or None when it is none."""
    pieces = token.split(".")
    if len(pieces) != 3:
        return None
    try:
        claims: object = json.loads(base64.urlsafe_b64decode(pieces[1] + "=" * (-len(pieces[1]) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return None
    return claims if isinstance(claims, dict) else None  # pyright: ignore[reportUnknownVariableType] - JSON keys are text
