"""How tables are related, as PostgREST infers it from foreign keys, and which relation an embed means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Final, Literal, TypeAlias

from devstack.rest.errors import RestError
from devstack.rest.hints import nearest

Kind: TypeAlias = Literal["one-to-many", "many-to-one", "one-to-one", "many-to-many", "computed"]
Pairs: TypeAlias = tuple[tuple[str, str], ...]
SIMILAR: Final = 0.33
ORDER: Final[dict[Kind, int]] = {
    "one-to-many": 0,
    "many-to-one": 1,
    "one-to-one": 2,
    "many-to-many": 3,
    "computed": 4,
}


@dataclass(frozen=True, slots=True, order=True)
class Name:
    """A table's full name."""

    schema: str
    name: str


@dataclass(frozen=True, slots=True)
class Junction:
    """The table in the middle of a many-to-many; each pair is the outer table's column and its own."""

    table: Name
    constraints: tuple[str, str]
    source: Pairs
    target: Pairs


@dataclass(frozen=True, slots=True)
class Relation:
    """A relation seen from `table`; each pair of `columns` is its own column and the other's.

    `is_to_one` says for a computed relation, which is a function of the row, whether it gives one row.
    """

    table: Name
    other: Name
    kind: Kind
    constraint: str = ""
    columns: Pairs = ()
    junction: Junction | None = None
    is_parent: bool = False
    from_view: bool = False
    to_view: bool = False
    function: Name | None = None
    gives_one: bool = False

    @property
    def is_self(self) -> bool:
        """Whether both ends are one table."""
        return self.table == self.other

    @property
    def is_to_one(self) -> bool:
        """Whether a row has at most one related row."""
        return self.kind in ("many-to-one", "one-to-one") or (self.kind == "computed" and self.gives_one)

    def rank(self) -> tuple[object, ...]:
        """What several relations are ordered by when they are told."""
        middle = self.junction
        inner = (middle.table, middle.constraints, middle.source, middle.target) if middle else ()
        return (
            self.other,
            self.is_self,
            ORDER[self.kind],
            self.constraint,
            self.columns,
            self.is_parent,
            inner,
            self.from_view,
            self.to_view,
        )


@dataclass(frozen=True, slots=True)
class ViewColumns:
    """Which columns of a view are those of a key: `table` and `constraint` say which key."""

    view: Name
    table: Name
    constraint: str
    kind: Literal["primary", "foreign", "referenced"]
    columns: tuple[tuple[str, tuple[str, ...]], ...]

    def choices(self) -> list[tuple[str, ...]]:
        """The view's columns for the key's, in every combination when the view has one of them twice."""
        return list(product(*(names for _, names in self.columns)))


def infer(
    keys: Sequence[Relation], in_views: Sequence[ViewColumns], primary_keys: Mapping[Name, Sequence[str]]
) -> list[Relation]:
    """All relations, from both ends, that follow from foreign keys (many-to-one and one-to-one)."""
    forward = [*keys, *(each for key in keys for each in _through_views(key, in_views))]
    backward = [_turned(key) for key in forward]
    return [*forward, *_through_junctions(forward, primary_keys), *backward]


def _turned(key: Relation) -> Relation:
    return replace(
        key,
        table=key.other,
        other=key.table,
        kind="one-to-many" if key.kind == "many-to-one" else "one-to-one",
        columns=tuple((theirs, ours) for ours, theirs in key.columns),
        is_parent=key.kind == "one-to-one",
        from_view=key.to_view,
        to_view=key.from_view,
    )


def _through_views(key: Relation, in_views: Sequence[ViewColumns]) -> Iterable[Relation]:
    """The same key between views of either table and the other table, or views of both."""
    near = [v for v in in_views if (v.table, v.constraint, v.kind) == (key.table, key.constraint, "foreign")]
    far = [
        v for v in in_views if (v.table, v.constraint, v.kind) == (key.other, key.constraint, "referenced")
    ]
    ours = [(view.view, columns) for view in near for columns in view.choices()]
    theirs = [(view.view, columns) for view in far for columns in view.choices()]
    own, other = [pair[0] for pair in key.columns], [pair[1] for pair in key.columns]
    for view, columns in ours:
        yield replace(key, table=view, columns=tuple(zip(columns, other, strict=True)), from_view=True)
    for view, columns in theirs:
        yield replace(key, other=view, columns=tuple(zip(own, columns, strict=True)), to_view=True)
    for (view, columns), (far_view, far_columns) in product(ours, theirs):
        pairs = tuple(zip(columns, far_columns, strict=True))
        yield replace(key, table=view, other=far_view, columns=pairs, from_view=True, to_view=True)


