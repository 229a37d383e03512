"""The statements that change a table: INSERT, UPDATE and DELETE over a JSON body, and what they return."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from devstack.rest.catalogue import Column, Table
from devstack.rest.errors import RestError
from devstack.rest.payload import Payload
from devstack.rest.plan import Node, Planned
from devstack.rest.quoting import Statement, literal, quoted
from devstack.rest.sql import conditions, table_name

# The names of the real server's own, since PostgreSQL's messages tell them.
SOURCE: Final = "pgrst_source"
BODY: Final = "pgrst_body"
# Counts the rows of an upsert that were not there before; lives as long as the statement.
INSERTED: Final = "devstack.inserted"
INSERTED_ROWS: Final = f"nullif(current_setting('{INSERTED}', true), '')::int"


@dataclass(frozen=True, slots=True)
class Upsert:
    """What an INSERT does with rows whose `keys` are there already."""

    keys: tuple[str, ...]
    resolution: Literal["merge-duplicates", "ignore-duplicates"]


def insert(
    node: Node,
    table: Table,
    payload: Payload,
    statement: Statement,
    *,
    returning: str,
    upsert: Upsert | None = None,
    applies_defaults: bool = False,
    only: Sequence[Planned] = (),
) -> str:
    """INSERT; `only` are conditions on the body without which nothing is inserted."""
    columns = columns_of(table, payload)
    names = ", ".join(quoted(column.name) for column in columns)
    values = ", ".join(f"{BODY}.{quoted(column.name)}" for column in columns)
    rows = _rows(payload, columns, statement, applies_defaults=applies_defaults)
    into = f"{table_name(node)} ({names})" if names else table_name(node)
    merges = upsert is not None and upsert.resolution == "merge-duplicates"
    where = conditions(only, BODY, node, statement)
    if merges:
        where = f"{where} and {_counted(1)}" if where else f" where {_counted(1)}"
    return f"insert into {into} select {values} from {rows}{where}{_on_conflict(upsert, columns)} returning {returning}"


def update(
    node: Node,
    table: Table,
    payload: Payload,
    statement: Statement,
    *,
    where: Sequence[Planned],
    returning: str,
    applies_defaults: bool,
) -> str:
    """UPDATE; without a column to set it is a SELECT of nothing."""
    columns = columns_of(table, payload)
    if not columns:
        return f"select {returning} from {table_name(node)} where false"
    changes = ", ".join(f"{quoted(column.name)} = {BODY}.{quoted(column.name)}" for column in columns)
    rows = _rows(payload, columns, statement, applies_defaults=applies_defaults)
    condition = conditions(where, table_name(node), node, statement)
    return f"update {table_name(node)} set {changes} from {rows}{condition} returning {returning}"


def delete(node: Node, statement: Statement, *, where: Sequence[Planned], returning: str) -> str:
    """DELETE."""
    condition = conditions(where, table_name(node), node, statement)
    return f"delete from {table_name(node)}{condition} returning {returning}"


def returned(node: Node, keys: Sequence[str]) -> str:
    """What a statement returns so that `select` and its embeds can be served from that, and a Location made."""
    names = needed(node)
    if names is None:
        return f"{table_name(node)}.*"
    return ", ".join(f"{table_name(node)}.{quoted(name)}" for name in sorted(names | set(keys))) or "1"


def needed(node: Node) -> set[str] | None:
    """The columns that are shown and those that embeds join by; None for all of them."""
    names = {item.field.name for item in node.select}
    relations = [child.relation for child in node.children if child.relation is not None]
    if "*" in names or any(relation.kind == "computed" for relation in relations):
        return None
    for relation in relations:
        pairs = relation.junction.source if relation.junction is not None else relation.columns
        names |= {own for own, _ in pairs}
    return names


def location(keys: Sequence[str]) -> str:
    """SQL for the primary key of the one row in the source, as `key=eq.value` each."""
    listed = ", ".join(literal(key) for key in keys) or "null"
    return (
        "case when count(*) = 1 then (select array_agg(each.key || '=' || coalesce('eq.' || each.value, 'is.null')) "
        f"from (select row_to_json({SOURCE}) as row from {SOURCE} limit 1) as one, json_each_text(one.row) as each "
        f"where each.key in ({listed})) end"
    )


def columns_of(table: Table, payload: Payload) -> list[Column]:
    """The columns that a body writes; PGRST204 for one that the table does not have."""
    for name in payload.columns:
        if name not in table.columns:
            message = f"Could not find the '{name}' column of '{table.name}' in the schema cache"
            raise RestError(400, "PGRST204", message)
    return [table.columns[name] for name in payload.columns]


def _rows(
    payload: Payload, columns: Sequence[Column], statement: Statement, *, applies_defaults: bool
) -> str:
    """The body as rows, named pgrst_body, for a FROM."""
    given = statement.value(payload.text, "jsonb" if applies_defaults else "json")
    if not columns:
        each = "(values (1))" if payload.is_object else f"json_array_elements({given}::json)"
        # The parameter is there in any case, so that it has a type.
        return f"(select {given}) as pgrst_payload, lateral (select from {each} as _row_) as {BODY}"
    row = ", ".join(f"{quoted(column.name)} {column.nominal or column.type}" for column in columns)
    kind = "jsonb" if applies_defaults else "json"
    if applies_defaults:
        defaults = ", ".join(
            f"{literal(column.name)}, {column.default}" for column in columns if column.default is not None
        )
        usual = f"jsonb_build_object({defaults})"
        if payload.is_object:
            given = f"({usual} || {given})"
        else:
            given = f"(select jsonb_agg({usual} || _each_) from jsonb_array_elements({given}) as _each_)"
    function = f"{kind}_to_record" if payload.is_object else f"{kind}_to_recordset"
    return f"{function}({given}) as {BODY} ({row})"


def _on_conflict(upsert: Upsert | None, columns: Sequence[Column]) -> str:
    if upsert is None or not upsert.keys:
        return ""
    target = f" on conflict ({', '.join(quoted(key) for key in upsert.keys)})"
    if upsert.resolution == "ignore-duplicates" or not columns:
        return f"{target} do nothing"
    changes = ", ".join(f"{quoted(column.name)} = excluded.{quoted(column.name)}" for column in columns)
    return f"{target} do update set {changes} where {_counted(-1)}"


def _counted(step: int) -> str:
    """A condition that always holds and counts the row it is asked of."""
    counted = f"coalesce({INSERTED_ROWS}, 0) + ({step})"
    return f"set_config('{INSERTED}', ({counted})::text, true) is not null"
