"""What a process needs to know before it starts, read from the environment; every fault is named at once."""

import ipaddress
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

from listener.errors import ConfigError
from listener.keys import WHERE_KEYS, publishable_key_problem, service_key_problem, worker_key_problem
from listener.resources import Setting, Settings

SUPABASE_URL = Setting("SUPABASE_URL", WHERE_KEYS, secret=False)
SUPABASE_SERVICE_ROLE_KEY = Setting("SUPABASE_SERVICE_ROLE_KEY", WHERE_KEYS)
WORKER_KEY = Setting(
    "PULSE_WORKER_KEY",
    "`pulse worker-key` makes it; used instead of the service key, it may do no more than a worker does",
    required=False,
)
PUBLISHABLE_KEY = Setting("SUPABASE_PUBLISHABLE_KEY", WHERE_KEYS, secret=False)
JWT_SECRET = Setting(
    "SUPABASE_JWT_SECRET", "Supabase dashboard, Project Settings, JWT Keys (locally: `supabase status`)"
)
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
_SECRETS = (SUPABASE_SERVICE_ROLE_KEY, WORKER_KEY, JWT_SECRET, DOOR_TOKEN)
"""Whatever a process needs of them: what is there is never printed."""
_SECRET_WORDS = {
    "KEY",
    "KEYS",
    "APIKEY",
    "SECRET",
    "SECRETS",
    "TOKEN",
    "TOKENS",
    "PASSWORD",
    "PASSWD",
    "PASS",
    "DSN",
}
_SHORTEST_SECRET = 10
_SHORTEST_TOKEN = 12
_PASSWORD_IN_URL = re.compile(r"://[^/\s:@]*:([^/\s@]{4,})@")
_WAYS_TO_LISTEN = ("postgres_changes", "broadcast")
_HOST = re.compile(r"(?:[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})*\.?|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?")


@dataclass(frozen=True, slots=True)
class Config:
    """The settings of one process. Built once; nothing else reads the environment."""

    supabase_url: str
    key: str = field(repr=False)
    """Says who we are: the service key, or the one of a worker."""
    settings: Settings = field(repr=False)
    """The whole environment, for the resources and webhooks that declared what they read of it."""
    secrets: tuple[str, ...] = field(repr=False)
    """Values that must never be printed."""
    door_token: str | None = field(default=None, repr=False)
    listens_to_broadcast: bool = False
    """Whether wake-ups come as broadcasts of the database instead of as changes of its tables."""
    journal: Path | None = None
    """The folder in which outcomes outlive a process that dies while the database is away."""
    apikey: str | None = None
    """What the gateway of the project wants to see beside the key of a worker: the publishable one."""


@dataclass(frozen=True, slots=True)
class Timings:
    """The clockwork of listening. It adds up to the two promises that `known` and `unknown` tell."""

    ready: timedelta = timedelta(seconds=15)
    """From connecting to "Subscribed", at the first try after having heard."""
    ready_cold: timedelta = timedelta(seconds=30)
    """The same at every further try: a server that has to start up for us first may need this long."""
    look: timedelta = timedelta(seconds=1)
    """How often the client's tasks are checked."""
    canary: timedelta = timedelta(seconds=15)
    """Between two canaries, give or take a fifth; the first follows "Subscribed" at once."""
    canary_back: timedelta = timedelta(seconds=5)
    """How long the database may take to answer a canary, and as long again the canary to be heard."""
    recycle: timedelta = timedelta(hours=23)
    """The age at which an epoch is replaced, less up to a tenth: secret keys are disconnected at 24 hours."""
    close: timedelta = timedelta(milliseconds=500)
    """For a polite goodbye; then the socket is simply dropped."""
    again: timedelta = timedelta(milliseconds=500)
    """The wait after a first failure, give or take a half; doubles up to `again_cap`."""
    again_cap: timedelta = timedelta(seconds=1.5)
    """Also how long an epoch must have heard for the next failure to count as a first one. No longer: the end of an
    outage of any length is to be noticed within seconds."""
    patience: timedelta = timedelta(seconds=1.5)
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
    presence: timedelta = timedelta(seconds=15)
    """How often a process says how it is; up to a fifth longer."""
    listening: Timings = Timings()

    @property
    def calm_after_outage(self) -> timedelta:
        """How long nobody sweeps when the database is back, so that all can renew first."""
        return self.reconnect * 10 + self.sweep


