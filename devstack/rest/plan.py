"""From a query and the catalogue to a plan: which table is joined to which, and what each contributes.

The order of the steps is that in which PostgREST finds mistakes, so that of several the same one is told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from devstack.rest.catalogue import Column, Table
from devstack.rest.errors import RestError
from devstack.rest.relations import Relation, find
from devstack.rest.tree import (
    Condition,
    Filter,
    Logic,
    OrderTerm,
    Path,
    Query,
    SelectField,
    SelectItem,
    SelectRelation,
    Span,
)

EMPTY: Final[Mapping[str, Column]] = {}


@dataclass(frozen=True, slots=True)
class NullEmbed:
    """Whether an embedded row is there: `rel=is.null`."""

    join: str
    is_negated: bool


@dataclass(frozen=True, slots=True)
class Joined:
    """A condition tree of the plan: like Logic, whose parts may be about embedded rows."""

    word: str
    parts: tuple[Planned, ...]
    is_negated: bool


Planned = Filter | Joined | NullEmbed


@dataclass(slots=True)
class Node:
    """One table of the plan with its embedded ones.

    `table` and `columns` say what it is, `source` what it is read from when that is not the table itself,
    `alias` the name under which it is read. `join` is the name under which its rows are joined to those of
    its parent. `embedded` is the order in which embedded rows appear.
    """

    schema: str
    name: str
    depth: int
    select: list[SelectField] = field(default_factory=list[SelectField])
    children: list[Node] = field(default_factory=list["Node"])
    filters: list[Condition] = field(default_factory=list[Condition])
    order: list[OrderTerm] = field(default_factory=list[OrderTerm])
    span: Span = field(default_factory=Span)
    asked: SelectRelation | None = None
    columns: Mapping[str, Column] = field(default_factory=lambda: EMPTY)
    source: str | None = None
    alias: str | None = None
    relation: Relation | None = None
    parent: str = ""
    join: str = ""
    where: list[Planned] = field(default_factory=list[Planned])

    @property
    def shown_as(self) -> str:
        """The name of the embedded row in its parent's."""
        return (self.asked.alias if self.asked else None) or (self.asked.name if self.asked else self.name)

    @property
    def is_spread(self) -> bool:
        """Whether its columns become its parent's."""
        return self.asked is not None and self.asked.is_spread

    @property
    def is_inner(self) -> bool:
        """Whether parents without a row of it are left out."""
        return self.asked is not None and self.asked.join == "inner"

    @property
    def is_empty(self) -> bool:
        """Whether nothing of it is shown: `rel()`."""
        return not self.select and all(child.is_empty for child in self.children)

    @property
    def is_to_many_spread(self) -> bool:
        """Whether its columns become arrays in its parent's row."""
        return self.is_spread and self.relation is not None and not self.relation.is_to_one


@dataclass(frozen=True, slots=True)
class Scope:
    """What a plan is made against: a schema's tables and relations, and how many rows at most."""

    schema: str
    tables: Mapping[str, Table]
    relations: Mapping[str, Sequence[Relation]]
    max_rows: int | None


def plan(
    query: Query, table: Table, scope: Scope, *, source: str | None = None, is_change: bool = False
) -> Node:
    """The plan of a query on a table; `source` is a WITH query whose rows stand for the table's.

    After a change the filters and the logic of the table itself have been dealt with, and nothing is cut off.
    """
    root = Node(table.schema, table.name, 0, columns=table.columns)
    if source is not None:
        root.source, root.alias = source, table.name
    _select(root, query.select)
    is_read = not is_change
    for path, filter_ in reversed(query.filters):
        if is_read or path:
            _at(root, path).filters.insert(0, filter_)
    for path, terms in reversed(query.orders):
        _at(root, path).order = list(terms)
    for path, span in reversed([*query.spans, ((), query.span)] if is_read else []):
        _at(root, path).span = span
    for path, condition in reversed(query.logic):
        if is_read or path:
            _at(root, path).filters.insert(0, condition)
    _relate(root, scope)
    _check_orders(root)
    _find_null_embeds(root)
    _refuse_aggregates(root)
    if is_read:
        _limit(root, scope.max_rows)
    return root


