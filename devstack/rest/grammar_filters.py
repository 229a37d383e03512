"""The grammars of filters and of logic: how PostgREST reads what rows an answer is about."""

from __future__ import annotations

from dataclasses import replace
from typing import Final, cast

from devstack.rest import names
from devstack.rest.combinators import (
    always,
    apply,
    attempt,
    before,
    between,
    char,
    choice,
    many,
    maybe,
    named,
    none_of,
    not_followed_by,
    separated1,
    text_of,
    word,
)
from devstack.rest.parsec import Parser, Reader, Reply, steps
from devstack.rest.tree import Condition, Filter, Logic, Operation, Path, Quantifier

SIMPLE: Final = ("neq", "cs", "cd", "ov", "sl", "sr", "nxr", "nxl", "adj")
QUANTIFIED: Final = ("eq", "gte", "gt", "lte", "lt", "like", "ilike", "match", "imatch")
SEARCHES: Final = ("fts", "plfts", "phfts", "wfts")
IS_VALUES: Final = ("null", "not_null", "true", "false", "unknown")


# Filters ------------------------------------------------------------------------------------------------


def _any_case(name: str) -> Parser[str]:
    def read(reader: Reader) -> str:
        for letter in name:
            reader.read(choice(char(letter), char(letter.upper())))
        return name

    return steps(read)


_list_element: Final = choice(
    attempt(before(names.quoted, not_followed_by(none_of(",)")))), text_of(many(none_of(",)")))
)
_list: Final = between(names.lexeme(char("(")), separated1(_list_element, char(",")), names.lexeme(char(")")))
_is_value: Final = named(
    "isVal: (null, not_null, true, false, unknown)",
    choice(*(attempt(_any_case(value)) for value in IS_VALUES)),
)
_simple: Final = named("unknown single value operator", choice(*(attempt(word(each)) for each in SIMPLE)))
_quantified: Final = named(
    "unknown single value operator", choice(*(attempt(word(each)) for each in QUANTIFIED))
)
_quantifier: Final[Parser[str | None]] = maybe(
    attempt(between(char("("), choice(attempt(word("any")), word("all")), char(")")))
)
_language: Final[Parser[str | None]] = maybe(attempt(between(char("("), names.identifier, char(")"))))
_not: Final = choice(attempt(apply(lambda _: True, before(word("not"), names.delimiter))), always(False))


def _operation(value: Parser[str]) -> Parser[Operation]:
    def is_in(reader: Reader) -> Operation:
        reader.read(attempt(before(word("in"), names.delimiter)))
        return Operation("in", tuple(reader.read(_list)))

    def is_(reader: Reader) -> Operation:
        reader.read(attempt(before(word("is"), names.delimiter)))
        return Operation("is", reader.read(_is_value))

    def is_distinct(reader: Reader) -> Operation:
        reader.read(attempt(before(word("isdistinct"), names.delimiter)))
        return Operation("isdistinct", reader.read(value))

    def search(reader: Reader) -> Operation:
        name = reader.read(choice(*(attempt(word(each)) for each in SEARCHES)))
        language = reader.read(_language)
        reader.read(names.delimiter)
        return Operation(name, reader.read(value), language=language)

    def simple(reader: Reader) -> Operation:
        name = reader.read(_simple)
        reader.read(names.delimiter)
        return Operation(name, reader.read(value))

    def quantified(reader: Reader) -> Operation:
        name = reader.read(_quantified)
        quantifier = cast(Quantifier | None, reader.read(_quantifier))
        reader.read(names.delimiter)
        return Operation(name, reader.read(value), quantifier=quantifier)

    any_of_them = named(
        "operator (eq, gt, ...)",
        choice(
            steps(is_in),
            steps(is_),
            steps(is_distinct),
            attempt(steps(search)),
            attempt(steps(simple)),
            attempt(steps(quantified)),
        ),
    )

    def whole(reader: Reader) -> Operation:
        is_negated = reader.read(_not)
        return replace(reader.read(any_of_them), is_negated=is_negated)

    return steps(whole)


operation: Final[Parser[Operation]] = _operation(text_of(many(names.any_char)))

# Logic --------------------------------------------------------------------------------------------------


def _pg_array(reader: Reader) -> str:
    return reader.read(word("{")) + reader.read(text_of(many(none_of("{}")))) + reader.read(word("}"))


_logic_operation: Final = _operation(
    choice(
        attempt(before(names.quoted, not_followed_by(none_of(",)")))),
        attempt(steps(_pg_array)),
        text_of(many(none_of(",)"))),
    )
)


def _logic_filter(reader: Reader) -> Condition:
    field = reader.read(before(names.field, names.delimiter))
    return Filter(field, reader.read(_logic_operation))


_logic_not: Final = named("negation operator (not)", _not)
_logic_word: Final = named("logic operator (and, or)", choice(attempt(word("and")), word("or")))


def _logic_joined(reader: Reader) -> Condition:
    is_negated = reader.read(_logic_not)
    joined = reader.read(_logic_word)
    reader.read(names.lexeme(char("(")))
    parts = reader.read(separated1(logic, names.lexeme(char(","))))
    reader.read(names.lexeme(char(")")))
    return Logic("and" if joined == "and" else "or", tuple(parts), is_negated)


def logic(text: str, at: int) -> Reply[Condition]:
    """One condition, or several joined by a word."""
    return choice(attempt(steps(_logic_filter)), steps(_logic_joined))(text, at)


def _logic_path(reader: Reader) -> tuple[Path, str]:
    path = reader.read(separated1(names.name, names.delimiter))
    joined = f"not.{path[-1]}" if "not" in path else path[-1]
    return tuple(name for name in path[:-1] if name != "not"), joined


logic_path: Final[Parser[tuple[Path, str]]] = steps(_logic_path)
