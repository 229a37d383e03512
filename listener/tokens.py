"""The door's tokens: whom each one names, how often its holder may insert, and which of them somebody has sent.

    PULSE_DOOR_TOKENS=ci:a-long-random-text,shop:another-long-text:100/60,shop:the-next-one-of-shop:100/60

One entry is `name:token`, or `name:token:calls/seconds` with a limit. A name may have two tokens, while one replaces
the other; they share the name's limit. PULSE_DOOR_TOKENS_FILE names a file with the same words, which is read again
while the process runs. PULSE_DOOR_TOKEN is one token alone, under the name `door`.
"""

import asyncio
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from typing import Final

from listener.keyring import FILE, KeyEvent, KeyUnusable, words_of

ONE: Final = "PULSE_DOOR_TOKEN"
SEVERAL: Final = "PULSE_DOOR_TOKENS"
SHORTEST: Final = 12
MOST_CALLS: Final = 10_000
"""Of which the database remembers the moments: see sql/085_limits.sql."""
LONGEST_WINDOW: Final = timedelta(days=1)
_NAME = re.compile(r"[a-z0-9_-]{1,40}")
_LIMIT = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")


@dataclass(frozen=True, slots=True)
class Limit:
    """At most so many calls in any stretch of time so long, over all processes."""

    calls: int
    per: timedelta


@dataclass(frozen=True, slots=True)
class Token:
    """What one caller shows."""

    name: str
    value: str = field(repr=False)
    limit: Limit | None = None


@dataclass(frozen=True, slots=True)
class TokensFound:
    """What the environment holds, or what is wrong with it."""

    tokens: Sequence[Token]
    problems: Sequence[str]


def read_tokens(environment: Mapping[str, str]) -> TokensFound:
    """Reads variables and the file. Never raises, and quotes no token."""
    tokens: list[Token] = []
    if one := environment.get(ONE):
        tokens.append(Token("door", one))
    source, words, problem = words_of(environment, SEVERAL)
    if problem is not None:
        return TokensFound([], [problem])
    problems = [f"{ONE} is too short, and can be guessed."] if one and len(one) < SHORTEST else []
    for number, word in enumerate(words, 1):
        read = _token(word)
        if isinstance(read, str):
            problems.append(f"{source}: entry {number} {read}")
        else:
            tokens.append(read)
    if source.endswith(FILE) and not words:
        problems.append(f"{source} names a file that is empty.")
    return TokensFound([] if problems else tokens, [*problems, *_contradictions(source, tokens)])


class Tokens:
    """Those of one process. One event loop."""

    def __init__(
        self,
        first: Sequence[Token],
        read: Callable[[], TokensFound] | None = None,
        tell: Callable[[KeyEvent], None] = lambda _: None,
    ) -> None:
        self._tokens = first
        self._read = read
        self._tell = tell
        self._problems: Sequence[str] = ()

    def __bool__(self) -> bool:
        return bool(self._tokens)

    def find(self, sent: str) -> Token | None:
        """Whose token was sent. In the same time whatever was sent, of whatever length."""
        digest = _digest(sent)
        found = [one for one in self._tokens if hmac.compare_digest(digest, _digest(one.value))]
        return found[0] if found else None

    async def look(self) -> None:
        """Reads again. What is wrong is told, and changes nothing."""
        if self._read is None:
            return
        found = await asyncio.to_thread(self._read)
        if not found.problems:
            self._tokens = found.tokens
        elif found.problems != self._problems:
            self._tell(KeyUnusable(" ".join(found.problems)))
        self._problems = found.problems


def _digest(text: str) -> bytes:
    return sha256(text.encode(errors="surrogatepass")).digest()  # headers and variables may be no text


def _token(word: str) -> Token | str:
    """The entry, or what is wrong with it."""
    name, colon, rest = word.partition(":")
    value, _, limited = rest.partition(":")
    if not colon or not _NAME.fullmatch(name):
        return "must be name:token, with a name of a-z, 0-9, - and _."
    if len(value) < SHORTEST:
        return f"({name}) is shorter than {SHORTEST} letters, and can be guessed. Take a long random text."
    if not limited:
        return Token(name, value) if not rest.endswith(":") else f"({name}) ends in a colon without a limit."
    match = _LIMIT.fullmatch(limited)
    if match is None:
        return f"({name}) must end in calls/seconds, such as 100/60."
    limit = Limit(int(match[1]), timedelta(seconds=int(match[2])))
    if not 1 <= limit.calls <= MOST_CALLS or not timedelta() < limit.per <= LONGEST_WINDOW:
        return f"({name}) has a limit beyond 1 to {MOST_CALLS} calls in 1 to {LONGEST_WINDOW.total_seconds():.0f} s."
    return Token(name, value, limit)


def _contradictions(source: str, tokens: Sequence[Token]) -> list[str]:
    limits = {
        name: {one.limit for one in tokens if one.name == name} for name in {one.name for one in tokens}
    }
    unclear = sorted(name for name, found in limits.items() if len(found) > 1)
    problems = [f"{source}: {name} has tokens with different limits." for name in unclear]
    if len({one.value for one in tokens}) < len(tokens):
        problems.append(f"{source}: a token is there twice; each says who its holder is.")
    return problems