def read_config(environment: Mapping[str, str], declared: Iterable[Setting] = ()) -> Config:
    """Builds the Config, or raises ConfigError that names every missing or wrong variable and where to find it."""
    as_worker = bool(environment.get(WORKER_KEY.name))
    needed = [WORKER_KEY, PUBLISHABLE_KEY] if as_worker else [SUPABASE_SERVICE_ROLE_KEY]
    # By name: a resource may well declare one of ours again.
    wanted = {setting.name: setting for setting in [*declared, SUPABASE_URL, *needed]}
    problems = [problem for setting in wanted.values() if (problem := setting.problem(environment))]
    url = environment.get(SUPABASE_URL.name, "").rstrip("/")
    key, apikey = (environment.get(setting.name, "") for setting in (needed[0], needed[-1]))
    listen = environment.get(LISTEN.name) or _WAYS_TO_LISTEN[0]
    problems += filter(None, [url and _url_problem(url), *_key_problems(key, apikey, as_worker=as_worker)])
    door_token = environment.get(DOOR_TOKEN.name) or None
    problems += filter(None, [_listen_problem(listen, as_worker=as_worker), _token_problem(door_token)])
    if problems:
        raise ConfigError(problems)
    declared_secrets = [setting.name for setting in [*wanted.values(), *_SECRETS] if setting.secret]
    journal = environment.get(JOURNAL.name)
    return Config(
        url,
        key,
        dict(environment),
        secrets_in(environment, declared_secrets),
        door_token,
        listen == "broadcast",
        Path(journal) if journal else None,
        apikey if as_worker else None,
    )


def secrets_in(environment: Mapping[str, str], declared: Iterable[str] = ()) -> tuple[str, ...]:
    """What must never be printed: what was declared as secret, and whatever looks so by its name, or in its URL.

    A process also holds the keys of what it does not load, and a handler may read a variable that nobody declared.
    """
    named = {name for name, value in environment.items() if _looks_secret(name, value)}
    found = {environment.get(name, "") for name in [*declared, *named]}
    for value in environment.values():
        if match := _PASSWORD_IN_URL.search(value):
            found |= {match[1], unquote(match[1])}
    return tuple(sorted(found - {""}))


def _looks_secret(name: str, value: str) -> bool:
    return len(value) >= _SHORTEST_SECRET and not _SECRET_WORDS.isdisjoint(name.upper().split("_"))


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
        # The rest is not quoted: there may be a key in it.
        return f"{SUPABASE_URL.name} must end after the host: leave out what follows {parts.netloc}."
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        return f"{SUPABASE_URL.name} must begin with https:// unless it is this machine: each call carries the key."
    return None


def _key_problems(key: str, apikey: str, *, as_worker: bool) -> list[str | None]:
    if not as_worker:
        return [service_key_problem(SUPABASE_SERVICE_ROLE_KEY.name, key) if key else None]
    public = publishable_key_problem(PUBLISHABLE_KEY.name, apikey) if apikey else None
    return [worker_key_problem(WORKER_KEY.name, key), public]


def _token_problem(token: str | None) -> str | None:
    if token is None or len(token) >= _SHORTEST_TOKEN:
        return None
    return f"{DOOR_TOKEN.name} is shorter than {_SHORTEST_TOKEN} letters, and can be guessed. Take a long random text."


def _listen_problem(listen: str, *, as_worker: bool) -> str | None:
    if listen not in _WAYS_TO_LISTEN:
        return f"{LISTEN.name} must be one of {', '.join(_WAYS_TO_LISTEN)}."
    if listen == "broadcast" and as_worker:
        return (
            f"{LISTEN.name}=broadcast needs the service key: private channels open for roles that Supabase lets in."
            f" With {WORKER_KEY.name} leave it out."
        )
    return None
