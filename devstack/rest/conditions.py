"""From conditions to SQL: operators with their operands, joined by words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from devstack.rest.plan import Joined, Node, NullEmbed, Planned
from devstack.rest.quoting import Statement, literal, quoted
from devstack.rest.tree import Field, Filter, Operation

OPERATORS: Final = {
    "eq": "=", "neq": "<>", "gt": ">", "gte": ">=", "lt": "<", "lte": "<=", "like": "like", "ilike": "ilike",
    "match": "~", "imatch": "~*", "cs": "@>", "cd": "<@", "ov": "&&", "sl": "<<", "sr": ">>", "nxr": "&<",
    "nxl": "&>", "adj": "-|-", "isdistinct": "is distinct from",
}  # fmt: skip
SEARCHES: Final = {
    "fts": "to_tsquery", "plfts": "plainto_tsquery", "phfts": "phraseto_tsquery", "wfts": "websearch_to_tsquery",
}  # fmt: skip
COMPARISONS: Final = frozenset({"eq", "neq", "gt", "gte", "lt", "lte", "isdistinct"})
PATTERNS: Final = frozenset({"like", "ilike"})
MATCHES: Final = frozenset({"match", "imatch"})
TEXTS: Final = ("text", "character varying")
# What is certainly a value of a type may be a parameter, which keeps the statement the same for all of them.
# Anything else is told by PostgreSQL to be wrong while it reads the statement, as with PostgREST, whether a row
# is ever compared with it or not.
CERTAIN: Final = {
    "text": re.compile(r".*", re.DOTALL),
    "smallint": re.compile(r"-?\d{1,4}"),
    "integer": re.compile(r"-?\d{1,9}"),
    "bigint": re.compile(r"-?\d{1,18}"),
    "boolean": re.compile(r"true|false"),
    "uuid": re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
}


def path(field_: Field, name: str, node: Node | None) -> tuple[str, str | None]:
    """SQL and, when it is known, type of a column or of a way into the JSON in it."""
    if field_.name == "*":
        return f"{name}.*", None
    known = node.columns.get(field_.name) if node else None
    sql, type_ = f"{name}.{quoted(field_.name)}", known.type if known else None
    if not field_.steps:
        return sql, type_
    if type_ not in ("json", "jsonb"):
        sql, type_ = f"to_jsonb({sql})", "jsonb"
    for step in field_.steps:
        sql += step.arrow + (f"{literal(step.key)}::int" if step.is_index else literal(step.key))
        type_ = "text" if step.arrow == "->>" else type_
    return f"({sql})", type_


def condition(part: Planned, name: str, node: Node, statement: Statement) -> str:
    if isinstance(part, NullEmbed):
        return f"{quoted(part.join)} is {'' if part.is_negated else 'not '}distinct from null"
    if isinstance(part, Joined):
        return all_of(part, [condition(each, name, node, statement) for each in part.parts])
    return compared(part, name, node, statement)


def all_of(part: Joined, parts: Sequence[str]) -> str:
    joined = f"({f' {part.word} '.join(parts)})"
    return f"not {joined}" if part.is_negated else joined


def compared(part: Filter, name: str, node: Node, statement: Statement) -> str:
    operation = part.operation
    sql, type_ = path(part.field, name, node)
    if operation.name in SEARCHES:
        condition = _searched(operation, sql, statement, is_vector=_is_vector(part.field, node))
    elif operation.name == "is":
        condition = f"{sql} is {str(operation.value).replace('_', ' ')}"
    elif operation.name == "in":
        condition = f"{sql} = any ({_listed(operation.value, type_, statement)})"
    else:
        condition = f"{sql} {OPERATORS[operation.name]} {_operand(operation, type_, statement)}"
    return f"not {condition}" if operation.is_negated else condition


def _operand(operation: Operation, type_: str | None, statement: Statement) -> str:
    value = str(operation.value)
    if operation.name in PATTERNS:
        value = value.replace("*", "%")
    if operation.quantifier is not None:
        return f"{operation.quantifier} ({literal(value)})"
    kind = "text" if type_ in TEXTS else type_
    is_same = operation.name in COMPARISONS or (kind == "text" and operation.name in (PATTERNS | MATCHES))
    return statement.value(value, kind) if is_same and kind and _is_certain(kind, value) else literal(value)


def _is_certain(type_: str, value: str) -> bool:
    pattern = CERTAIN.get(type_)
    return pattern is not None and pattern.fullmatch(value) is not None


def _listed(values: str | tuple[str, ...], type_: str | None, statement: Statement) -> str:
    given = () if values == ("",) else tuple(values)
    escaped = (value.replace("\\", "\\\\").replace('"', '\\"') for value in given)
    array = "{" + ",".join(f'"{value}"' for value in escaped) + "}"
    kind = "text" if type_ in TEXTS else type_
    is_certain = kind is not None and all(_is_certain(kind, value) for value in given)
    return statement.value(array, f"{kind}[]") if is_certain and kind in CERTAIN else literal(array)


def _is_vector(field_: Field, node: Node) -> bool:
    known = node.columns.get(field_.name)
    return known is not None and known.is_tsvector


def _searched(operation: Operation, sql: str, statement: Statement, *, is_vector: bool) -> str:
    language = "" if operation.language is None else f"{literal(operation.language)}, "
    vector = sql if is_vector else f"to_tsvector({language}{sql})"
    return f"{vector} @@ {SEARCHES[operation.name]}({language}{statement.value(str(operation.value))})"