def _through_junctions(
    forward: Sequence[Relation], primary_keys: Mapping[Name, Sequence[str]]
) -> Iterable[Relation]:
    """Many-to-many: two keys of one table that are both part of its primary key."""
    by_table: dict[Name, list[Relation]] = {}
    for key in forward:
        if key.kind == "many-to-one":
            by_table.setdefault(key.table, []).append(key)
    for table, keys in by_table.items():
        primary = set(primary_keys.get(table, ()))
        for one, two in product(keys, keys):
            needed = {own for own, _ in one.columns} | {own for own, _ in two.columns}
            if one.constraint == two.constraint or not needed <= primary:
                continue
            yield Relation(
                table=one.other,
                other=two.other,
                kind="many-to-many",
                junction=Junction(
                    table,
                    (one.constraint, two.constraint),
                    tuple((theirs, own) for own, theirs in one.columns),
                    tuple((theirs, own) for own, theirs in two.columns),
                ),
                from_view=one.to_view,
                to_view=two.to_view,
            )


def find(
    relations: Mapping[str, Sequence[Relation]], schema: str, origin: str, target: str, hint: str | None
) -> Relation:
    """The one relation meant; PGRST200 when there is none, PGRST201 when there are several."""
    fitting = [each for each in relations.get(origin, ()) if _fits(each, target, hint)]
    if len(fitting) == 1:
        return fitting[0]
    raise _ambiguous(origin, target, fitting) if fitting else _none(relations, schema, origin, target, hint)


def _fits(relation: Relation, target: str, hint: str | None) -> bool:
    if relation.kind == "computed":
        return relation.function is not None and relation.function.name == target
    own = relation.columns[0][0] if len(relation.columns) == 1 else None
    theirs = relation.columns[0][1] if len(relation.columns) == 1 else None
    is_named = target == relation.other.name
    if relation.is_self:
        if hint is None:
            by_table = is_named and relation.kind == "one-to-many"
            return by_table or (target == own and relation.kind == "many-to-one")
        return is_named and relation.kind == "one-to-many" and hint == theirs
    if hint is None:
        by_key = target in (relation.constraint or None, own) and not relation.to_view
        return is_named or by_key
    if relation.junction is not None:
        return is_named and hint == relation.junction.table.name
    return is_named and hint in (relation.constraint, own, theirs)


def _none(
    relations: Mapping[str, Sequence[Relation]], schema: str, origin: str, target: str, hint: str | None
) -> RestError:
    known = relations.get(origin)
    names, unknown = (relations, origin) if known is None else ({each.other.name for each in known}, target)
    near = nearest(unknown, names, SIMILAR)
    # A name that is there is no suggestion: then it is the hint that does not fit.
    suggestion = near if near is not None and near.lower() != unknown.lower() else None
    told = f"' using the hint '{hint}" if hint is not None else ""
    return RestError(
        400,
        "PGRST200",
        f"Could not find a relationship between '{origin}' and '{target}' in the schema cache",
        f"Searched for a foreign key relationship between '{origin}' and '{target}{told}' "
        f"in the schema '{schema}', but no matches were found.",
        f"Perhaps you meant '{suggestion}' instead of '{unknown}'." if suggestion else None,
    )


def _ambiguous(origin: str, target: str, fitting: Sequence[Relation]) -> RestError:
    hints = ", ".join(
        f"'{each.other.name}!{each.junction.table.name if each.junction else each.constraint}'"
        for each in fitting
    )
    return RestError(
        300,
        "PGRST201",
        f"Could not embed because more than one relationship was found for '{origin}' and '{target}'",
        [_described(each) for each in fitting],
        f"Try changing '{target}' to one of the following: {hints}. "
        "Find the desired relationship in the 'details' key.",
    )


def _described(relation: Relation) -> dict[str, str]:
    def columns(names: Iterable[str]) -> str:
        return f"({', '.join(names)})"

    middle = relation.junction
    if middle is not None:
        told = (
            f"{middle.table.name} using {middle.constraints[0]}{columns(own for _, own in middle.source)} "
            f"and {middle.constraints[1]}{columns(own for _, own in middle.target)}"
        )
    else:
        told = (
            f"{relation.constraint} using {relation.table.name}{columns(own for own, _ in relation.columns)} "
            f"and {relation.other.name}{columns(theirs for _, theirs in relation.columns)}"
        )
    between = f"{relation.table.name} with {relation.other.name}"
    return {"cardinality": relation.kind, "embedding": between, "relationship": told}
