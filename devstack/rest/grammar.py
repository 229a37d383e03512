"""The grammars of `select`, filters, `order`, logic and names: how PostgREST reads each parameter.

They follow its grammar alternative by alternative, because the messages of failures tell of them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, Literal, TypeVar, cast

from devstack.rest.parsec import (
    Parser,
    Reader,
    Reply,
    after,
    always,
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
    maybe,
    named,
    none_of,
    not_followed_by,
    one_of,
    option,
    satisfy,
    separated,
    separated1,
    steps,
    text_of,
    word,
)
from devstack.rest.tree import (
    Condition,
    Field,
    Filter,
    Logic,
    Operation,
    OrderTerm,
    Path,
    Quantifier,
    SelectField,
    SelectItem,
    SelectRelation,
    Step,
)

T = TypeVar("T")

SIMPLE: Final = ("neq", "cs", "cd", "ov", "sl", "sr", "nxr", "nxl", "adj")
QUANTIFIED: Final = ("eq", "gte", "gt", "lte", "lt", "like", "ilike", "match", "imatch")
SEARCHES: Final = ("fts", "plfts", "phfts", "wfts")
IS_VALUES: Final = ("null", "not_null", "true", "false", "unknown")

Parameters = tuple[str | None, Literal["inner", "left"] | None]

# Names --------------------------------------------------------------------------------------------------

_blank: Final = many(one_of(" \t"))
_any_char: Final = satisfy(lambda _: True)
_letter: Final = named("letter", satisfy(str.isalpha))
_digit: Final = named("digit", satisfy(lambda seen: seen.isascii() and seen.isdigit()))


def _lexeme(parser: Parser[T]) -> Parser[T]:
    return after(_blank, before(parser, _blank))


_delimiter: Final = named("delimiter (.)", char("."))
_quoted: Final = between(
    char('"'), text_of(many(choice(none_of('\\"'), after(char("\\"), _any_char)))), char('"')
)
_identifier: Final = apply(str.strip, text_of(many1(choice(_letter, _digit, one_of("_ $")))))
_dash: Final = attempt(before(char("-"), not_followed_by(char(">"))))


def _with_dashes(parser: Parser[str]) -> Parser[str]:
    return apply("-".join, separated1(parser, _dash))


_name: Final = named("field name (* or [a..z0..9_$])", choice(_quoted, _with_dashes(_identifier)))

_json_name: Final = named(
    "any non reserved character different from: .,>()",
    choice(_quoted, _with_dashes(apply(str.strip, text_of(many1(none_of("(-:.,>)")))))),
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
_field: Final[Parser[Field]] = _lexeme(
    steps(lambda reader: Field(reader.read(_name), tuple(reader.read(_json_path_or_none))))
)

columns: Final[Parser[list[str]]] = separated1(_name, _lexeme(char(",")))

# select -------------------------------------------------------------------------------------------------

_alias: Final[Parser[str | None]] = maybe(
    attempt(before(_name, before(char(":"), not_followed_by(char(":")))))
)
_embed_parameter: Final[Parser[tuple[str, str]]] = after(
    char("!"),
    choice(
        attempt(apply(lambda _: ("join", "left"), word("left"))),
        attempt(apply(lambda _: ("join", "inner"), word("inner"))),
        attempt(apply(lambda hint: ("hint", hint), _name)),
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
    name = reader.read(_name)
    if name == "count":
        reader.read(_nothing)
    hint, join = reader.read(steps(_embed_parameters))
    reader.read(_opening)
    return SelectRelation(name, (), alias, hint, join)


def _spread(reader: Reader) -> SelectRelation:
    reader.read(word("..."))
    name = reader.read(_name)
    hint, join = reader.read(steps(_embed_parameters))
    reader.read(_opening)
    return SelectRelation(name, (), None, hint, join, is_spread=True)


_nothing: Final[Parser[None]] = choice()
_item_end: Final[Parser[None]] = choice(
    attempt(apply(lambda _: None, look_ahead(word(")")))),
    attempt(apply(lambda _: None, look_ahead(word(",")))),
    attempt(end),
)
_cast: Final[Parser[str | None]] = maybe(after(word("::"), _identifier))
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
    field = reader.read(_field)
    cast_to = reader.read(_cast)
    aggregate = reader.read(_aggregate)
    reader.read(_cast)
    reader.read(_item_end)
    return SelectField(field, alias, cast_to, aggregate)


_plain_item: Final[Parser[SelectField]] = _lexeme(
    choice(attempt(steps(_star)), attempt(steps(_count)), steps(_column))
)


def _filled(relation: Parser[SelectRelation]) -> Parser[SelectItem]:
    def whole(reader: Reader) -> SelectItem:
        found = reader.read(attempt(_lexeme(relation)))
        items = tuple(reader.read(between(char("("), select, char(")"))))
        return SelectRelation(found.name, items, found.alias, found.hint, found.join, found.is_spread)

    return steps(whole)


def _item_of(field: SelectField) -> SelectItem:
    return field


_item: Final[Parser[SelectItem]] = choice(
    _filled(steps(_spread)), _filled(steps(_relation)), apply(_item_of, _plain_item)
)
_items: Final[Parser[list[SelectItem]]] = separated(_item, _lexeme(char(",")))


def select(text: str, at: int) -> Reply[list[SelectItem]]:
    """The items of `select=`, which may hold further ones."""
    return _items(text, at)


# Filters ------------------------------------------------------------------------------------------------


def _any_case(name: str) -> Parser[str]:
    def read(reader: Reader) -> str:
        for letter in name:
            reader.read(choice(char(letter), char(letter.upper())))
        return name

    return steps(read)


_list_element: Final = choice(
    attempt(before(_quoted, not_followed_by(none_of(",)")))), text_of(many(none_of(",)")))
)
_list: Final = between(_lexeme(char("(")), separated1(_list_element, char(",")), _lexeme(char(")")))
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
_language: Final[Parser[str | None]] = maybe(attempt(between(char("("), _identifier, char(")"))))
_not: Final = choice(attempt(apply(lambda _: True, before(word("not"), _delimiter))), always(False))


def _operation(value: Parser[str]) -> Parser[Operation]:
    def is_in(reader: Reader) -> Operation:
        reader.read(attempt(before(word("in"), _delimiter)))
        return Operation("in", tuple(reader.read(_list)))

    def is_(reader: Reader) -> Operation:
        reader.read(attempt(before(word("is"), _delimiter)))
        return Operation("is", reader.read(_is_value))

    def is_distinct(reader: Reader) -> Operation:
        reader.read(attempt(before(word("isdistinct"), _delimiter)))
        return Operation("isdistinct", reader.read(value))

    def search(reader: Reader) -> Operation:
        name = reader.read(choice(*(attempt(word(each)) for each in SEARCHES)))
        language = reader.read(_language)
        reader.read(_delimiter)
        return Operation(name, reader.read(value), language=language)

    def simple(reader: Reader) -> Operation:
        name = reader.read(_simple)
        reader.read(_delimiter)
        return Operation(name, reader.read(value))

    def quantified(reader: Reader) -> Operation:
        name = reader.read(_quantified)
        quantifier = cast(Quantifier | None, reader.read(_quantifier))
        reader.read(_delimiter)
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


operation: Final[Parser[Operation]] = _operation(text_of(many(_any_char)))


def _tree_path(reader: Reader) -> tuple[Path, Field]:
    *path, name = reader.read(separated1(_name, _delimiter))
    return tuple(path), Field(name, tuple(reader.read(_json_path_or_none)))


tree_path: Final[Parser[tuple[Path, Field]]] = steps(_tree_path)

# order --------------------------------------------------------------------------------------------------

_way: Final[Parser[str | None]] = maybe(
    choice(attempt(after(_delimiter, word("asc"))), attempt(after(_delimiter, word("desc"))))
)
_nulls: Final[Parser[str | None]] = maybe(
    choice(attempt(after(_delimiter, word("nullsfirst"))), attempt(after(_delimiter, word("nullslast"))))
)
_term_end: Final[Parser[None]] = choice(attempt(apply(lambda _: None, look_ahead(char(",")))), attempt(end))
_nulls_and_end: Final[Parser[str | None]] = choice(before(_nulls, _term_end), _term_end)


def _term(reader: Reader, field: Field, relation: str | None) -> OrderTerm:
    way = cast(Literal["asc", "desc"] | None, reader.read(_way))
    nulls = cast(Literal["nullsfirst", "nullslast"] | None, reader.read(_nulls_and_end))
    return OrderTerm(field, way, nulls, relation)


def _own_term(reader: Reader) -> OrderTerm:
    return _term(reader, reader.read(_field), None)


def _related_term(reader: Reader) -> OrderTerm:
    relation = reader.read(_name)
    return _term(reader, reader.read(between(char("("), _field, char(")"))), relation)


order: Final[Parser[list[OrderTerm]]] = separated1(
    _lexeme(choice(attempt(steps(_related_term)), steps(_own_term))), char(",")
)

# Logic --------------------------------------------------------------------------------------------------


def _pg_array(reader: Reader) -> str:
    return reader.read(word("{")) + reader.read(text_of(many(none_of("{}")))) + reader.read(word("}"))


_logic_operation: Final = _operation(
    choice(
        attempt(before(_quoted, not_followed_by(none_of(",)")))),
        attempt(steps(_pg_array)),
        text_of(many(none_of(",)"))),
    )
)


def _logic_filter(reader: Reader) -> Condition:
    field = reader.read(before(_field, _delimiter))
    return Filter(field, reader.read(_logic_operation))


_logic_not: Final = named("negation operator (not)", _not)
_logic_word: Final = named("logic operator (and, or)", choice(attempt(word("and")), word("or")))


def _logic_joined(reader: Reader) -> Condition:
    is_negated = reader.read(_logic_not)
    joined = reader.read(_logic_word)
    reader.read(_lexeme(char("(")))
    parts = reader.read(separated1(logic, _lexeme(char(","))))
    reader.read(_lexeme(char(")")))
    return Logic("and" if joined == "and" else "or", tuple(parts), is_negated)


def logic(text: str, at: int) -> Reply[Condition]:
    """One condition, or several joined by a word."""
    return choice(attempt(steps(_logic_filter)), steps(_logic_joined))(text, at)


def _logic_path(reader: Reader) -> tuple[Path, str]:
    names = reader.read(separated1(_name, _delimiter))
    word_ = f"not.{names[-1]}" if "not" in names else names[-1]
    return tuple(name for name in names[:-1] if name != "not"), word_


logic_path: Final[Parser[tuple[Path, str]]] = steps(_logic_path)
