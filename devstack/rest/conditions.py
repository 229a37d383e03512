"""From conditions to SQL: operators with their operands, joined by words."""

from __future__ import annotations

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
CONTAINMENTS: Final = frozenset({"cs", "cd"})
TEXTS: Final = ("text", "character varying")
# Types of which a constant without a type becomes the same type when compared: these may be parameters.
PLAIN: Final = frozenset(
    {
        "smallint", "integer", "bigint", "numeric", "real", "double precision", "text", "uuid", "boolean", "date",
        "timestamp without time zone", "timestamp with time zone", "time without time zone", "interval", "jsonb",
    }
)  # fmt: skip


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
    kind = _operand_type(operation, type_)
    if operation.quantifier is not None:
        array = literal(value) if kind is None else statement.value(value, f"{kind}[]")
        return f"{operation.quantifier} ({array})"
    return literal(value) if kind is None else statement.value(value, kind)


def _operand_type(operation: Operation, type_: str | None) -> str | None:
    """The type that PostgreSQL would infer for the operand, where that is certain."""
    if type_ in TEXTS and operation.name in (COMPARISONS | PATTERNS | MATCHES):
        return "text"
    if type_ in PLAIN and operation.name in COMPARISONS:
        return type_
    is_container = type_ == "jsonb" or (
        type_ is not None and type_.removesuffix("[]") in PLAIN and type_[-1] == "]"
    )
    return type_ if is_container and operation.name in CONTAINMENTS else None


def _listed(values: str | tuple[str, ...], type_: str | None, statement: Statement) -> str:
    escaped = (value.replace("\\", "\\\\").replace('"', '\\"') for value in values)
    array = "{" + ",".join(f'"{value}"' for value in escaped) + "}" if values != ("",) else "{}"
    kind = "text" if type_ in TEXTS else type_
    return statement.value(array, f"{kind}[]") if kind in PLAIN else literal(array)


def _is_vector(field_: Field, node: Node) -> bool:
    known = node.columns.get(field_.name)
    return known is not None and known.is_tsvector


def _searched(operation: Operation, sql: str, statement: Statement, *, is_vector: bool) -> str:
    language = "" if operation.language is None else f"{literal(operation.language)}, "
    vector = sql if is_vector else f"to_tsvector({language}{sql})"
    return f"{vector} @@ {SEARCHES[operation.name]}({language}{statement.value(str(operation.value))})"
