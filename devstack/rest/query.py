"""From a query string to SQL: column lists, filters, order and range of the PostgREST subset.

Values always travel as text parameters that SQL casts to the column's type, so a statement stays the same
for all values (and prepared), and a bad value gives PostgreSQL's own message. Names are quoted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from devstack.rest.errors import not_implemented, unparsable
from devstack.rest.schema import Column

RESERVED: Final = frozenset({"select", "order", "limit", "offset", "columns", "on_conflict"})
LOGIC: Final = frozenset({"and", "or", "not.and", "not.or"})
COMPARISONS: Final = {
    "eq": "=", "neq": "<>", "gt": ">", "gte": ">=", "lt": "<", "lte": "<=", "like": "like", "ilike": "ilike",
}  # fmt: skip
IS_VALUES: Final = {
    "null": "null", "not_null": "not null", "true": "true", "false": "false", "unknown": "unknown",
}  # fmt: skip
ELSEWHERE: Final = frozenset(
    "match imatch isdistinct fts plfts phfts wfts cs cd ov sl sr nxr nxl adj".split()
)  # fmt: skip
OPERATOR: Final = re.compile(r"(not\.)?([a-z]+)(\([a-z]+\))?\.(.*)", re.DOTALL)
SELECTED: Final = re.compile(
    r"(?:(?P<alias>[^:(),]+):(?!:))?(?P<path>[^:(),]+)(?:::(?P<cast>[\w\[\] ]+))?", re.DOTALL
)
ORDERED: Final = re.compile(r"(?P<path>.+?)(?:\.(?P<way>asc|desc))?(?:\.nulls(?P<nulls>first|last))?")


@dataclass(slots=True)
class Statement:
    """SQL under construction: hands out parameter numbers and keeps the values."""

    values: list[str | None] = field(default_factory=list[str | None])

    def value(self, value: str | None, type_: str = "text") -> str:
        """A reference to a new parameter, sent as text and cast."""
        self.values.append(value)
        reference = f"${len(self.values)}::text"
        return reference if type_ == "text" else f"{reference}::{type_}"


@dataclass(frozen=True, slots=True)
class Source:
    """What columns are looked up in: a table's or function's qualified SQL name and its known columns."""

    sql: str
    columns: Mapping[str, Column]

    def path(self, path: str) -> tuple[str, str, str]:
        """SQL, type and output name of `column` or of a way into JSON, `column->a->>b`."""
        name, *steps = re.split(r"(->>|->)", path)
        known = self.columns.get(name)
        sql, type_, output = f"{self.sql}.{quoted(name)}", known.type if known else "text", name
        if steps and type_ not in ("json", "jsonb"):
            sql = f"to_jsonb({sql})"
        for arrow, step in zip(steps[::2], steps[1::2], strict=True):
            is_index = step.lstrip("-").isdigit()
            sql += f"{arrow}{int(step)}" if is_index else f"{arrow}{literal(step)}"
            type_, output = "text" if arrow == "->>" else "jsonb", output if is_index else step
        return (f"({sql})" if steps else sql), type_, output


def quoted(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""').replace("\0", "") + '"'


def literal(text: str) -> str:
    """An SQL string, for the few places where a parameter cannot stand."""
    return "'" + text.replace("'", "''").replace("\0", "") + "'"


def select_list(select: str | None, source: Source) -> str:
    """The columns to return; everything when nothing was asked for."""
    if select is None or select.strip() in ("", "*"):
        return f"{source.sql}.*"
    return ", ".join(_selected(part, source) for part in split_outside(select))


def where(filters: Sequence[tuple[str, str]], source: Source, statement: Statement) -> str:
    """The WHERE clause for all parameters that are filters, or an empty string."""
    parts = [
        _logic(name, value, source, statement)
        if name in LOGIC
        else _filter(name, value, source, statement, is_nested=False)
        for name, value in filters
    ]
    return f" where {' and '.join(parts)}" if parts else ""


def order_by(order: str | None, source: Source) -> str:
    """The ORDER BY clause, or an empty string."""
    if not order:
        return ""
    parts: list[str] = []
    for part in split_outside(order):
        found = ORDERED.fullmatch(part)
        if found is None or "(" in part:
            raise not_implemented(f"Ordering by '{part}' is not implemented here.")
        nulls = f" nulls {found['nulls']}" if found["nulls"] else ""
        parts.append(f"{source.path(found['path'])[0]} {found['way'] or 'asc'}{nulls}")
    return f" order by {', '.join(parts)}"


def split_outside(text: str, mark: str = ",") -> list[str]:
    """Splits at marks that are neither inside parentheses nor inside double quotes."""
    parts, depth, is_quoted, start = list[str](), 0, False, 0
    at = 0
    while at < len(text):
        letter = text[at]
        if is_quoted:
            at += letter == "\\"
            is_quoted = letter != '"'
        elif letter == '"':
            is_quoted = True
        elif letter in "()":
            depth += 1 if letter == "(" else -1
        elif letter == mark and depth == 0:
            parts.append(text[start:at])
            start = at + 1
        at += 1
    return [*parts, text[start:]]


def _selected(part: str, source: Source) -> str:
    part = part.strip()
    if part == "*":
        return f"{source.sql}.*"
    found = SELECTED.fullmatch(part)
    if "(" in part or part.startswith("..."):
        raise not_implemented(f"Embedding and aggregates ('{part}') are not implemented here.")
    if found is None:
        raise unparsable(
            f'"failed to parse select parameter ({part})" (line 1, column 1)', "unexpected column"
        )
    sql, _, name = source.path(found["path"])
    if found["cast"]:
        sql = f"cast({sql} as {_type_name(found['cast'])})"
    return f"{sql} as {quoted(found['alias'] or name)}"


def _type_name(given: str) -> str:
    bare, array = (given[:-2], "[]") if given.endswith("[]") else (given, "")
    # Unquoted on purpose: `int` and `double precision` are SQL words, not names; the pattern keeps it safe.
    return f"{bare}{array}"


def _logic(name: str, value: str, source: Source, statement: Statement) -> str:
    if not (value.startswith("(") and value.endswith(")")):
        raise unparsable(
            f'"failed to parse logic tree ({value})" (line 1, column 1)', "expecting parentheses"
        )
    word = name.removeprefix("not.")
    parts = [_condition(part.strip(), source, statement) for part in split_outside(value[1:-1])]
    joined = f"({f' {word} '.join(parts)})"
    return f"not {joined}" if name.startswith("not.") else joined


def _condition(part: str, source: Source, statement: Statement) -> str:
    for word in LOGIC:
        if part.startswith(f"{word}("):
            return _logic(word, part[len(word) :], source, statement)
    name, dot, value = part.partition(".")
    if not dot:
        raise unparsable(f'"failed to parse logic tree ({part})" (line 1, column 1)', "expecting a filter")
    return _filter(name, value, source, statement, is_nested=True)


def _filter(name: str, value: str, source: Source, statement: Statement, *, is_nested: bool) -> str:
    if "." in name:
        raise not_implemented(f"Filters on embedded resources ('{name}') are not implemented here.")
    found = OPERATOR.fullmatch(value)
    word = found[2] if found else ""
    if found is None or word not in {*COMPARISONS, *ELSEWHERE, "in", "is"}:
        raise unparsable(
            f'"failed to parse filter ({value})" (line 1, column 1)',
            f'unexpected "{value[:1]}" expecting "not" or operator (eq, gt, ...)',
        )
    if word in ELSEWHERE or found[3]:
        raise not_implemented(f"The operator '{word}{found[3] or ''}' is not implemented here.")
    sql, type_, _ = source.path(name)
    operand = _unquoted(found[4]) if is_nested and word != "in" else found[4]
    condition = _compared(sql, type_, word, operand, statement)
    return f"not {condition}" if found[1] else condition


def _compared(sql: str, type_: str, word: str, operand: str, statement: Statement) -> str:
    if word == "is":
        if operand.lower() not in IS_VALUES:
            raise unparsable(f'"failed to parse filter (is.{operand})" (line 1, column 4)', "expecting null")
        return f"{sql} is {IS_VALUES[operand.lower()]}"
    if word == "in":
        if not (operand.startswith("(") and operand.endswith(")")):
            raise unparsable(f'"failed to parse filter (in.{operand})" (line 1, column 4)', 'expecting "("')
        inside = operand[1:-1]
        items = [_unquoted(item) for item in split_outside(inside)] if inside else []
        return f"{sql} = any ({statement.value(_array(items), f'{type_}[]')})"
    if word in ("like", "ilike"):
        return f"{sql} {word} {statement.value(operand.replace('*', '%'))}"
    return f"{sql} {COMPARISONS[word]} {statement.value(operand, type_)}"


def _unquoted(item: str) -> str:
    if len(item) >= 2 and item.startswith('"') and item.endswith('"'):
        return re.sub(r"\\(.)", r"\1", item[1:-1], flags=re.DOTALL)
    return item


def _array(items: Sequence[str]) -> str:
    escaped = (re.sub(r'(["\\])', r"\\\1", item) for item in items)
    return "{" + ",".join(f'"{item}"' for item in escaped) + "}"
