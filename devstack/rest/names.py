"""The grammar of names: columns, ways into JSON, and paths of embedded tables."""

from __future__ import annotations

from typing import Final, TypeVar

from devstack.rest.combinators import (
    after,
    apply,
    attempt,
    before,
    between,
    char,
    choice,
    end,
    look_ahead,
    many,
    many1,
    named,
    none_of,
    not_followed_by,
    one_of,
    option,
    satisfy,
    separated1,
    text_of,
    word,
)
from devstack.rest.parsec import Parser, Reader, steps
from devstack.rest.tree import Field, Path, Step

T = TypeVar("T")

_blank: Final = many(one_of(" \t"))
any_char: Final = satisfy(lambda _: True)
_letter: Final = named("letter", satisfy(str.isalpha))
_digit: Final = named("digit", satisfy(lambda seen: seen.isascii() and seen.isdigit()))


def lexeme(parser: Parser[T]) -> Parser[T]:
    return after(_blank, before(parser, _blank))


delimiter: Final = named("delimiter (.)", char("."))
quoted: Final = between(
    char('"'), text_of(many(choice(none_of('\\"'), after(char("\\"), any_char)))), char('"')
)
identifier: Final = apply(str.strip, text_of(many1(choice(_letter, _digit, one_of("_ $")))))
_dash: Final = attempt(before(char("-"), not_followed_by(char(">"))))


def _with_dashes(parser: Parser[str]) -> Parser[str]:
    return apply("-".join, separated1(parser, _dash))


name: Final = named("field name (* or [a..z0..9_$])", choice(quoted, _with_dashes(identifier)))

_json_name: Final = named(
    "any non reserved character different from: .,>()",
    choice(quoted, _with_dashes(apply(str.strip, text_of(many1(none_of("(-:.,>)")))))),
)
_index_end: Final = choice(
    *(attempt(apply(lambda _: None, look_ahead(word(mark)))) for mark in ("->", "::", ".", ",")),
    attempt(end),
)


def _index(reader: Reader) -> tuple[str, bool]:
    sign = reader.read(option("", char("-")))
    digits = reader.read(many1(_digit))
    reader.read(_index_end)
    return sign + "".join(digits), True


_operand: Final[Parser[tuple[str, bool]]] = choice(
    attempt(steps(_index)), attempt(apply(lambda key: (key, False), _json_name))
)
_arrow: Final = choice(attempt(word("->>")), attempt(word("->")))


def _step(reader: Reader) -> Step:
    arrow = reader.read(_arrow)
    key, is_index = reader.read(_operand)
    return Step("->>" if arrow == "->>" else "->", key, is_index)


_json_path: Final[Parser[list[Step]]] = many(steps(_step))
_json_path_or_none: Final[Parser[list[Step]]] = option([], _json_path)
field: Final[Parser[Field]] = lexeme(
    steps(lambda reader: Field(reader.read(name), tuple(reader.read(_json_path_or_none))))
)

columns: Final[Parser[list[str]]] = separated1(name, lexeme(char(",")))


def _tree_path(reader: Reader) -> tuple[Path, Field]:
    *path, last = reader.read(separated1(name, delimiter))
    return tuple(path), Field(last, tuple(reader.read(_json_path_or_none)))


tree_path: Final[Parser[tuple[Path, Field]]] = steps(_tree_path)
