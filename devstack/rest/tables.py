"""Reads and writes of tables and views: one statement per request, built from the query string."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast
from urllib.parse import quote

from devstack.rest.answer import SAID, Answer, Plan, as_said, content_range, run, with_body
from devstack.rest.errors import RestError, not_implemented, not_one_row
from devstack.rest.query import Source, Statement, literal, order_by, quoted, select_list, where
from devstack.rest.request import Wanted
from devstack.rest.schema import SCHEMA, Column, Schema, Table

if TYPE_CHECKING:
    import asyncpg

    from devstack.rest.sessions import Session


async def serve(session: Session, schema: Schema, wanted: Wanted) -> Answer:
    """One request on a table."""
    table = schema.table(wanted.name)
    if wanted.method in ("GET", "HEAD"):
        return await _read(session, table, wanted)
    if wanted.method == "POST":
        return await _insert(session, table, wanted)
    if wanted.method in ("PATCH", "DELETE"):
        return await _change(session, table, wanted)
    raise not_implemented(f"{wanted.method} on a table is not implemented here.")


def _source(table: Table) -> Source:
    return Source(f"{SCHEMA}.{quoted(table.name)}", table.columns)


async def _read(session: Session, table: Table, wanted: Wanted) -> Answer:
    source, statement = _source(table), Statement()
    offset, limit = wanted.limits
    condition = where(wanted.filters, source, statement)
    picked = select_list(wanted.param("select"), source)
    order = order_by(wanted.param("order"), source)
    total = (
        f"(select count(*) from {source.sql}{condition})" if wanted.prefer.get("count") else "null::bigint"
    )
    sql = (
        f"select {_body(wanted, '_page_')} as body, count(*) as rows, {total} as total from "
        f"(select {picked} from {source.sql}{condition}{order} limit {limit} offset {offset}) as _page_"
    )
    row = await run(session, Plan(sql, tuple(statement.values), is_read_only=True), wanted)
    rows, count = int(row["rows"]), None if row["total"] is None else int(row["total"])
    if wanted.is_single and rows != 1:
        raise not_one_row(rows)
    headers = {
        "Content-Range": content_range(offset, rows, count),
        "Content-Location": wanted.location,
        **wanted.prefer.applied("count"),
    }
    if count is not None and offset > count:
        details = f"An offset of {offset} was requested, but there are only {count} rows."
        beyond = RestError(416, "PGRST103", "Requested range not satisfiable", details)
        return with_body(wanted, beyond.body().decode(), headers, 416)
    return with_body(wanted, row["body"], headers, 206 if count is not None and rows < count else 200)


async def _insert(session: Session, table: Table, wanted: Wanted) -> Answer:
    if wanted.filters:
        raise not_implemented("Filters on an INSERT are not implemented here.")
    body = wanted.json()
    columns = _columns_of(table, wanted, body)
    statement = Statement([wanted.body.decode()])
    if columns:
        names = ", ".join(quoted(column.name) for column in columns)
        what = f"({names}) select {_values(columns, wanted)} from {_rows(columns, wanted, body)}"
    else:
        # An empty array inserts nothing, an empty object one row of defaults; both have no columns.
        statement.values.clear()
        what = "default values" if body == {} else f"select {_null_row(table)} where false"
    conflict = _on_conflict(table, columns, wanted)
    sql = _changing(f"insert into {_source(table).sql} {what}{conflict}", table, wanted)
    row = await run(session, Plan(sql, tuple(statement.values)), wanted)
    rows = int(row["rows"])
    total = rows if wanted.prefer.get("count") else None
    headers = {
        "Content-Range": content_range(0, 0, total),
        **wanted.prefer.applied("resolution", "missing", "return", "count", "handling", "max-affected"),
    }
    merged = wanted.prefer.get("resolution") == "merge-duplicates" and 0 < rows == int(row["updated"] or 0)
    return _changed(wanted, row, headers, with_rows=200 if merged else 201, without=200 if merged else 201)


async def _change(session: Session, table: Table, wanted: Wanted) -> Answer:
    for name in ("order", "limit", "offset"):
        if wanted.param(name) is not None:
            raise not_implemented(f"{wanted.method} with '{name}' is not implemented here.")
    source, statement = _source(table), Statement()
    if wanted.method == "DELETE":
        sql = f"delete from {source.sql}{where(wanted.filters, source, statement)}"
    else:
        body = wanted.json()
        if not isinstance(body, dict):
            raise not_implemented("An UPDATE takes one JSON object here.")
        columns = _columns_of(table, wanted, cast(object, body))
        if not columns:
            return _changed_nothing(wanted)
        statement.values.append(wanted.body.decode())
        changes = ", ".join(f"{quoted(column.name)} = _body_.{quoted(column.name)}" for column in columns)
        condition = where(wanted.filters, source, statement)
        sql = f"update {source.sql} set {changes} from {_rows(columns, wanted, {})}{condition}"
    row = await run(session, Plan(_changing(sql, table, wanted), tuple(statement.values)), wanted)
    rows = int(row["rows"])
    total = rows if wanted.prefer.get("count") else None
    shown = rows if wanted.method == "PATCH" else 0
    headers = {
        "Content-Range": content_range(0, shown, total),
        **wanted.prefer.applied("return", "count", "handling", "max-affected"),
    }
    return _changed(wanted, row, headers, with_rows=200, without=204)


def _changed_nothing(wanted: Wanted) -> Answer:
    headers = {"Content-Range": "*/*", **wanted.prefer.applied("return")}
    if wanted.prefer.get("return") == "representation":
        return with_body(wanted, "[]", headers)
    return Answer(204, headers)


def _changed(
    wanted: Wanted, row: asyncpg.Record, headers: dict[str, str], *, with_rows: int, without: int
) -> Answer:
    returned = wanted.prefer.get("return")
    if returned == "representation":
        return as_said(with_body(wanted, row["body"], headers, with_rows), row)
    if returned == "headers-only" and wanted.method == "POST" and row["body"] is not None:
        found = cast(list[dict[str, object]], json.loads(row["body"]))
        if len(found) == 1:
            keys = "&".join(f"{quote(k)}=eq.{quote(str(v))}" for k, v in found[0].items())
            headers = {"Location": f"/{wanted.name}?{keys}", **headers}
    return as_said(Answer(without, headers), row)


def _changing(sql: str, table: Table, wanted: Wanted) -> str:
    """The changing statement, wrapped so that it returns one row about what it did."""
    source, returned = _source(table), wanted.prefer.get("return")
    if returned == "representation":
        returning, body = select_list(wanted.param("select"), source), _body(wanted, "_page_")
    elif returned == "headers-only" and table.primary_key:
        returning = ", ".join(source.path(name)[0] for name in table.primary_key)
        body = "json_agg(_page_)::text"
    else:
        returning, body = "1", "null::text"
    return (
        f"with _page_ as ({sql} returning {returning}) select {body} as body, count(*) as rows, "
        f"current_setting('devstack.updated', true) as updated, {SAID} from _page_"
    )


def _body(wanted: Wanted, rows: str) -> str:
    if wanted.is_single:
        return f"(json_agg({rows}) -> 0)::text"
    return f"coalesce(json_agg({rows}), '[]')::text"


def _null_row(table: Table) -> str:
    """A row of nulls in the table's shape."""
    return ", ".join(f"null::{column.type}" for column in table.columns.values())


