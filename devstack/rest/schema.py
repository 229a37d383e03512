"""What the REST side knows about the database: tables and views, read from pg_catalog."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final

from devstack.rest.errors import RestError

if TYPE_CHECKING:
    import asyncpg

SCHEMA: Final = "public"
JSON_TYPES: Final = ("json", "jsonb")

TABLES: Final = """
    select c.oid, c.relname as name, c.relkind::text as kind, a.attname as column,
           format_type(a.atttypid, -1) as type, pg_get_expr(d.adbin, d.adrelid) as "default",
           coalesce(a.attnum = any (k.conkey), false) as is_key
    from pg_class as c
    join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    left join pg_attrdef as d on d.adrelid = a.attrelid and d.adnum = a.attnum and a.attgenerated = ''
    left join pg_constraint as k on k.conrelid = c.oid and k.contype = 'p'
    where c.relnamespace = $1::text::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'f', 'c')
    order by c.oid, a.attnum
"""


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its type as SQL spells it, and its default expression if there is one."""

    name: str
    type: str
    default: str | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """A table or view of the exposed schema."""

    name: str
    columns: Mapping[str, Column]
    primary_key: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Schema:
    """One reading of the catalog. Stale after DDL until it is read again."""

    tables: Mapping[str, Table]

    def table(self, name: str) -> Table:
        """The table, or PGRST205."""
        found = self.tables.get(name)
        if found is not None:
            return found
        near = get_close_matches(name, self.tables, 1, 0.75)
        hint = f"Perhaps you meant the table '{SCHEMA}.{near[0]}'" if near else None
        message = f"Could not find the table '{SCHEMA}.{name}' in the schema cache"
        raise RestError(404, "PGRST205", message, hint=hint)


async def read_schema(connection: asyncpg.Connection[asyncpg.Record]) -> Schema:
    """Reads them from the catalog; one query."""
    tables: dict[str, Table] = {}
    by_oid: dict[int, dict[str, Column]] = {}
    keys: dict[str, list[str]] = {}
    for row in await connection.fetch(TABLES, SCHEMA):
        columns = by_oid.setdefault(row["oid"], {})
        columns[row["column"]] = Column(row["column"], row["type"], row["default"])
        key = keys.setdefault(row["name"], [])
        if row["is_key"]:
            key.append(row["column"])
        if row["kind"] != "c":
            tables[row["name"]] = Table(row["name"], columns, ())
    tables = {name: Table(name, each.columns, tuple(keys[name])) for name, each in tables.items()}
    return Schema(tables)
