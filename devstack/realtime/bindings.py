"""What a channel asks to hear: the parts of a postgres_changes binding, and whether the database can serve it.

A binding that cannot be served does not refuse the join: the sentence made here follows in a `system` frame.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, cast

import asyncpg

from devstack.realtime.pgoutput import Kind, Relation

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

PUBLICATION: Final = "supabase_realtime"
KINDS: Final = ("INSERT", "UPDATE", "DELETE")
OPERATORS: Final = {"eq": "=", "neq": "<>", "lt": "<", "lte": "<=", "gt": ">", "gte": ">=", "in": "in"}
NEXT_FILTER: Final = re.compile(r",(?=\w+=(?:eq|neq|lte?|gte?|in)\.)")
AWAY: Final = ("08", "53", "57")  # classes of SQLSTATE: connection, resources, operator
PUBLISHED: Final = """
select format('%I.%I', schemaname, tablename)::pg_catalog.regclass::pg_catalog.oid as oid
from pg_catalog.pg_publication_tables
where pubname = $1 and $2::text in ('*', schemaname::text) and $3::text in ('*', tablename::text)
"""
UNSERVED: Final = "Unable to subscribe to changes with given parameters."


class BindingRefused(Exception):
    """A binding that cannot be served; the message is the text of the `system` frame."""


@dataclass(frozen=True, slots=True)
class Filter:
    """One comparison of a column with a value, e.g. `priority=gt.5`; for `in` the value is an array literal."""

    column: str
    operator: str
    value: str

    def shown(self) -> str:
        """The filter as Realtime quotes it in its messages."""
        return "{" + ", ".join(json.dumps(part) for part in (self.column, self.operator, self.value)) + "}"


@dataclass(frozen=True, slots=True)
class Binding:
    """One wish of a channel. `*` as schema or table means any; all filters have to hold."""

    id: int
    event: str
    schema: str
    table: str
    filters: tuple[Filter, ...]
    columns: tuple[str, ...] | None = None
    """The columns to be shown beside the primary key; None for all."""
    tables: frozenset[int] = frozenset()
    """The published tables it was found to mean when it was subscribed, by oid: a table dropped and made anew is
    another one."""

    def wants(self, kind: Kind, relation: Relation) -> bool:
        """Whether a change of this kind on this table is asked for, filters aside."""
        return relation.oid in self.tables and (
            self.event not in KINDS or self.event == kind  # an unknown event hears everything
        )

    def shown(self) -> str:
        """The binding as Realtime quotes it in its messages."""
        filters = ", ".join(each.shown() for each in self.filters)
        where = f"schema: {self.schema}, table: {self.table}"
        select = "nil" if self.columns is None else json.dumps(self.columns)
        return f"[event: {self.event}, {where}, filters: [{filters}], select: {select}]"


def identity(params: Mapping[str, object]) -> int:
    """The id of a binding: 27 bits, never 0, the same for the same parameters on every join."""
    digest = blake2b(json.dumps(params, sort_keys=True).encode(), digest_size=4).digest()
    return int.from_bytes(digest) % (2**27 - 1) + 1


def parse(params: Mapping[str, object]) -> Binding:
    """The binding that a client's parameters describe; raises BindingRefused."""
    schema, table = params.get("schema"), params.get("table")
    if schema is None and table is None:
        raise BindingRefused(
            "No subscription params provided. Please provide at least a `schema` or `table` to subscribe to: "
            + json.dumps(params)
        )
    wanted = params.get("filter")
    filters = _filters(wanted) if isinstance(wanted, str) and wanted else ()
    event = str(params.get("event", "*")).upper()
    columns = _columns(params.get("select"))
    if columns is not None and "*" in (schema or "public", table or "*"):
        raise BindingRefused("select needs a schema and a table by name in this development stack")
    return Binding(identity(params), event, str(schema or "public"), str(table or "*"), filters, columns)


