"""The key in use: who this process says it is, where the next key comes from, and when that one is taken.

A project has two valid keys while one replaces the other, so nothing has to stop for it:

    where a key comes from   its variable, or the file that NAME_FILE names; both may hold several, the preferred first
    looked at again          every half minute, on SIGHUP, and at once when the project refuses the key in use (401)
    tried                    by the next call of the store: the first that was not refused yet
    taken                    when the REST API has answered to it; only then Realtime and handlers show it too

A key that is refused falls back to the one before, so a wrong line in the file stops nobody whose key is still good.
When all are refused the calls fail, the work is kept, and they are tried in turns: whichever is good again is found.

Races: all on one event loop. Each call asks with the key that it read when it began, and says which one was refused,
so of many calls that are refused at the same moment one looks for the next key and the others go on with what it found.
"""

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from listener.keyfile import PATIENCE_SECONDS, IsNoFile, text_of
from listener.keys import WHERE_KEYS, publishable_key_problem, service_key_problem, worker_key_problem

SERVICE_NAME: Final = "SUPABASE_SERVICE_ROLE_KEY"
WORKER_NAME: Final = "PULSE_WORKER_KEY"
PUBLIC_NAME: Final = "SUPABASE_PUBLISHABLE_KEY"
FILE: Final = "_FILE"
"""NAME_FILE names the file that holds what NAME would."""
_LOOKED_SECONDS = 0.2
# One that was refused longer ago than this is worth another try at once: a new key may need a moment to be known.
_AGAIN_SECONDS = 5.0
_SEPARATORS = re.compile(r"[\s,]+")


@dataclass(frozen=True, slots=True)
class Key:
    """A key, and how it is shown to the project."""

    name: str
    """The variable that it comes from."""
    value: str = field(repr=False)
    apikey: str = field(repr=False)
    """What the gateway wants to see beside it; the key itself, where that opens the gateway."""
    headers: Mapping[str, str] = field(repr=False, compare=False, init=False)

    def __post_init__(self) -> None:
        shown = {"apikey": self.apikey, "Authorization": f"Bearer {self.value}"}
        object.__setattr__(self, "headers", shown)


@dataclass(frozen=True, slots=True)
class KeysFound:
    """What the environment holds: the keys that may be good, the preferred first, and what is wrong with the others."""

    keys: Sequence[Key]
    problems: Sequence[str]


@dataclass(frozen=True, slots=True)
class KeyTaken:
    """The project has answered to another key than before: from now on everything shows this one."""

    name: str


@dataclass(frozen=True, slots=True)
class KeyRefused:
    """The project refuses a key. Told once of each."""

    name: str
    another: bool
    """Whether there is another one to try."""


@dataclass(frozen=True, slots=True)
class KeyUnusable:
    """What the variable or its file holds is no key; the one in use goes on."""

    problem: str


KeyEvent = KeyTaken | KeyRefused | KeyUnusable


def read_keys(environment: Mapping[str, str]) -> KeysFound:
    """Reads variables and files. Never raises: what is wrong is in its `problems`."""
    if not _is_set(environment, WORKER_NAME):
        found, problems = _read(environment, SERVICE_NAME, WHERE_KEYS, service_key_problem)
        return KeysFound([Key(name, value, value) for name, value in found], problems)
    make = "`pulse worker-key` makes it"
    found, problems = _read(environment, WORKER_NAME, make, worker_key_problem)
    public, others = _read(environment, PUBLIC_NAME, WHERE_KEYS, publishable_key_problem)
    keys = [Key(name, value, apikey) for name, value in found for _, apikey in public]
    return KeysFound(keys, [*problems, *others])


def words_of(environment: Mapping[str, str], name: str) -> tuple[str, list[str], str | None]:
    """The variable or file that is read for NAME, the words that it holds, and why it cannot be read."""
    file = environment.get(name + FILE)
    if not file:
        return name, _words(environment.get(name, "")), None
    if environment.get(name):
        return name + FILE, [], f"{name} and {name}{FILE} are both set: keep one of them."
    try:
        text = text_of(file)
    except UnicodeDecodeError:
        return name + FILE, [], f"{name}{FILE} names a file that is no text."
    except IsNoFile:
        mend = "Write it into a file, and name that."
        return name + FILE, [], f"{name}{FILE} names no file, but a folder, a pipe or a device. {mend}"
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "its name is none"
        return name + FILE, [], f"{name}{FILE} names a file that cannot be read ({why})."
    if text is None:
        slow = f"could not be read within {PATIENCE_SECONDS:.0f} s. Look at the disk or mount that it is on."
        return name + FILE, [], f"{name}{FILE} names a file that {slow}"
    return name + FILE, _words(text), None


