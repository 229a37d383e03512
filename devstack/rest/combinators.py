"""Parsers of single characters, and parsers made out of others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from devstack.rest.parsec import (
    EXPECTED,
    READ,
    REFUSED,
    Bad,
    Failure,
    Good,
    Parser,
    Reader,
    Reply,
    shown,
    steps,
)

T = TypeVar("T")
U = TypeVar("U")


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
