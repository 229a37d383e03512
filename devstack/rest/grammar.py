"""The grammars of `select` and `order`: how PostgREST reads what an answer is made of.

They follow its grammar alternative by alternative, because the messages of failures tell of them.
"""

from __future__ import annotations

from typing import Final, Literal, cast

from devstack.rest import names
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
    maybe,
    not_followed_by,
    separated,
    separated1,
    word,
)
from devstack.rest.parsec import Parser, Reader, Reply, steps
from devstack.rest.tree import Field, OrderTerm, SelectField, SelectItem, SelectRelation

Parameters = tuple[str | None, Literal["inner", "left"] | None]


# select -------------------------------------------------------------------------------------------------

_alias: Final[Parser[str | None]] = maybe(
    attempt(before(names.name, before(char(":"), not_followed_by(char(":")))))
)
_embed_parameter: Final[Parser[tuple[str, str]]] = after(
    char("!"),
    choice(
        attempt(apply(lambda _: ("join", "left"), word("left"))),
        attempt(apply(lambda _: ("join", "inner"), word("inner"))),
        attempt(apply(lambda hint: ("hint", hint), names.name)),
    ),
)


def _embed_parameters(reader: Reader) -> Parameters:
    given = [reader.read(maybe(_embed_parameter)), reader.read(maybe(_embed_parameter))]
    hints = [value for kind, value in filter(None, given) if kind == "hint"]
    joins = [value for kind, value in filter(None, given) if kind == "join"]
    return next(iter(hints), None), cast(Literal["inner", "left"] | None, next(iter(joins), None))


_opening: Final = attempt(look_ahead(word("(")))


def _relation(reader: Reader) -> SelectRelation:
    alias = reader.read(_alias)
    name = reader.read(names.name)
    if name == "count":
        reader.read(_nothing)
    hint, join = reader.read(steps(_embed_parameters))
    reader.read(_opening)
    return SelectRelation(name, (), alias, hint, join)


def _spread(reader: Reader) -> SelectRelation:
    reader.read(word("..."))
    name = reader.read(names.name)
    hint, join = reader.read(steps(_embed_parameters))
    reader.read(_opening)
    return SelectRelation(name, (), None, hint, join, is_spread=True)


_nothing: Final[Parser[None]] = choice()
_item_end: Final[Parser[None]] = choice(
    attempt(apply(lambda _: None, look_ahead(word(")")))),
    attempt(apply(lambda _: None, look_ahead(word(",")))),
    attempt(end),
)
_cast: Final[Parser[str | None]] = maybe(after(word("::"), names.identifier))
_aggregate: Final[Parser[str | None]] = maybe(
    attempt(
        after(
            char("."),
            before(
                choice(word("sum"), word("avg"), word("count"), attempt(word("max")), attempt(word("min"))),
                word("()"),
            ),
        )
    )
)


def _star(reader: Reader) -> SelectField:
    reader.read(word("*"))
    reader.read(_item_end)
    return SelectField(Field("*"))


def _count(reader: Reader) -> SelectField:
    alias = reader.read(_alias)
    reader.read(word("count()"))
    reader.read(_cast)
    reader.read(_item_end)
    return SelectField(Field("*"), alias, None, "count")


def _column(reader: Reader) -> SelectField:
    alias = reader.read(_alias)
    field = reader.read(names.field)
    cast_to = reader.read(_cast)
    aggregate = reader.read(_aggregate)
    reader.read(_cast)
    reader.read(_item_end)
    return SelectField(field, alias, cast_to, aggregate)


_plain_item: Final[Parser[SelectField]] = names.lexeme(
    choice(attempt(steps(_star)), attempt(steps(_count)), steps(_column))
)


def _filled(relation: Parser[SelectRelation]) -> Parser[SelectItem]:
    def whole(reader: Reader) -> SelectItem:
        found = reader.read(attempt(names.lexeme(relation)))
        items = tuple(reader.read(between(char("("), select, char(")"))))
        return SelectRelation(found.name, items, found.alias, found.hint, found.join, found.is_spread)

    return steps(whole)


def _item_of(field: SelectField) -> SelectItem:
    return field


_item: Final[Parser[SelectItem]] = choice(
    _filled(steps(_spread)), _filled(steps(_relation)), apply(_item_of, _plain_item)
)
_items: Final[Parser[list[SelectItem]]] = separated(_item, names.lexeme(char(",")))


def select(text: str, at: int) -> Reply[list[SelectItem]]:
    """The items of `select=`, which may hold further ones."""
    return _items(text, at)


# order --------------------------------------------------------------------------------------------------

_way: Final[Parser[str | None]] = maybe(
    choice(attempt(after(names.delimiter, word("asc"))), attempt(after(names.delimiter, word("desc"))))
)
_nulls: Final[Parser[str | None]] = maybe(
    choice(
        attempt(after(names.delimiter, word("nullsfirst"))),
        attempt(after(names.delimiter, word("nullslast"))),
    )
)
_term_end: Final[Parser[None]] = choice(attempt(apply(lambda _: None, look_ahead(char(",")))), attempt(end))
_nulls_and_end: Final[Parser[str | None]] = choice(before(_nulls, _term_end), _term_end)


def _term(reader: Reader, field: Field, relation: str | None) -> OrderTerm:
    way = cast(Literal["asc", "desc"] | None, reader.read(_way))
    nulls = cast(Literal["nullsfirst", "nullslast"] | None, reader.read(_nulls_and_end))
    return OrderTerm(field, way, nulls, relation)


def _own_term(reader: Reader) -> OrderTerm:
    return _term(reader, reader.read(names.field), None)


def _related_term(reader: Reader) -> OrderTerm:
    relation = reader.read(names.name)
    return _term(reader, reader.read(between(char("("), names.field, char(")"))), relation)


order: Final[Parser[list[OrderTerm]]] = separated1(
    names.lexeme(choice(attempt(steps(_related_term)), steps(_own_term))), char(",")
)