class Keyring:
    """The keys of one process. One event loop."""

    def __init__(
        self,
        first: Key,
        read: Callable[[], KeysFound] = lambda: KeysFound([], []),
        *,
        tell: Callable[[KeyEvent], None] = lambda _: None,
        learn: Callable[[Iterable[str]], None] = lambda _: None,
    ) -> None:
        """`read` may block for some seconds; `learn` gets what must never be printed."""
        self.now = first
        """With which the next call to the REST API is made."""
        self.proven = first
        """The last one that the REST API took: what Realtime and handlers show."""
        self._read = read
        self.tell = tell
        self._learn = learn
        self._found: Sequence[Key] = [first]
        self._problems: Sequence[str] = ()
        self._read_at = 0.0
        self._refused_at: dict[Key, float] = {}
        self._told: set[Key] = set()
        self._refused_since: float | None = None
        self._looking = asyncio.Lock()
        self._followers: list[Callable[[], None]] = []

    @classmethod
    def of(cls, settings: Mapping[str, str]) -> "Keyring":
        """One that is made outside of a process of workers. Raises LookupError when there is no key."""
        found = read_keys(settings)
        if not found.keys:
            raise LookupError(" ".join(found.problems))
        return cls(found.keys[0], partial(read_keys, settings))

    def follow(self, act: Callable[[], None]) -> None:
        """Calls `act` whenever another key was proven."""
        self._followers.append(act)

    @property
    def problem(self) -> str | None:
        """Why nothing can be asked of the project, in a sentence; None while a key is good."""
        if self._refused_since is None:
            return None
        how_long = f"for {time.monotonic() - self._refused_since:.0f} s"
        return f"{self.now.name}: the project refuses the key (HTTP 401) {how_long}. {mend(self.now.name)}"

    def accepted(self, key: Key) -> None:
        """The REST API has answered to this key. A late answer to one that was left meanwhile changes nothing."""
        if key is not self.now or (key is self.proven and self._refused_since is None):
            return
        self._refused_since = None
        self._refused_at.pop(key, None)
        self._told.discard(key)
        if key is not self.proven:
            self.now = self.proven = key
            self.tell(KeyTaken(key.name))
            for act in self._followers:
                act()

    async def refused(self, key: Key) -> bool:
        """The project has answered 401 to this key. Whether to ask again at once, with the one that is `now`."""
        if key is not self.now:
            return True
        async with self._looking:
            if key is not self.now:
                return True
            self._refused_at[key] = time.monotonic()
            if time.monotonic() - self._read_at > _LOOKED_SECONDS:
                await self._look()
            other = self._preferred()
            before, self.now = self._refused_at.get(other), other
            tries_again = before is None or time.monotonic() - before > _AGAIN_SECONDS
            if not tries_again:
                self._refused_since = self._refused_since or time.monotonic()
            if key not in self._told:
                self._told.add(key)
                self.tell(KeyRefused(key.name, tries_again))
            return tries_again

    async def look(self) -> bool:
        """Reads again. Whether another key than the one in use is to be tried: the next call does it."""
        async with self._looking:
            await self._look()
            long_ago = time.monotonic() - _AGAIN_SECONDS
            self._refused_at = {key: at for key, at in self._refused_at.items() if at > long_ago}
            before, self.now = self.now, self._preferred()
            return self.now is not before

    async def _look(self) -> None:
        found = await asyncio.to_thread(self._read)
        self._read_at = time.monotonic()
        self._learn(key.value for key in found.keys)
        if found.problems and found.problems != self._problems:
            self.tell(KeyUnusable(" ".join(found.problems)))
        self._problems = found.problems
        # One that is known already stays the same object. The one that was good last stays for the case that none is.
        known = {key: key for key in (*self._found, self.now, self.proven)}
        self._found = [*(known.get(key, key) for key in found.keys), self.proven]
        self._refused_at = {key: at for key, at in self._refused_at.items() if key in self._found}

    def _preferred(self) -> Key:
        """The first that was not refused; when all were, the one whose refusal is the longest ago."""
        return min(self._found, key=lambda key: self._refused_at.get(key, 0.0))


def keyring_of(key: str | Keyring, apikey: str | None = None) -> Keyring:
    """A key that never changes, as a keyring."""
    return key if isinstance(key, Keyring) else Keyring(Key("the key", key, apikey or key))


def mend(name: str) -> str:
    """What a person does about a key that is refused."""
    if name.endswith(FILE):
        return f"Put a valid one into the file that {name} names: it is read again at once."
    return f"Start the process with a valid one ({name}), or use {name}{FILE}: a file is read again while it runs."


def _read(
    environment: Mapping[str, str], name: str, where: str, problem_of: Callable[[str, str], str | None]
) -> tuple[list[tuple[str, str]], list[str]]:
    """Where each value comes from that may be good, and what is wrong."""
    source, values, problem = words_of(environment, name)
    if problem is not None:
        return [], [problem]
    if not values:
        empty = f"{name}{FILE} names a file that is empty." if source != name else f"{name} is not set."
        return [], [f"{empty} Find it here: {where}"]
    problems = [problem_of(source, value) for value in values]
    good = [(source, value) for value, problem in zip(values, problems, strict=True) if problem is None]
    return good, [problem for problem in problems if problem is not None]


def _is_set(environment: Mapping[str, str], name: str) -> bool:
    return bool(environment.get(name) or environment.get(name + FILE))


def _words(text: str) -> list[str]:
    return [word for word in _SEPARATORS.split(text) if word]
