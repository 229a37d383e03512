r"""Gives row changes the JSON that Realtime sends, as one database role may see it.

The texts in the log are cast by PostgreSQL itself, so numbers keep all their digits and every type looks as
in production, quirks included: a type is named without its modifier (`char(5)` shows one character), NaN
and infinite numbers become null, `bytea` loses its `\x`, and of a change above 1 MiB only small values stay.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import asyncpg

from devstack.realtime.bindings import OPERATORS, Filter
from devstack.realtime.pgoutput import Change, Relation, Row, Toasted
from devstack.realtime.slot import acting_as

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

NO_PRIMARY_KEY: Final = "Error 400: Bad Request, no primary key"
UNAUTHORIZED: Final = "Error 401: Unauthorized"
TOO_LARGE: Final = "Error 413: Payload Too Large"
LARGEST_RECORD: Final = 1_048_576  # bytes
SMALL_VALUE: Final = 64  # bytes
NUMBER_OIDS: Final = frozenset({700, 701, 1700})  # float4, float8, numeric
NOT_IN_JSON: Final = frozenset({"NaN", "Infinity", "-Infinity"})

DESCRIBE: Final = """
select a.attname as name, t.typname as type, pg_catalog.format_type(t.oid, null) as cast_to,
  p.position - 1 as position,
  pg_catalog.pg_get_expr(d.adbin, d.adrelid) as expression,
  coalesce(has_column_privilege($3::name, a.attrelid, a.attnum, 'SELECT'), false) as selectable,
  coalesce(a.attnum = any (i.indkey), false) as is_key, c.relrowsecurity as row_security,
  (select r.rolbypassrls or r.rolsuper from pg_catalog.pg_roles as r where r.rolname = $3) as sees_all
from pg_catalog.pg_attribute as a
join pg_catalog.pg_class as c on c.oid = a.attrelid
join pg_catalog.pg_type as t on t.oid = a.atttypid
left join unnest($2::text[]) with ordinality as p (name, position) on p.name = a.attname
left join pg_catalog.pg_index as i on i.indrelid = a.attrelid and i.indisprimary
left join pg_catalog.pg_attrdef as d on d.adrelid = a.attrelid and d.adnum = a.attnum and a.attgenerated = 's'
  and p.position is null
where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped
  and (p.position is not null or a.attgenerated = 's')
order by a.attnum
"""


@dataclass(frozen=True, slots=True)
class Field:
    """A column as the database knows it now. `position` is its place in the log's rows; None for a generated
    column that the log leaves out and `expression` computes."""

    name: str
    type: str
    cast_to: str
    position: int | None
    expression: str | None
    selectable: bool
    is_key: bool

    @property
    def quoted(self) -> str:
        return '"' + self.name.replace('"', '""') + '"'


@dataclass(frozen=True, slots=True)
class Seen:
    """A table through the eyes of one role."""

    relation: Relation
    fields: tuple[Field, ...]
    row_security: bool
    sees_all: bool
    """Whether row level security, where it is on, does not apply to the role."""

    def narrowed(self, columns: tuple[str, ...] | None) -> Seen:
        """The same table for one who asked for some columns only; the key is always shown."""
        if columns is None:
            return self
        fields = tuple(
            field if field.is_key or field.name in columns else replace(field, selectable=False)
            for field in self.fields
        )
        return replace(self, fields=fields)

    @property
    def keys(self) -> tuple[Field, ...]:
        """The columns of the primary key."""
        return tuple(field for field in self.fields if field.is_key)

    @property
    def error(self) -> str | None:
        """Why the role gets an error instead of rows, if it does."""
        if not self.keys:
            return NO_PRIMARY_KEY
        return None if all(field.selectable for field in self.keys) else UNAUTHORIZED


@dataclass(frozen=True, slots=True)
class Record:
    """A row as JSON text; `matched` says which of the asked filters hold for it."""

    text: str
    matched: tuple[bool, ...]
    too_large: bool


async def look(connection: Connection, relation: Relation, role: str) -> Seen | None:
    """How `role` sees the table now, or None when the table is gone."""
    names = [column.name for column in relation.columns]
    found = await connection.fetch(DESCRIBE, relation.oid, names, role)
    if not found:
        return None
    fields = tuple(
        Field(
            name=row["name"],
            type=row["type"],
            cast_to=row["cast_to"],
            position=row["position"],
            expression=row["expression"],
            selectable=row["selectable"],
            is_key=row["is_key"],
        )
        for row in found
    )
    return Seen(relation, fields, found[0]["row_security"], found[0]["sees_all"])


async def render(
    connection: Connection,
    seen: Seen,
    rows: Sequence[tuple[Row, frozenset[str]]],
    filters: Sequence[Filter],
    largest: int = LARGEST_RECORD,
) -> list[Record]:
    """One record per row; of each row only the columns named beside it are shown, and of one that is larger than
    `largest` bytes only the small values."""
    if not rows:
        return []
    selectable = {field.name for field in seen.fields if field.selectable}
    everything = [field.name for field in seen.fields]
    hidden: dict[frozenset[str], list[str]] = {}
    for _, shown in rows:
        if shown not in hidden:
            hidden[shown] = [name for name in everything if name not in shown & selectable]
    given = [[*_texts(seen.relation, row), hidden[shown] or None] for row, shown in rows]
    values = [each.value for each in filters]
    found = await connection.fetch(_rendering(seen, filters, largest), json.dumps(given), values)
    return [Record(row["record"], tuple(row["matched"]), row["too_large"]) for row in found]


async def visible(
    connection: Connection, seen: Seen, rows: Sequence[Row], role: str, claims: str
) -> list[bool]:
    """For each row, whether `role` with `claims` finds it by its primary key. Row level security decides, and
    so does time: a row that was deleted in the meantime is found by nobody."""
    keys = [field for field in seen.keys if field.position is not None]
    same = " and ".join(f"t.{key.quoted} = (n.x ->> {at})::{key.cast_to}" for at, key in enumerate(keys))
    table = f"{_quote(seen.relation.schema)}.{_quote(seen.relation.table)}"
    given = [[_text(row[key.position]) for key in keys if key.position is not None] for row in rows]
    async with acting_as(connection, role, claims):
        found = await connection.fetch(
            f"""select exists (select from {table} as t where {same}) as found
            from pg_catalog.jsonb_array_elements($1::jsonb) with ordinality as n (x, i) order by n.i""",
            json.dumps(given),
        )
    return [row["found"] for row in found]


def shown_columns(seen: Seen, change: Change, row: Row, *, old: bool) -> frozenset[str]:
    """The columns of `row` that may be shown at all, before privileges. Of an old row those are the ones the
    log holds; of a deleted row under row level security only the key, since no policy can be asked any more."""
    if old and (change.old is None or (change.kind == "DELETE" and seen.row_security)):
        return frozenset(field.name for field in seen.keys)
    held = [
        column.name
        for column, value in zip(change.relation.columns, row, strict=True)
        if value is not Toasted.UNCHANGED and (not old or change.old_is_whole or column.key)
    ]
    generated = [f.name for f in seen.fields if f.position is None and (not old or change.old_is_whole)]
    return frozenset(held + generated)


def columns(seen: Seen) -> str:
    """The `columns` of a table's events, as JSON text."""
    return json.dumps([{"name": field.name, "type": field.type} for field in seen.fields if field.selectable])


