"""From a plan to the SELECT that reads it, and to the one that counts its rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from devstack.rest.conditions import all_of, compared, condition, path
from devstack.rest.plan import Joined, Node, NullEmbed, Planned
from devstack.rest.quoting import Statement, literal, quoted
from devstack.rest.tree import Field, OrderTerm, SelectField


def read(node: Node, statement: Statement) -> str:
    """The SELECT of a node and of everything embedded in it."""
    name = _name_of(node)
    shown = [
        *(
            _selected(name, item, node)
            for item in ([_STAR] if not node.select and not node.children else node.select)
        ),
        *_extra_for_order(node, name),
        *(part for child in node.children for part in _embedded(child)),
    ]
    joins = "".join(_joined(child, statement) for child in node.children)
    order = "" if node.is_to_many_spread else _order(node, name)
    return (
        f"select {', '.join(shown)} from {_from(node)}{joins}{_where(node, statement)}{order}{_limited(node)}"
    )


def count(node: Node, statement: Statement) -> str:
    """A SELECT with one row for each that the filters leave, whatever the limit."""
    inner = [f"exists ({count(child, statement)})" for child in node.children if child.is_inner]
    own = [_counted(part, node, statement) for part in node.where]
    conditions = [part for part in (*own, *_join_conditions(node), *inner) if part]
    where = f" where {' and '.join(conditions)}" if conditions else ""
    return f"select 1 from {_from(node)}{where}"


def conditions(parts: Sequence[Planned], name: str, node: Node, statement: Statement) -> str:
    """A WHERE clause for a statement that changes rows, or an empty string."""
    return f" where {' and '.join(condition(part, name, node, statement) for part in parts)}" if parts else ""


def table_name(node: Node) -> str:
    """The node's table by its full name."""
    return f"{quoted(node.schema)}.{quoted(node.name)}"


_STAR: Final = SelectField(Field("*"))


def _name_of(node: Node) -> str:
    """What the node's columns are called by."""
    return quoted(node.alias) if node.alias else table_name(node)


def _from(node: Node) -> str:
    relation = node.relation
    if relation is not None and relation.function is not None:
        function = f"{quoted(relation.function.schema)}.{quoted(relation.function.name)}"
        row = f"{quoted(relation.table.schema)}.{quoted(relation.table.name)}"
        source = f"{function}({quoted(node.parent or relation.table.name)}::{row})"
    else:
        source = node.source or table_name(node)
    if node.alias:
        source += f" as {quoted(node.alias)}"
    if relation is not None and relation.junction is not None:
        middle = relation.junction.table
        source += f", {quoted(middle.schema)}.{quoted(middle.name)}"
    return source


def _join_conditions(node: Node) -> list[str]:
    relation = node.relation
    if relation is None or relation.kind == "computed":
        return []
    parent = (
        quoted(node.parent)
        if node.parent
        else f"{quoted(relation.table.schema)}.{quoted(relation.table.name)}"
    )
    if relation.junction is not None:
        middle = f"{quoted(relation.junction.table.schema)}.{quoted(relation.junction.table.name)}"
        return [
            *(f"{_name_of(node)}.{quoted(a)} = {middle}.{quoted(b)}" for a, b in relation.junction.target),
            *(f"{parent}.{quoted(a)} = {middle}.{quoted(b)}" for a, b in relation.junction.source),
        ]
    return [f"{_name_of(node)}.{quoted(theirs)} = {parent}.{quoted(own)}" for own, theirs in relation.columns]


def _where(node: Node, statement: Statement) -> str:
    name = _name_of(node)
    parts = [*(condition(part, name, node, statement) for part in node.where), *_join_conditions(node)]
    return f" where {' and '.join(parts)}" if parts else ""


def _order(node: Node, name: str) -> str:
    terms = ", ".join(_term(term, name, node) for term in node.order)
    return f" order by {terms}" if terms else ""


def _term(term: OrderTerm, name: str, node: Node) -> str:
    return _ordered_by(term, name, node) + _direction(term)


def _ordered_by(term: OrderTerm, name: str, node: Node) -> str:
    """What a term orders by: the node's own column, or that of a row joined to it."""
    return path(
        term.field, quoted(term.relation) if term.relation else name, None if term.relation else node
    )[0]


