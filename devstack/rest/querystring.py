"""Reads a whole query string: which parameter is a filter, which one shapes the answer, which rows are meant."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final, TypeVar
from urllib.parse import quote, unquote_to_bytes

from devstack.rest import grammar, grammar_filters, names
from devstack.rest.errors import unparsable
from devstack.rest.parsec import Bad, Parser, place
from devstack.rest.tree import Condition, Field, Filter, Operation, OrderTerm, Path, Query, Span

T = TypeVar("T")

ALONE: Final = frozenset({"select", "columns", "on_conflict"})
AT_ANY_TABLE: Final = frozenset({"order", "limit", "offset", "and", "or"})
WHOLE: Final = re.compile(r"\s*(-?\d+)\s*")
ALL: Final = Span()


@lru_cache(maxsize=1024)
def read(raw: str, *, is_call: bool = False) -> Query:
    """The query that a raw query string spells; PGRST100 when it cannot be read.

    `is_call` is a GET on a function: parameters that are no filters are its arguments.
    """
    parameters = pairs(raw)
    given = [(key, value) for key, value in parameters if value is not None]
    first: dict[str, str] = {}
    for key, value in given:
        first.setdefault(key, value)
    order = tuple((_path(key), _order(value)) for key, value in given if _last(key) == "order")
    logic = tuple(_logic(key, value) for key, value in given if _last(key) in ("and", "or"))
    columns = (
        None
        if "columns" not in first
        else frozenset(_parsed(names.columns, "columns parameter", first["columns"]))
    )
    select = _parsed(grammar.select, "select parameter", first.get("select", "*"))
    plain = [(k, v) for k, v in given if _last(k) not in AT_ANY_TABLE and k not in ALONE]
    filters = list[tuple[Path, Filter]]()
    arguments = list[tuple[str, str]]()
    for key, value in plain:
        path, field, operation = _filter(key, value, is_call=is_call)
        if operation is None:
            arguments.append((field.name, value))
        else:
            filters.append((path, Filter(field, operation)))
    conflict = (
        None
        if "on_conflict" not in first
        else tuple(_parsed(names.columns, "on_conflict parameter", first["on_conflict"]))
    )
    spans = _spans(given)
    return Query(
        select=tuple(select),
        filters=tuple(filters),
        logic=logic,
        orders=order,
        spans=tuple((_path(key), span) for key, span in spans.items() if key != "limit"),
        columns=columns,
        on_conflict=conflict,
        fields=frozenset(key for key, _ in plain),
        arguments=tuple(arguments),
        canonical=_canonical(parameters),
        span=spans.get("limit", ALL),
    )


def pairs(raw: str) -> list[tuple[str, str | None]]:
    """Names and values, decoded; a name without `=` has no value."""
    found: list[tuple[str, str | None]] = []
    for part in re.split("[&;]", raw) if raw else []:
        name, equals, value = part.partition("=")
        found.append((_decoded(name), _decoded(value) if equals else None))
    return found


def _decoded(text: str) -> str:
    return unquote_to_bytes(text.replace("+", " ")).decode(errors="replace")


def _canonical(parameters: Sequence[tuple[str, str | None]]) -> str:
    """The parameters in order of their names, as Content-Location shows them: UTF-8 taken for Latin-1, and
    the values of one name in one list.
    """

    def encoded(text: str) -> str:
        return quote(text.encode().decode("latin-1"), safe="")

    together: dict[str, list[str]] = {}
    for key, value in sorted(parameters, key=lambda pair: pair[0].encode()):
        together.setdefault(key, []).append(encoded(value or ""))
    return "&".join(f"{encoded(key)}={','.join(values)}" for key, values in together.items())


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def _parsed(parser: Parser[T], what: str, text: str) -> T:
    reply = parser(text, 0)
    if isinstance(reply, Bad):
        source = f'"failed to parse {what} ({text})"'
        raise unparsable(f"{source} {place(text, reply.failure.at)}", reply.failure.told())
    return reply.value


def _path(key: str) -> Path:
    return _parsed(names.tree_path, "tree path", key)[0]


def _order(text: str) -> tuple[OrderTerm, ...]:
    return tuple(_parsed(grammar.order, "order", text))


def _logic(key: str, text: str) -> tuple[Path, Condition]:
    path, word = _parsed(grammar_filters.logic_path, "logic path", key)
    reply = grammar_filters.logic(word + text, 0)
    if isinstance(reply, Bad):
        source = f'"failed to parse logic tree ({text})"'
        raise unparsable(f"{source} {place(word + text, reply.failure.at)}", reply.failure.told())
    return path, reply.value


def _filter(key: str, text: str, *, is_call: bool) -> tuple[Path, Field, Operation | None]:
    path, field = _parsed(names.tree_path, "tree path", key)
    reply = grammar_filters.operation(text, 0)
    if isinstance(reply, Bad):
        if is_call and not reply.consumed:
            return path, field, None
        source = f'"failed to parse filter ({text})"'
        raise unparsable(f"{source} {place(text, reply.failure.at)}", reply.failure.told())
    return path, field, reply.value


def _spans(given: Sequence[tuple[str, str]]) -> Mapping[str, Span]:
    """The rows meant by `limit` and `offset`, by the key of the limit."""
    limits = {key: _limited(value) for key, value in given if _last(key) == "limit"}
    offsets = {
        f"{key.removesuffix('offset')}limit": _whole(value) or 0
        for key, value in given
        if _last(key) == "offset"
    }
    both: dict[str, Span] = {key: Span(first) for key, first in offsets.items()}
    for key, span in limits.items():
        if key in offsets:
            span = Span(offsets[key], offsets[key] + (span.limit or 0) - 1)
        both[key] = span
    return both


def _limited(text: str) -> Span:
    limit = _whole(text)
    return ALL if limit is None else Span(0, limit - 1)


def _whole(text: str) -> int | None:
    found = WHOLE.fullmatch(text)
    return None if found is None else int(found[1])