def event(change: Change, shown: str, record: Record | None, old: Record | None) -> str:
    """The `data` of a postgres_changes frame, as JSON text; `shown` is what `columns` said."""
    too_large = any(each is not None and each.too_large for each in (record, old))
    at = change.committed_at
    parts = {
        "columns": shown,
        "commit_timestamp": f'"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03}Z"',
        "errors": json.dumps([TOO_LARGE]) if too_large else "null",
    }
    if old is not None:
        parts["old_record"] = old.text
    if record is not None:
        parts["record"] = record.text
    return _event(change, parts)


def error_event(change: Change, error: str) -> str:
    """The `data` of a postgres_changes frame that tells an error instead of a row."""
    parts = {"columns": "[]", "commit_timestamp": "null", "errors": json.dumps([error]), "record": "{}"}
    return _event(change, parts)


def _event(change: Change, parts: dict[str, str]) -> str:
    relation = change.relation
    parts |= {
        "schema": json.dumps(relation.schema),
        "table": json.dumps(relation.table),
        "type": json.dumps(change.kind),
    }
    return "{" + ",".join(f'"{name}":{text}' for name, text in parts.items()) + "}"


def _rendering(seen: Seen, filters: Sequence[Filter], largest: int) -> str:
    """SQL over $1 (rows: their texts, and behind them the columns to leave out, or null) and $2 (the filters' values).
    A record's text is made once (hence the `offset 0`, which keeps the planner from making it twice)."""
    fields = _needed(seen, filters)
    logged = ", ".join(f"{_cast(field)} as {field.quoted}" for field in fields if field.position is not None)
    computed = "".join(
        f", ({field.expression}) as {field.quoted}" for field in fields if field.expression is not None
    )
    tests = ", ".join(_test(seen, tested, at) for at, tested in enumerate(filters, start=1))
    hidden = len(seen.relation.columns)
    return f"""
    select
      case when size.too_large then (
        select coalesce(jsonb_object_agg(e.key, e.value), '{{}}') from jsonb_each(shown.record) as e
        where octet_length(e.value::text) <= {SMALL_VALUE}
      )::text else said.text end as record,
      array[{tests}]::bool[] as matched,
      size.too_large
    from jsonb_array_elements($1::jsonb) with ordinality as n (x, i)
    cross join lateral (select logged.*{computed} from (select {logged}) as logged) as r
    cross join lateral (
      select case when n.x ->> {hidden} is null then to_jsonb(r)
        else to_jsonb(r) - array(select jsonb_array_elements_text(n.x -> {hidden})) end as record
      offset 0
    ) as shown
    cross join lateral (select shown.record::text as text offset 0) as said
    cross join lateral (select octet_length(said.text) > {largest} as too_large) as size
    where cardinality($2::text[]) >= 0
    order by n.i"""


def _needed(seen: Seen, filters: Sequence[Filter]) -> Sequence[Field]:
    """The fields that are shown or tested; all of them where one is computed from others."""
    tested = {each.column for each in filters}
    needed = [field for field in seen.fields if field.selectable or field.name in tested]
    return needed if all(field.expression is None for field in needed) else seen.fields


def _cast(field: Field) -> str:
    text = f"(n.x ->> {field.position})"
    return f"substr({text}, 3)" if field.cast_to == "bytea" else f"{text}::{field.cast_to}"


def _test(seen: Seen, tested: Filter, at: int) -> str:
    field = next((field for field in seen.fields if field.name == tested.column), None)
    if field is None:
        return "false"
    value = f"($2::text[])[{at}]"
    if tested.operator == "in":
        return f"coalesce(r.{field.quoted} = any ({value}::{field.cast_to}[]), false)"
    return f"coalesce(r.{field.quoted} {OPERATORS[tested.operator]} {value}::{field.cast_to}, false)"


def _texts(relation: Relation, row: Row) -> list[str | None]:
    return [
        None if column.type_oid in NUMBER_OIDS and value in NOT_IN_JSON else _text(value)
        for column, value in zip(relation.columns, row, strict=True)
    ]


def _text(value: str | Toasted | None) -> str | None:
    return None if isinstance(value, Toasted) else value


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
