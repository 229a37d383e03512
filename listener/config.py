"""What a process needs to know before it starts, read from the environment; every fault is named at once."""

import ipaddress
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

from listener.destinations import SECRETS as SECRETS_OF_EXPORTS
from listener.destinations import Destinations, destinations_in
from listener.errors import ConfigError
from listener.keyring import FILE, PUBLIC_NAME, SERVICE_NAME, WORKER_NAME, read_keys
from listener.keys import WHERE_KEYS
from listener.resources import Setting, Settings
from listener.tokens import ONE, SEVERAL, Token, read_tokens

SUPABASE_URL = Setting("SUPABASE_URL", WHERE_KEYS, secret=False)
SUPABASE_SERVICE_ROLE_KEY = Setting(SERVICE_NAME, WHERE_KEYS)
WORKER_KEY = Setting(
    WORKER_NAME,
    "`pulse worker-key` makes it; used instead of the service key, it may do no more than a worker does",
    required=False,
)
PUBLISHABLE_KEY = Setting(PUBLIC_NAME, WHERE_KEYS, secret=False)
JWT_SECRET = Setting(
    "SUPABASE_JWT_SECRET", "Supabase dashboard, Project Settings, JWT Keys (locally: `supabase status`)"
)
DOOR_TOKEN = Setting(
    ONE,
    "any long random text that you choose; callers send it as a Bearer token",
    required=False,
)
DOOR_TOKENS = Setting(
    SEVERAL, "name:token for each caller, with commas between (docs/doors.md)", required=False
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
_SECRETS = (SUPABASE_SERVICE_ROLE_KEY, WORKER_KEY, JWT_SECRET, DOOR_TOKEN, DOOR_TOKENS, *SECRETS_OF_EXPORTS)
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
    door_tokens: Sequence[Token] = ()
    listens_to_broadcast: bool = False
    """Whether wake-ups come as broadcasts of the database instead of as changes of its tables."""
    journal: Path | None = None
    """The folder in which outcomes outlive a process that dies while the database is away."""
    apikey: str | None = None
    """What the gateway of the project wants to see beside the key of a worker: the publishable one."""
    key_name: str = SERVICE_NAME
    """The variable that the key comes from."""
    environment: Settings = field(default_factory=dict[str, str], repr=False)
    """As it was given, with the names of files: what keys and tokens are read from again."""
    destinations: Destinations = field(default=Destinations(), repr=False)
    """Where numbers and spans are sent."""


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
    progress: timedelta = timedelta(seconds=1)
    """How often what handlers say of their progress is sent."""
    export: timedelta = timedelta(seconds=10)
    """Between two deliveries of numbers to whoever wants them sent; Datadog's agent gathers as long."""
    listening: Timings = Timings()

    @property
    def calm_after_outage(self) -> timedelta:
        """How long nobody sweeps when the database is back, so that all can renew first."""
        return self.reconnect * 10 + self.sweep


def read_config(environment: Mapping[str, str], declared: Iterable[Setting] = ()) -> Config:
    """Builds the Config, or raises ConfigError that names every missing or wrong variable and where to find it."""
    found = read_keys(environment)
    first = found.keys[0] if found.keys else None
    as_worker = any(environment.get(name) for name in (WORKER_NAME, WORKER_NAME + FILE))
    settings = dict(environment)
    if first is not None:
        settings |= (
            {WORKER_NAME: first.value, PUBLIC_NAME: first.apikey}
            if as_worker
            else {SERVICE_NAME: first.value}
        )
    # By name: a resource may well declare one of ours again.
    wanted = {setting.name: setting for setting in [*declared, SUPABASE_URL]}
    keys = {WORKER_NAME, PUBLIC_NAME} if as_worker else {SERVICE_NAME}
    problems = [
        problem
        for name, setting in wanted.items()
        if name not in keys and (problem := setting.problem(settings))
    ]
    url = environment.get(SUPABASE_URL.name, "").rstrip("/")
    listen = environment.get(LISTEN.name) or _WAYS_TO_LISTEN[0]
    problems += filter(None, [url and _url_problem(url), *(found.problems if first is None else ())])
    door = read_tokens(environment)
    problems += filter(None, [_listen_problem(listen, as_worker=as_worker), *door.problems])
    destinations, problems_of_exports = destinations_in(environment)
    problems += problems_of_exports
    if problems or first is None:
        raise ConfigError(problems)
    declared_secrets = [setting.name for setting in [*wanted.values(), *_SECRETS] if setting.secret]
    values = {*(key.value for key in found.keys), *(token.value for token in door.tokens)}
    journal = environment.get(JOURNAL.name)
    return Config(
        url,
        first.value,
        settings,
        tuple(sorted({*secrets_in(settings, declared_secrets), *values})),
        door.tokens,
        listen == "broadcast",
        Path(journal) if journal else None,
        first.apikey if as_worker else None,
        first.name,
        dict(environment),
        destinations,
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


def _listen_problem(listen: str, *, as_worker: bool) -> str | None:
    if listen not in _WAYS_TO_LISTEN:
        return f"{LISTEN.name} must be one of {', '.join(_WAYS_TO_LISTEN)}."
    if listen == "broadcast" and as_worker:
        return (
            f"{LISTEN.name}=broadcast needs the service key: private channels open for roles that Supabase lets in."
            f" With {WORKER_KEY.name} leave it out."
        )
    return None
