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


def satisfy(test: Callable[[str], bool]) -> Parser[str]:
    """One character that passes the test."""

    def parse(text: str, at: int) -> Reply[str]:
        if at >= len(text):
            return Bad(False, Failure(at, ((READ, ""),)))
        if test(text[at]):
            return Good(text[at], at + 1, True, Failure(at + 1))
        return Bad(False, Failure(at, ((READ, shown(text[at])),)))

    return parse


def named(name: str, parser: Parser[T]) -> Parser[T]:
    """The parser, expecting `name` where it has not consumed anything."""

    def parse(text: str, at: int) -> Reply[T]:
        reply = parser(text, at)
        if reply.consumed:
            return reply
        if isinstance(reply, Bad):
            return Bad(False, reply.failure.expecting(name))
        if reply.failure.words:
            return Good(reply.value, reply.at, False, reply.failure.expecting(name))
        return reply

    return parse


def char(letter: str) -> Parser[str]:
    """Exactly this character."""
    return named(shown(letter), satisfy(lambda seen: seen == letter))


def one_of(letters: str) -> Parser[str]:
    """One of these characters."""
    return satisfy(lambda seen: seen in letters)


def none_of(letters: str) -> Parser[str]:
    """Any other character."""
    return satisfy(lambda seen: seen not in letters)


def word(expected: str) -> Parser[str]:
    """Exactly this text; a failure is told at its beginning."""

    def parse(text: str, at: int) -> Reply[str]:
        for n, letter in enumerate(expected):
            here = at + n
            if here >= len(text) or text[here] != letter:
                read = shown(text[here]) if here < len(text) else ""
                return Bad(n > 0, Failure(at, ((READ, read), (EXPECTED, shown(expected)))))
        end = at + len(expected)
        return Good(expected, end, True, Failure(end))

    return parse


def attempt(parser: Parser[T]) -> Parser[T]:
    """The parser; when it fails, it is as if it had consumed nothing."""

    def parse(text: str, at: int) -> Reply[T]:
        reply = parser(text, at)
        return Bad(False, reply.failure) if isinstance(reply, Bad) else reply

    return parse


def look_ahead(parser: Parser[T]) -> Parser[T]:
    """The parser, without moving."""

    def parse(text: str, at: int) -> Reply[T]:
        reply = parser(text, at)
        return reply if isinstance(reply, Bad) else Good(reply.value, at, False, Failure(at))

    return parse


def not_followed_by(parser: Parser[str]) -> Parser[None]:
    """Nothing, where the parser does not fit."""

    def parse(text: str, at: int) -> Reply[None]:
        reply = parser(text, at)
        if isinstance(reply, Bad):
            return Good(None, at, False, reply.failure)
        return Bad(False, Failure(reply.at, ((REFUSED, f"'{reply.value}'"),)))

    return parse


def _end(text: str, at: int) -> Reply[None]:
    expected = (EXPECTED, "end of input")
    if at >= len(text):
        return Good(None, at, False, Failure(at, ((READ, ""), expected)))
    return Bad(False, Failure(at, ((REFUSED, f"'{text[at]}'"), expected)))


end: Final[Parser[None]] = _end


def choice(*parsers: Parser[T]) -> Parser[T]:
    """The first that fits or that fails after consuming something."""

    def parse(text: str, at: int) -> Reply[T]:
        failure = Failure(at)
        for parser in parsers:
            reply = parser(text, at)
            if reply.consumed:
                return reply
            failure = failure.merged(reply.failure)
            if not isinstance(reply, Bad):
                return Good(reply.value, reply.at, False, failure)
        return Bad(False, failure)

    return parse


def always(value: T) -> Parser[T]:
    """The value, without reading."""
    return lambda _, at: Good(value, at, False, Failure(at))


def option(otherwise: T, parser: Parser[T]) -> Parser[T]:
    """What the parser gives, or `otherwise`."""
    return choice(parser, always(otherwise))


def maybe(parser: Parser[T]) -> Parser[T | None]:
    """What the parser gives, or None."""
    return choice(apply(_same, parser), always(None))


def _same(value: T) -> T | None:
    return value


def apply(function: Callable[[T], U], parser: Parser[T]) -> Parser[U]:
    """What the function makes of what the parser gives."""

    def parse(text: str, at: int) -> Reply[U]:
        reply = parser(text, at)
        if isinstance(reply, Bad):
            return reply
        return Good(function(reply.value), reply.at, reply.consumed, reply.failure)

    return parse


def many(parser: Parser[T]) -> Parser[list[T]]:
    """As often as it fits; none at all is fine."""

    def parse(text: str, at: int) -> Reply[list[T]]:
        values, consumed = list[T](), False
        while True:
            reply = parser(text, at)
            if isinstance(reply, Bad):
                return reply if reply.consumed else Good(values, at, consumed, reply.failure)
            values.append(reply.value)
            at, consumed = reply.at, True

    return parse


def many1(parser: Parser[T]) -> Parser[list[T]]:
    """At least once."""
    rest = many(parser)
    return steps(lambda reader: [reader.read(parser), *reader.read(rest)])


def text_of(parser: Parser[list[str]]) -> Parser[str]:
    """Its characters as one text."""
    return apply("".join, parser)


def after(first: Parser[U], parser: Parser[T]) -> Parser[T]:
    """`parser` after `first`, whose value is dropped."""

    def both(reader: Reader) -> T:
        reader.read(first)
        return reader.read(parser)

    return steps(both)


def before(parser: Parser[T], last: Parser[U]) -> Parser[T]:
    """`parser` and then `last`, whose value is dropped."""

    def both(reader: Reader) -> T:
        value = reader.read(parser)
        reader.read(last)
        return value

    return steps(both)


def between(opening: Parser[U], parser: Parser[T], closing: Parser[U]) -> Parser[T]:
    """`parser` between two others."""
    return after(opening, before(parser, closing))


def separated1(parser: Parser[T], separator: Parser[U]) -> Parser[list[T]]:
    """One or more with separators between them."""
    rest = many(after(separator, parser))
    return steps(lambda reader: [reader.read(parser), *reader.read(rest)])


def separated(parser: Parser[T], separator: Parser[U]) -> Parser[list[T]]:
    """Any number with separators between them."""
    return option([], separated1(parser, separator))


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
