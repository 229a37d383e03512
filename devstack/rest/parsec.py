"""A small kit of parsers that fails in the words of Haskell's Parsec, as PostgREST's own messages do.

A parser takes a text and a place in it. The rules that make up a message (which of two failures is told, what
was expected) are those of Parsec 3: a failure that has consumed input ends a choice, `attempt` makes it as if
it had not, and failures at the same place are merged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeAlias, TypeVar

T = TypeVar("T")
U = TypeVar("U")
T_co = TypeVar("T_co", covariant=True)

# Kinds of words in a failure, in the order in which they are told.
READ: Final = 0
REFUSED: Final = 1
EXPECTED: Final = 2
Word: TypeAlias = tuple[int, str]


@dataclass(frozen=True, slots=True)
class Failure:
    """Where it went wrong and what was read and expected there; without words it says nothing."""

    at: int
    words: tuple[Word, ...] = ()

    def merged(self, other: Failure) -> Failure:
        """The one that got farther; both when they got equally far."""
        if not other.words and self.words:
            return self
        if not self.words and other.words:
            return other
        if self.at == other.at:
            return Failure(self.at, self.words + other.words)
        return self if self.at > other.at else other

    def expecting(self, *names: str) -> Failure:
        """The same failure, said to have expected these and nothing else."""
        kept = tuple(word for word in self.words if word[0] != EXPECTED)
        return Failure(self.at, (*kept, *((EXPECTED, name) for name in names)))

    def told(self) -> str:
        """In Parsec's English, on one line."""
        words = sorted(self.words, key=lambda word: word[0])
        if not words:
            return "unknown parse error"
        refused = [text for kind, text in words if kind == REFUSED]
        read = [text for kind, text in words if kind == READ]
        parts: list[str] = []
        if not refused and read:
            parts.append(f"unexpected {read[0] or 'end of input'}")
        parts += [
            f"{name} {_listed(texts)}"
            for name, texts in (
                ("unexpected", _each_once(refused)),
                ("expecting", _each_once([text for kind, text in words if kind == EXPECTED])),
            )
            if texts
        ]
        return " ".join(parts)


@dataclass(frozen=True, slots=True)
class Good(Generic[T_co]):
    """What was read, where reading goes on, and what else would have fitted there."""

    value: T_co
    at: int
    consumed: bool
    failure: Failure


@dataclass(frozen=True, slots=True)
class Bad:
    """It did not fit."""

    consumed: bool
    failure: Failure


Reply: TypeAlias = Good[T] | Bad
Parser: TypeAlias = Callable[[str, int], Good[T] | Bad]


class _Stopped(Exception):
    def __init__(self, bad: Bad) -> None:
        self.bad = bad


class Reader:
    """Runs parsers one after another inside a parser made by `steps`."""

    def __init__(self, text: str, at: int) -> None:
        self.text, self.at = text, at
        self.consumed = False
        self.failure = Failure(at)

    def read(self, parser: Parser[T]) -> T:
        """What the parser gives; ends the whole when it fails."""
        reply = parser(self.text, self.at)
        if reply.consumed:
            self.failure = reply.failure
        else:
            self.failure = self.failure.merged(reply.failure)
        self.consumed = self.consumed or reply.consumed
        if isinstance(reply, Bad):
            raise _Stopped(Bad(self.consumed, self.failure))
        self.at = reply.at
        return reply.value


def steps(function: Callable[[Reader], T]) -> Parser[T]:
    """A parser from a function that reads step by step."""

    def parse(text: str, at: int) -> Reply[T]:
        reader = Reader(text, at)
        try:
            value = function(reader)
        except _Stopped as stopped:
            return stopped.bad
        return Good(value, reader.at, reader.consumed, reader.failure)

    return parse


def shown(text: str) -> str:
    """The text as a Haskell string literal."""
    escapes = {
        '"': '\\"',
        "\\": "\\\\",
        "\n": "\\n",
        "\t": "\\t",
        "\r": "\\r",
        "\0": "\\NUL",
        "\x7f": "\\DEL",
    }
    parts = list[str]()
    for letter in text:
        if (
            parts
            and letter.isascii()
            and letter.isdigit()
            and parts[-1][:1] == "\\"
            and parts[-1][1:].isdigit()
        ):
            parts.append("\\&")
        parts.append(escapes.get(letter, letter if letter.isascii() else f"\\{ord(letter)}"))
    return f'"{"".join(parts)}"'


def place(text: str, at: int) -> str:
    """Line and column of a failure."""
    line, column = 1, 1
    for letter in text[:at]:
        if letter == "\n":
            line, column = line + 1, 1
        else:
            column += 8 - (column - 1) % 8 if letter == "\t" else 1
    return f"(line {line}, column {column})"


def _each_once(texts: list[str]) -> list[str]:
    return list(dict.fromkeys(text for text in texts if text))


def _listed(texts: list[str]) -> str:
    *first, last = texts
    return f"{', '.join(first)} or {last}" if first else last