def _select(node: Node, items: Sequence[SelectItem]) -> None:
    for item in items:
        if isinstance(item, SelectField):
            node.select.append(item)
        else:
            child = Node(node.schema, item.name, node.depth + 1, asked=item)
            _select(child, item.items)
            node.children.append(child)


def _at(root: Node, path: Path) -> Node:
    """The node that a path leads to; as with PostgREST, every node on the way moves to the front."""
    node = root
    for name in path:
        found = next(
            (each for each in node.children if each.asked and name in (each.asked.name, each.asked.alias)),
            None,
        )
        if found is None:
            raise not_embedded(name)
        node.children.remove(found)
        node.children.insert(0, found)
        node = found
    return node


def not_embedded(name: str) -> RestError:
    """PGRST108: a filter or an order speaks of a table that is not in `select`."""
    return RestError(
        400,
        "PGRST108",
        f"'{name}' is not an embedded resource in this request",
        hint=f"Verify that '{name}' is included in the 'select' query parameter.",
    )


def _relate(node: Node, scope: Scope) -> None:
    for child in node.children:
        assert child.asked is not None  # noqa: S101 -- only the root was not asked for by name
        relation = find(scope.relations, scope.schema, node.name, child.asked.name, child.asked.hint)
        child.relation = relation
        child.schema, child.name = relation.other.schema, relation.other.name
        table = scope.tables.get(child.name) if child.schema == scope.schema else None
        child.columns = table.columns if table is not None else EMPTY
        child.alias = None if relation.kind == "many-to-many" else f"{child.name}_{child.depth}"
        child.parent = node.alias or ""
        child.join = f"{relation.table.name}_{child.shown_as}_{child.depth}"
        _relate(child, scope)


def _check_orders(node: Node) -> None:
    for at, term in enumerate(node.order):
        if term.relation is None:
            continue
        found = next((each for each in node.children if each.shown_as == term.relation), None)
        if found is None or found.relation is None:
            raise not_embedded(term.relation)
        if not found.relation.is_to_one:
            raise RestError(
                400,
                "PGRST118",
                f"A related order on '{found.shown_as}' is not possible",
                f"'{node.source or node.name}' and '{found.shown_as}' do not form a many-to-one or "
                "one-to-one relationship",
            )
        node.order[at] = OrderTerm(term.field, term.way, term.nulls, found.join)
    for child in node.children:
        _check_orders(child)


def _find_null_embeds(node: Node) -> None:
    node.where = [planned(each, node.children) for each in node.filters]
    for child in node.children:
        _find_null_embeds(child)


def planned(condition: Condition, children: Sequence[Node] = ()) -> Planned:
    """The condition, with those on whether an embedded row is there made out."""
    if isinstance(condition, Logic):
        parts = tuple(planned(part, children) for part in condition.parts)
        return Joined(condition.word, parts, condition.is_negated)
    field_, operation = condition.field, condition.operation
    if field_.steps or operation.name != "is" or operation.value != "null":
        return condition
    found = next((each for each in children if each.shown_as == field_.name), None)
    return condition if found is None else NullEmbed(found.join, operation.is_negated)


def filtered(node: Node) -> set[str]:
    """The names of all columns that filters speak of, those of embedded tables too."""
    found = {name for part in node.where for name in _names_in(part)}
    return found.union(*(filtered(child) for child in node.children))


def _names_in(part: Planned) -> list[str]:
    if isinstance(part, Joined):
        return [name for each in part.parts for name in _names_in(each)]
    return [] if isinstance(part, NullEmbed) else [part.field.name]


def _refuse_aggregates(node: Node) -> None:
    if any(item.aggregate for item in node.select):
        raise RestError(400, "PGRST123", "Use of aggregate functions is not allowed")
    for child in node.children:
        _refuse_aggregates(child)


def _limit(node: Node, max_rows: int | None) -> None:
    if node.span.limit == 0:
        node.span = Span(0, -1)
    elif max_rows is not None:
        node.span = node.span.within(0, node.span.first + max_rows - 1)
    for child in node.children:
        _limit(child, max_rows)