def _direction(term: OrderTerm) -> str:
    nulls = {None: "", "nullsfirst": " nulls first", "nullslast": " nulls last"}[term.nulls]
    return f" {term.way}{nulls}" if term.way else nulls


def _limited(node: Node) -> str:
    span = node.span
    if span.last is None and not span.first:
        return ""
    limit = "all" if span.limit is None else literal(str(span.limit))
    return f" limit {limit} offset {literal(str(span.first))}"


# What is shown -------------------------------------------------------------------------------------------


def output_name(item: SelectField) -> str | None:
    """The name of an item in the answer when it is not the column's own."""
    if item.alias is not None or not item.field.steps:
        return item.alias
    keys = [step.key for step in item.field.steps if not step.is_index]
    return keys[-1] if keys else item.field.name


def _selected(name: str, item: SelectField, node: Node) -> str:
    sql = path(item.field, name, node)[0]
    if item.cast is not None:
        # Unquoted on purpose: `int` and `double precision` are SQL words, not names; the grammar keeps it safe.
        sql = f"cast({sql} as {item.cast})"
    output = output_name(item)
    return sql if output is None else f"{sql} as {quoted(output)}"


def _extra_for_order(node: Node, name: str) -> list[str]:
    """Columns that the rows of a spread are ordered by once they are one array."""
    if not node.is_to_many_spread:
        return []
    return [
        f"{_ordered_by(term, name, node)} as {quoted(_order_name(node, at))}"
        for at, term in enumerate(node.order)
    ]


def _order_name(node: Node, at: int) -> str:
    return f"{node.join}_{node.order[at].field.name}_{at + 1}"


def _spread_names(node: Node) -> list[str]:
    """Under which names a spread's columns appear in the row it is spread into."""
    own = [output_name(item) or item.field.name for item in node.select]
    if node.is_to_many_spread and "*" in own:
        own = [each for name in own for each in (node.columns if name == "*" else [name])]
    # An empty embed has no column either, and naming it is PostgreSQL's error there too.
    nested = [
        name
        for child in node.children
        for name in (_spread_names(child) if child.is_spread else [child.shown_as])
    ]
    return own + nested


def _embedded(child: Node) -> list[str]:
    """What a joined node adds to its parent's row."""
    join = quoted(child.join)
    if child.is_spread:
        return [f"{join}.*" if name == "*" else f"{join}.{quoted(name)}" for name in _spread_names(child)]
    if child.is_empty:
        return []
    if child.relation is not None and child.relation.is_to_one:
        return [f"row_to_json({join}.*)::jsonb as {quoted(child.shown_as)}"]
    return [f"coalesce({join}.{join}, '[]') as {quoted(child.shown_as)}"]


def _joined(child: Node, statement: Statement) -> str:
    join = quoted(child.join)
    rows = read(child, statement)
    how, condition = ("inner", f"{join} is not null") if child.is_inner else ("left", "true")
    if child.relation is not None and child.relation.is_to_one:
        return f" {how} join lateral ({rows}) as {join} on true"
    shown = [f"json_agg({join})::jsonb as {join}"]
    if child.is_spread:
        order = ", ".join(
            f"{join}.{quoted(_order_name(child, at))}{_direction(term)}"
            for at, term in enumerate(child.order)
        )
        by = f" order by {order}" if order else ""
        shown += [
            f"coalesce(json_agg({join}.{quoted(name)}{by}), '[]')::jsonb as {quoted(name)}"
            for name in _spread_names(child)
        ]
    return f" {how} join lateral (select {', '.join(shown)} from ({rows}) as {join}) as {join} on {condition}"


def _counted(part: Planned, node: Node, statement: Statement) -> str:
    if isinstance(part, NullEmbed):
        child = next(each for each in node.children if each.join == part.join)
        return f"{'' if part.is_negated else 'not '}exists ({count(child, statement)})"
    if isinstance(part, Joined):
        return all_of(part, [_counted(each, node, statement) for each in part.parts])
    return compared(part, _name_of(node), node, statement)
