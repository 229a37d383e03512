"""What a query string says, as a tree of frozen words: nothing here knows the database."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

# The way from the table asked for down to an embedded one, by the names used in `select`.
Path: TypeAlias = tuple[str, ...]
Quantifier: TypeAlias = Literal["any", "all"]


@dataclass(frozen=True, slots=True)
class Step:
    """One step into JSON: `->key`, `->>key`, `->2`."""

    arrow: Literal["->", "->>"]
    key: str
    is_index: bool


@dataclass(frozen=True, slots=True)
class Field:
    """A column, or a way into the JSON in it; `*` is all columns."""

    name: str
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """An operator and its operand as they were written.

    `value` is a list for `in`. `quantifier` is the `any` or `all` of `eq(any)`, `language` the
    configuration of a text search.
    """

    name: str
    value: str | tuple[str, ...]
    is_negated: bool = False
    quantifier: Quantifier | None = None
    language: str | None = None


@dataclass(frozen=True, slots=True)
class Filter:
    """One condition on one field."""

    field: Field
    operation: Operation


@dataclass(frozen=True, slots=True)
class Logic:
    """Conditions joined by `and` or `or`."""

    word: Literal["and", "or"]
    parts: tuple[Condition, ...]
    is_negated: bool = False


Condition: TypeAlias = Filter | Logic


@dataclass(frozen=True, slots=True)
class OrderTerm:
    """One term of an ORDER BY; `relation` names the embedded table that the field is of."""

    field: Field
    way: Literal["asc", "desc"] | None = None
    nulls: Literal["nullsfirst", "nullslast"] | None = None
    relation: str | None = None


@dataclass(frozen=True, slots=True)
class SelectField:
    """A field to return."""

    field: Field
    alias: str | None = None
    cast: str | None = None
    aggregate: str | None = None


@dataclass(frozen=True, slots=True)
class SelectRelation:
    """A related table to embed, as an object of its own or spread into the row it belongs to."""

    name: str
    items: tuple[SelectItem, ...]
    alias: str | None = None
    hint: str | None = None
    join: Literal["inner", "left"] | None = None
    is_spread: bool = False


SelectItem: TypeAlias = SelectField | SelectRelation


@dataclass(frozen=True, slots=True)
class Span:
    """Rows from `first` to `last`, counted from 0; without `last` to the end; empty when last < first."""

    first: int = 0
    last: int | None = None

    @property
    def limit(self) -> int | None:
        """How many rows at most."""
        return None if self.last is None else self.last - self.first + 1

    @property
    def is_empty(self) -> bool:
        """Whether it has no row at all."""
        return self.last is not None and self.last < self.first

    def within(self, first: int, last: int | None) -> Span:
        """What it has in common with another."""
        lasts = [each for each in (self.last, last) if each is not None]
        return Span(max(self.first, first), min(lasts) if lasts else None)


@dataclass(frozen=True, slots=True)
class Query:
    """A whole query string. `fields` are the names of all parameters that are filters."""

    select: tuple[SelectItem, ...] = (SelectField(Field("*")),)
    filters: tuple[tuple[Path, Filter], ...] = ()
    logic: tuple[tuple[Path, Condition], ...] = ()
    orders: tuple[tuple[Path, tuple[OrderTerm, ...]], ...] = ()
    spans: tuple[tuple[Path, Span], ...] = ()
    columns: frozenset[str] | None = None
    on_conflict: tuple[str, ...] | None = None
    fields: frozenset[str] = frozenset()
    arguments: tuple[tuple[str, str], ...] = ()
    canonical: str = ""
    span: Span = field(default=Span())
