"""Tables, views and their relations in the exposed schemas, read from pg_catalog."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Literal

from devstack.rest.relations import Name, Relation, ViewColumns, infer
from devstack.rest.views import Numbered, View, origins

if TYPE_CHECKING:
    import asyncpg

TABLES: Final = """
    select c.oid, n.nspname as schema, c.relname as name, a.attname as column,
           format_type(a.atttypid, -1) as type, format_type(a.atttypid, a.atttypmod) as nominal,
           coalesce(bt.typname, t.typname) = 'tsvector' as is_tsvector,
           case
             when a.attgenerated <> '' then null
             when a.attidentity = 'd' then format('nextval(%L)', s.objid::regclass)
             when t.typtype = 'd' and d.adbin is null then pg_get_expr(t.typdefaultbin, 0)
             else pg_get_expr(d.adbin, d.adrelid)
           end as default
    from pg_class as c
    join pg_namespace as n on n.oid = c.relnamespace
    join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    join pg_type as t on t.oid = a.atttypid
    left join pg_type as bt on bt.oid = t.typbasetype
    left join pg_attrdef as d on d.adrelid = a.attrelid and d.adnum = a.attnum
    left join pg_depend as s on s.refclassid = 'pg_class'::regclass and s.classid = 'pg_class'::regclass
      and s.refobjid = a.attrelid and s.refobjsubid = a.attnum and s.deptype = 'i'
    where n.nspname = any ($1::text[]) and c.relkind in ('r', 'p', 'v', 'm', 'f')
      and not c.relispartition -- a partition is no table of the API
    order by c.oid, a.attnum
"""
KEYS: Final = """
    select k.conname as constraint, k.contype::text as kind, k.conrelid as table, n.nspname as schema,
           c.relname as name, k.conkey as numbers, k.confrelid as other, fn.nspname as other_schema,
           fc.relname as other_name, k.confkey as other_numbers, k.conparentid <> 0 as is_inherited,
           array(
             select a.attname from unnest(k.conkey) with ordinality as u (number, place)
             join pg_attribute as a on a.attrelid = k.conrelid and a.attnum = u.number order by u.place
           ) as columns,
           array(
             select a.attname from unnest(k.confkey) with ordinality as u (number, place)
             join pg_attribute as a on a.attrelid = k.confrelid and a.attnum = u.number order by u.place
           ) as other_columns
    from pg_constraint as k
    join pg_class as c on c.oid = k.conrelid
    join pg_namespace as n on n.oid = c.relnamespace
    left join pg_class as fc on fc.oid = k.confrelid
    left join pg_namespace as fn on fn.oid = fc.relnamespace
    where k.contype in ('p', 'u', 'f') and n.nspname not in ('pg_catalog', 'information_schema')
    order by k.conrelid, k.conname
"""
VIEWS: Final = """
    select c.oid, n.nspname as schema, c.relname as name, r.ev_action::text as rule,
           array(
             select a.attname::text from pg_attribute as a
             where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped order by a.attnum
           ) as columns
    from pg_class as c
    join pg_namespace as n on n.oid = c.relnamespace
    join pg_rewrite as r on r.ev_class = c.oid and r.ev_type = '1'
    where n.nspname = any ($1::text[]) and c.relkind in ('v', 'm')
    order by c.oid
"""
COMPUTED: Final = """
    select fn.nspname as function_schema, p.proname as function, an.nspname as schema, ac.relname as name,
           rn.nspname as other_schema, rc.relname as other_name, not p.proretset or p.prorows = 1 as gives_one
    from pg_proc as p
    join pg_namespace as fn on fn.oid = p.pronamespace
    join pg_class as ac on ac.reltype = p.proargtypes[0] and ac.relkind in ('r', 'p', 'v', 'm', 'f')
    join pg_namespace as an on an.oid = ac.relnamespace
    join pg_class as rc on rc.reltype = p.prorettype and rc.relkind in ('r', 'p', 'v', 'm', 'f')
    join pg_namespace as rn on rn.oid = rc.relnamespace
    where p.pronargs = 1
    order by p.oid