def _columns(select: object) -> tuple[str, ...] | None:
    if select is None:
        return None
    names = cast("list[object]", select) if isinstance(select, list) else [select]
    if not all(isinstance(name, str) for name in names):
        raise BindingRefused("select must be a list of column names")
    return tuple(str(name) for name in names)


def _filters(text: str) -> tuple[Filter, ...]:
    return tuple(_filter(part) for part in NEXT_FILTER.split(text))


def _filter(text: str) -> Filter:
    column, _, comparison = text.partition("=")
    operator, _, value = comparison.partition(".")
    listed = operator == "in" and value.startswith("(") and value.endswith(")")
    if operator not in OPERATORS or (operator == "in" and not listed):
        raise BindingRefused(f"Error parsing `filter` params: {json.dumps(comparison.split('.', 1))}")
    return Filter(column, operator, "{" + value[1:-1] + "}" if listed else value)


async def published(connection: Connection) -> frozenset[int]:
    """The tables in the publication now, by oid."""
    found = await connection.fetch(PUBLISHED, PUBLICATION, "*", "*")
    return frozenset(row["oid"] for row in found)


async def check(connection: Connection, bindings: Sequence[Binding], role: str) -> tuple[Binding, ...]:
    """Asks the database whether all `bindings` can be served to `role`, and answers them with the tables they mean
    today; raises BindingRefused for the first that cannot. One bad binding thus silences all of its channel, as in
    production."""
    checked: list[Binding] = []
    for binding in bindings:
        try:
            checked.append(replace(binding, tables=await _check(connection, binding, role)))
        except asyncpg.PostgresError as error:
            if (error.sqlstate or "")[:2] in AWAY:
                raise
            name = re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__.removesuffix("Error")).lower()
            raise _exception(binding, f"{error.sqlstate} ({name}) {error.args[0]}") from error
    return tuple(checked)


async def _check(connection: Connection, binding: Binding, role: str) -> frozenset[int]:
    await connection.execute(f"select '{_quoted(role)}'::pg_catalog.regrole")
    tables = await connection.fetch(PUBLISHED, PUBLICATION, binding.schema, binding.table)
    if not tables:
        raise BindingRefused(
            f"{UNSERVED} Please check Realtime is enabled for the given connect parameters: {binding.shown()}"
        )
    for table in tables:
        for each in binding.filters:
            await _check_filter(connection, binding, each, role, table["oid"])
        for name in binding.columns or ():
            if await _column_type(connection, table["oid"], name, role) is None:
                raise _exception(binding, f"P0001 (raise_exception) invalid column for select {name}")
    return frozenset(table["oid"] for table in tables)


async def _check_filter(
    connection: Connection, binding: Binding, tested: Filter, role: str, table: int
) -> None:
    cast_to = await _column_type(connection, table, tested.column, role)
    if cast_to is None:
        raise _exception(binding, f"P0001 (raise_exception) invalid column for filter {tested.column}")
    many = "[]" if tested.operator == "in" else ""
    await connection.fetchval(f"select ($1::text)::{cast_to}{many} is null", tested.value)


async def _column_type(connection: Connection, table: int, name: str, role: str) -> str | None:
    """The type of a column that `role` may read, or None when there is no such column for it."""
    found: str | None = await connection.fetchval(
        """select pg_catalog.format_type(atttypid, null) from pg_catalog.pg_attribute
        where attrelid = $1 and attname = $2 and attnum > 0 and not attisdropped
          and has_column_privilege($3::name, attrelid, attnum, 'SELECT')""",
        table,
        name,
        role,
    )
    return found


def _exception(binding: Binding, error: str) -> BindingRefused:
    return BindingRefused(
        f"{UNSERVED} An exception happened so please check your connect parameters: "
        f"{binding.shown()}. Exception: ERROR {error}"
    )


def _quoted(role: str) -> str:
    return '"' + role.replace('"', '""').replace("'", "''") + '"'
