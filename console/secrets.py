"""`pulse secrets check`: what each configured key and secret is, may do and when it ends; never what it says."""

import re
import stat
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

from console.command import DONE, NOT_DONE, Command, Group
from console.screen import Cell, Colour, Column, Screen
from console.words import span
from listener.config import DATABASE_URL, JWT_SECRET, SUPABASE_URL, process_environment
from listener.errors import ConfigError, StoreError, StoreRefused
from listener.keyring import FILE, PUBLIC_NAME, SERVICE_NAME, WORKER_NAME, Key, read_keys, words_of
from listener.keys import facts_of
from listener.registry import load
from listener.resources import Setting
from listener.store import connected
from listener.tokens import ONE, SEVERAL, read_tokens

_KEYS = (SERVICE_NAME, WORKER_NAME, PUBLIC_NAME)
_OURS = {*_KEYS, ONE, SEVERAL, JWT_SECRET.name, DATABASE_URL.name, SUPABASE_URL.name}
_OLD = timedelta(days=400)
_LEGACY = timedelta(days=3 * 365)
_STRIPE = re.compile(r"(sk|rk)_(live|test)_")
_COLUMNS = (
    Column("name"),
    Column("kind"),
    Column("may act as", bends=True),
    Column("made", right=True),
    Column("ends", right=True),
    Column("is"),
)


@dataclass(frozen=True, slots=True)
class Looked:
    """One key or secret, without its value."""

    name: str
    kind: str
    role: str | None = None
    made_at: datetime | None = None
    ends_at: datetime | None = None
    problem: str | None = None
    """What is wrong, with the mend: makes the exit code 1."""
    advice: str | None = None
    """What would be safer, with the mend."""


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("what", metavar="check", choices=["check"], help="check: look at all of them")
    parser.add_argument(
        "--days", type=int, default=14, metavar="N", help="say so when a key ends within N days (default: 14)"
    )
    parser.add_argument(
        "--offline", action="store_true", help="do not ask the project whether it takes the keys"
    )


async def _run(arguments: Namespace, screen: Screen) -> int:
    environment, now = process_environment(), datetime.now(UTC)
    found = [*keys_in(environment, now, timedelta(days=arguments.days)), *_doors(environment)]
    found += _beside(environment)
    found += _others(environment)
    if not arguments.offline:
        screen.progress("asking the project")
        found += await _refused(environment)
    screen.answer([{**asdict(one), **_times(one)} for one in found])
    screen.table(_COLUMNS, [_row(one, now) for one in found])
    for one in found:
        if told := one.problem or one.advice:
            screen.say()
            screen.say(f"{one.name}: {told.removeprefix(f'{one.name}: ')}", _colour(one))
    return NOT_DONE if any(one.problem for one in found) else DONE


def keys_in(environment: Mapping[str, str], now: datetime, soon: timedelta) -> Iterator[Looked]:
    """The keys to the project."""
    both = all(environment.get(name) or environment.get(name + FILE) for name in (SERVICE_NAME, WORKER_NAME))
    needed = {
        name for name in (SERVICE_NAME, WORKER_NAME) if environment.get(name) or environment.get(name + FILE)
    }
    if not needed:
        yield Looked(SERVICE_NAME, "not set", problem=" ".join(read_keys(environment).problems))
    wrong = read_keys(environment).problems
    for name in _KEYS:
        source, values, unreadable = words_of(environment, name)
        if unreadable is not None:
            yield Looked(source, "unreadable", problem=unreadable)
        for value in values:
            facts = facts_of(value)
            ended = next((text for text in wrong if text.startswith(f"{source} ")), None)
            problem = _key_problem(name, value, now, soon, both=both) or ended
            advice = _key_advice(name) if problem is None else None
            yield Looked(source, facts.kind, facts.role, facts.made_at, facts.ends_at, problem, advice)
        if source != name and values and name != PUBLIC_NAME:
            yield from _file(source, environment[source])


def _key_problem(name: str, value: str, now: datetime, soon: timedelta, *, both: bool) -> str | None:
    facts = facts_of(value)
    make = (
        "`pulse worker-key` makes the next one"
        if name == WORKER_NAME
        else "take the next one from the dashboard"
    )
    if facts.kind == "no key":
        return f"it is no key: {make}."
    if facts.ends_at is not None and facts.ends_at <= now:
        return f"it has ended: {make}."
    if facts.ends_at is not None and facts.ends_at <= now + soon:
        return f"it ends in {span(facts.ends_at - now)}: {make}."
    if name == SERVICE_NAME and both:
        return f"not used beside {WORKER_NAME}, and may do everything: take it out of this environment."
    if name == SERVICE_NAME and facts.kind == "JWT":
        return (
            "a legacy key: it can be withdrawn only with all others. Make a secret key (sb_secret_…) instead."
        )
    if facts.made_at is not None and now - facts.made_at > _OLD and name != PUBLIC_NAME:
        return f"it is {span(now - facts.made_at)} old: {make}."
    if name == WORKER_NAME and facts.ends_at is not None and facts.ends_at - now > _LEGACY:
        return f"it is good for {span(facts.ends_at - now)}: make one that ends sooner, `pulse worker-key --days 90`."
    return None