def _columns_of(table: Table, wanted: Wanted, body: object) -> list[Column]:
    """The columns that a body writes: those named by `columns=`, else the keys of its objects."""
    rows = cast(list[object], body) if isinstance(body, list) else [body]
    objects = [cast(dict[str, object], row) for row in rows if isinstance(row, dict)]
    if len(objects) != len(rows):
        raise RestError(400, "PGRST102", "All object keys must match")
    listed = wanted.param("columns")
    if listed is not None:
        names: Sequence[str] = [name.strip().strip('"') for name in listed.split(",")]
    else:
        names = list(objects[0]) if objects else []
        if any(row.keys() != objects[0].keys() for row in objects):
            raise RestError(400, "PGRST102", "All object keys must match")
    for name in names:
        if name not in table.columns:
            message = f"Could not find the '{name}' column of '{table.name}' in the schema cache"
            raise RestError(400, "PGRST204", message)
    return [table.columns[name] for name in names]


def _rows(columns: Sequence[Column], wanted: Wanted, body: object) -> str:
    """The body as rows, named _body_; with missing=default each row comes with its JSON as _given_."""
    row = ", ".join(f"{quoted(column.name)} {column.type}" for column in columns)
    if wanted.prefer.get("missing") == "default":
        each = "json_array_elements($1::json)" if isinstance(body, list) else "(select $1::json)"
        return f"{each} as _given_ (value), lateral json_to_record(_given_.value) as _body_ ({row})"
    function = "json_to_recordset" if isinstance(body, list) else "json_to_record"
    return f"{function}($1::json) as _body_ ({row})"


def _values(columns: Sequence[Column], wanted: Wanted) -> str:
    defaults = wanted.prefer.get("missing") == "default"
    return ", ".join(
        f"case when _given_.value::jsonb ? {literal(column.name)} "
        f"then _body_.{quoted(column.name)} else {column.default} end"
        if defaults and column.default
        else f"_body_.{quoted(column.name)}"
        for column in columns
    )


def _on_conflict(table: Table, columns: Sequence[Column], wanted: Wanted) -> str:
    resolution = wanted.prefer.get("resolution")
    named = wanted.param("on_conflict")
    keys = [name.strip() for name in named.split(",")] if named else list(table.primary_key)
    if resolution is None or not keys or not columns:
        return ""
    target = f" on conflict ({', '.join(quoted(key) for key in keys)})"
    if resolution == "ignore-duplicates":
        return f"{target} do nothing"
    changes = ", ".join(f"{quoted(column.name)} = excluded.{quoted(column.name)}" for column in columns)
    # Counts the rows that were there already, for the status: 200 when nothing was new.
    counted = "coalesce(nullif(current_setting('devstack.updated', true), ''), '0')::int + 1"
    return f"{target} do update set {changes} where set_config('devstack.updated', ({counted})::text, true) <> ''"