"""


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its type as SQL spells it, with its length as `nominal`; its default if there is one."""

    name: str
    type: str
    default: str | None = None
    nominal: str = ""
    is_tsvector: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table or view of an exposed schema; a view's primary key is that of the table that it shows."""

    name: str
    columns: Mapping[str, Column]
    primary_key: tuple[str, ...]
    schema: str = "public"


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Tables and relations, by schema and name."""

    tables: Mapping[str, Mapping[str, Table]]
    relations: Mapping[str, Mapping[str, tuple[Relation, ...]]]


@dataclass(slots=True)
class _Keys:
    """Constraints as read, by what they are for."""

    foreign: list[Relation] = field(default_factory=list[Relation])
    primary: dict[Name, tuple[str, ...]] = field(default_factory=dict[Name, tuple[str, ...]])
    # (table's oid, its name, constraint, kind, columns with their names): what a view may show.
    shown: list[tuple[int, Name, str, Literal["primary", "foreign", "referenced"], list[tuple[int, str]]]] = (
        field(
            default_factory=list[
                tuple[int, Name, str, Literal["primary", "foreign", "referenced"], list[tuple[int, str]]]
            ]
        )
    )


async def read_catalogue(
    connection: asyncpg.Connection[asyncpg.Record], schemas: Sequence[str], extra: Sequence[str]
) -> Catalogue:
    """Reads it; relations lead only from exposed tables to exposed tables, through exposed junctions."""
    tables: dict[str, dict[str, Table]] = {schema: {} for schema in schemas}
    by_oid: dict[int, dict[str, Column]] = {}
    for row in await connection.fetch(TABLES, schemas):
        columns = by_oid.setdefault(row["oid"], {})
        name = row["column"]
        columns[name] = Column(name, row["type"], row["default"], row["nominal"], row["is_tsvector"])
        tables[row["schema"]][row["name"]] = Table(row["name"], columns, (), row["schema"])
    keys = _keys(await connection.fetch(KEYS))
    views = await connection.fetch(VIEWS, [*schemas, *extra])
    in_views = _in_views(keys, views)
    primary = {**keys.primary}
    for shown in in_views:
        if shown.kind == "primary":
            primary[shown.view] = primary.get(shown.view, ()) + tuple(names[0] for _, names in shown.columns)
    computed = [_computed(row) for row in await connection.fetch(COMPUTED)]
    relations = _override(infer(keys.foreign, in_views, primary), computed)
    return Catalogue(
        {
            schema: {
                name: replace(table, primary_key=primary.get(Name(schema, name), ()))
                for name, table in each.items()
            }
            for schema, each in tables.items()
        },
        {schema: _of_schema(schema, relations, schemas) for schema in schemas},
    )


def _keys(rows: Sequence[asyncpg.Record]) -> _Keys:
    keys = _Keys()
    unique = {(row["table"], frozenset(row["numbers"])) for row in rows if row["kind"] in "pu"}
    for row in rows:
        table = Name(row["schema"], row["name"])
        own = list(zip(row["numbers"], row["columns"], strict=True))
        if row["kind"] == "p":
            keys.primary[table] = tuple(row["columns"])
            keys.shown.append((row["table"], table, row["constraint"], "primary", own))
        if row["kind"] != "f":
            continue
        other = Name(row["other_schema"], row["other_name"])
        theirs = list(zip(row["other_numbers"], row["other_columns"], strict=True))
        keys.shown.append((row["table"], table, row["constraint"], "foreign", own))
        keys.shown.append((row["other"], other, row["constraint"], "referenced", theirs))
        if not row["is_inherited"]:
            is_unique = (row["table"], frozenset(row["numbers"])) in unique
            pairs = tuple(zip(row["columns"], row["other_columns"], strict=True))
            kind: Literal["one-to-one", "many-to-one"] = "one-to-one" if is_unique else "many-to-one"
            keys.foreign.append(Relation(table, other, kind, row["constraint"], pairs))
    return keys


def _in_views(keys: _Keys, rows: Sequence[asyncpg.Record]) -> list[ViewColumns]:
    """The keys whose columns a view shows all of."""
    names = {row["oid"]: Name(row["schema"], row["name"]) for row in rows}
    views: dict[int, View] = {}
    for row in rows:
        columns: list[str] = row["columns"]
        views[row["oid"]] = View(row["oid"], row["rule"], dict(enumerate(columns, 1)))
    found: list[ViewColumns] = []
    for oid, shown in origins(views).items():
        for table_oid, table, constraint, kind, own in keys.shown:
            pairs = _shown(shown, table_oid, own)
            if pairs is not None:
                found.append(ViewColumns(names[oid], table, constraint, kind, pairs))
    return found


def _shown(
    shown: Mapping[Numbered, Sequence[str]], table: int, columns: Sequence[tuple[int, str]]
) -> tuple[tuple[str, tuple[str, ...]], ...] | None:
    if any((table, number) not in shown for number, _ in columns):
        return None
    return tuple((name, tuple(shown[table, number])) for number, name in columns)


def _computed(row: asyncpg.Record) -> Relation:
    return Relation(
        table=Name(row["schema"], row["name"]),
        other=Name(row["other_schema"], row["other_name"]),
        kind="computed",
        function=Name(row["function_schema"], row["function"]),
        gives_one=row["gives_one"],
    )


def _override(relations: Sequence[Relation], computed: Sequence[Relation]) -> list[Relation]:
    """A computed relation takes the place of those to the table that its function is named like."""
    taken = {(each.table, each.function) for each in computed}
    return [*(each for each in relations if (each.table, each.other) not in taken), *computed]


def _of_schema(
    schema: str, relations: Sequence[Relation], schemas: Sequence[str]
) -> dict[str, tuple[Relation, ...]]:
    found: dict[str, list[Relation]] = {}
    for each in relations:
        middle = each.junction.table.schema if each.junction else schema
        # An embed is looked up in the schema of the request alone.
        seen_as = each.function.schema if each.function else each.other.schema
        if each.table.schema == seen_as == schema and each.other.schema in schemas and middle in schemas:
            found.setdefault(each.table.name, []).append(each)
    return {name: tuple(sorted(each, key=Relation.rank)) for name, each in found.items()}