def _key_advice(name: str) -> str | None:
    if name != SERVICE_NAME:
        return None
    return (
        "may read and write everything. A worker needs less: `pulse worker-key --days 90`, see docs/keys.md."
    )


def _file(name: str, path: str) -> Iterator[Looked]:
    mode = Path(path).stat().st_mode
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        yield Looked(name, "file", problem=f"everybody on this machine may read it: chmod o-rwx {path}")


def _doors(environment: Mapping[str, str]) -> Iterator[Looked]:
    found = read_tokens(environment)
    for problem in found.problems:
        yield Looked(SEVERAL, "door token", problem=problem)
    for token in found.tokens:
        limit = token.limit and f"{token.limit.calls} calls in {span(token.limit.per)}"
        advice = None if limit else f"without a limit: name:token:100/60 in {SEVERAL} sets one."
        yield Looked(
            ONE if token.name == "door" else SEVERAL,
            "door token",
            f"{token.name}, {limit or 'any'}",
            advice=advice,
        )


def _beside(environment: Mapping[str, str]) -> Iterator[Looked]:
    """What no process needs that runs jobs."""
    if environment.get(JWT_SECRET.name):
        yield Looked(
            JWT_SECRET.name,
            "signing secret",
            "anybody",
            problem="signs keys of any role; only `pulse worker-key` needs it: take it out of this environment.",
        )
    if url := environment.get(DATABASE_URL.name):
        advice = "only `pulse migrate` needs it: leave it out of the environment of `pulse worker` and `pulse web`."
        yield Looked(DATABASE_URL.name, "login", _user_of(url), advice=advice)


def _user_of(url: str) -> str | None:
    try:
        return urlsplit(url).username
    except ValueError:
        return None


def _others(environment: Mapping[str, str]) -> Iterator[Looked]:
    """The secrets that handlers and webhooks declare."""
    try:
        registry = load()
    except (ConfigError, ImportError) as error:
        yield Looked(
            "handlers", "not loaded", advice=f"their secrets were not looked at ({type(error).__name__})."
        )
        return
    for setting in _declared([*registry.handler_settings, *registry.webhook_settings]):
        value = environment.get(setting.name)
        if not value:
            if setting.required:
                yield Looked(setting.name, "not set", problem=setting.problem(environment))
            continue
        stripe = _STRIPE.match(value)
        kind = "secret" if stripe is None else f"{stripe[2]} key"
        full = stripe is not None and stripe[1] == "sk"
        advice = (
            "may do everything at Stripe: a restricted key (rk_…) needs only what docs/payments.md names."
            if full
            else None
        )
        yield Looked(setting.name, kind, "everything" if full else None, advice=advice)


def _declared(settings: Iterable[Setting]) -> Sequence[Setting]:
    named = {setting.name: setting for setting in settings if setting.secret and setting.name not in _OURS}
    return [named[name] for name in sorted(named)]


async def _refused(environment: Mapping[str, str]) -> list[Looked]:
    """The keys that the project does not take, and whether it could be asked."""
    url = environment.get(SUPABASE_URL.name, "").rstrip("/")
    if not url:
        return [Looked(SUPABASE_URL.name, "not set", problem=SUPABASE_URL.problem(environment))]
    keys = read_keys(environment).keys
    return [answer for key in keys if (answer := await _asked(url, key)) is not None]


async def _asked(url: str, key: Key) -> Looked | None:
    kind = facts_of(key.value).kind
    try:
        async with connected(url, key.value, "pulse-secrets", apikey=key.apikey) as store:
            await store.heartbeat([], timedelta(seconds=1))
    except StoreRefused as error:
        if error.status != 401:
            return Looked(
                key.name, kind, problem=f"the project answers HTTP {error.status} to it; see `pulse check`."
            )
        return Looked(
            key.name, kind, problem="the project refuses it (HTTP 401): it was withdrawn, or is another's."
        )
    except (StoreError, ValueError):
        return Looked(key.name, kind, advice="the project could not be asked; `pulse check` says why.")
    return None


def _row(one: Looked, now: datetime) -> tuple[Cell | str, ...]:
    made = f"{span(now - one.made_at)} ago" if one.made_at else "—"
    ends = "—" if one.ends_at is None else f"in {span(one.ends_at - now)}" if one.ends_at > now else "ended"
    word = "to do" if one.problem else "advice" if one.advice else "fine"
    return (one.name, one.kind, one.role or "—", made, ends, Cell(word, _colour(one)))


def _colour(one: Looked) -> Colour:
    return Colour.RED if one.problem else Colour.YELLOW if one.advice else Colour.PLAIN


def _times(one: Looked) -> Mapping[str, str | None]:
    return {
        "made_at": one.made_at.isoformat() if one.made_at else None,
        "ends_at": one.ends_at.isoformat() if one.ends_at else None,
    }


COMMAND = Command(
    "secrets",
    Group.LOOK,
    "Say of each key and secret what it may do, and whether it is old or too powerful.",
    _run,
    _arguments,
    """pulse secrets check
pulse secrets check --days 30 --json  # exit code 1 when something is to be done""",
)
