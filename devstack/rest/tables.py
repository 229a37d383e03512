"""Reads and writes of tables and views: from a request to one statement, and from its row to the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import quote

from devstack.rest import sql
from devstack.rest.answer import SAID, Answer, as_said, content_range, fetched, planned_rows, with_body
from devstack.rest.catalogue import Table
from devstack.rest.errors import RestError, not_one_row
from devstack.rest.payload import Payload, read_payload
from devstack.rest.plan import Node, Planned, Scope, plan, planned
from devstack.rest.quoting import Statement
from devstack.rest.request import READS, UNSATISFIABLE, Wanted
from devstack.rest.schema import Schema
from devstack.rest.writes import INSERTED_ROWS, SOURCE, Upsert, delete, insert, location, returned, update
from devstack.rest.zones import transaction, with_known_zone

if TYPE_CHECKING:
    import asyncpg

    from devstack.rest.sessions import Connection, Session

COUNTED_HERE: Final = ("exact", "estimated")
PLANNED: Final = ("planned", "estimated")


async def serve(session: Session, schema: Schema, wanted: Wanted) -> Answer:
    """One request on a table."""
    wanted = await with_known_zone(session, wanted)
    if wanted.method in READS:
        return await _read(session, schema, wanted)
    change = _understood(schema, wanted)
    row = await _changed(session, change)
    return _answered(change, row)


# Reads ---------------------------------------------------------------------------------------------------


async def _read(session: Session, schema: Schema, wanted: Wanted) -> Answer:
    span = wanted.span()
    table = schema.table(wanted.name)
    scope = Scope(schema.name, schema.tables, schema.relations, wanted.max_rows)
    root = plan(replace(wanted.query, span=span), table, scope)
    media, how = wanted.media, wanted.prefer.get("count")
    wanted.prefer.check()
    statement = Statement()
    page = sql.read(root, statement)
    total = "null::bigint"
    if how in COUNTED_HERE:
        most = f" limit {wanted.max_rows + 1}" if how == "estimated" and wanted.max_rows is not None else ""
        total = f"(select count(*) from ({sql.count(root, statement)}{most}) as counted)"
    body = "''" if wanted.method == "HEAD" else media.body("page")
    text = f"select {body} as body, count(*) as rows, {total} as total, {SAID} from ({page}) as page"
    async with transaction(session, wanted, is_needed=how in PLANNED) as connection:
        row = await fetched(connection, text, statement.values)
        if media.is_single and row["rows"] != 1:
            raise not_one_row(row["rows"])
        count = await _total(connection, root, row["total"], wanted)
    headers = {
        "Content-Range": content_range(span.first, row["rows"], count),
        "Content-Location": wanted.location,
        **wanted.prefer.applied("count", "handling", "timezone"),
    }
    if count is not None and span.first > count:
        details = f"An offset of {span.first} was requested, but there are only {count} rows."
        beyond = RestError(416, "PGRST103", UNSATISFIABLE, details).body().decode()
        return with_body(wanted, beyond, headers, 416)
    status = 206 if count is not None and row["rows"] < count else 200
    return as_said(with_body(wanted, row["body"], headers, status), row)


async def _total(connection: Connection, root: Node, counted: int | None, wanted: Wanted) -> int | None:
    """How many rows there are: as counted, or as PostgreSQL plans with."""
    how = wanted.prefer.get("count")
    if how not in PLANNED:
        return counted
    statement = Statement()
    text = f"explain (format json) {sql.count(root, statement)}"
    guessed = planned_rows(await connection.fetchval(text, *statement.values))
    if how == "planned":
        return guessed
    is_beyond = counted is not None and wanted.max_rows is not None and counted > wanted.max_rows
    return max(counted or 0, guessed) if is_beyond else counted


# Changes -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Change:
    """A request that changes rows, understood: its statement, and what the answer is made with."""

    wanted: Wanted
    table: Table
    text: str
    values: Sequence[str | None]
    upsert: Upsert | None = None


def _understood(schema: Schema, wanted: Wanted) -> Change:
    query, columns = wanted.query, wanted.query.columns if wanted.method in ("POST", "PATCH") else None
    span = wanted.span()
    if wanted.method == "PUT" and (span.first or span.last is not None):
        message = "limit/offset querystring parameters are not allowed for PUT"
        raise RestError(400, "PGRST114", message)
    payload = None
    if wanted.method != "DELETE":
        payload = read_payload(wanted.text(), wanted.body_kind, columns)
    table = schema.table(wanted.name)
    scope = Scope(schema.name, schema.tables, schema.relations, None)
    root = plan(query, table, scope, source=SOURCE, is_change=True)
    statement, upsert = Statement(), _upsert(table, wanted)
    changing = _changing(root, table, payload, wanted, statement, upsert)
    wanted.prefer.check()
    media = wanted.media
    how = wanted.prefer.get("return")
    is_shown = how == "representation"
    page = sql.read(root, statement) if is_shown else f"select * from {SOURCE}"
    body = media.body("page", source=SOURCE) if is_shown else "''"
    where = (
        location(table.primary_key) if how == "headers-only" and wanted.method == "POST" else "null::text[]"
    )
    text = (
        f"with {SOURCE} as ({changing}) select {body} as body, count(*) as rows, {where} as location, "
        f"{INSERTED_ROWS} as inserted, {SAID} from ({page}) as page"
    )
    return Change(wanted, table, text, statement.values, upsert)


def _upsert(table: Table, wanted: Wanted) -> Upsert | None:
    if wanted.method == "PUT":
        return Upsert(table.primary_key, "merge-duplicates")
    resolution = wanted.prefer.get("resolution")
    if wanted.method != "POST" or resolution is None:
        return None
    named = wanted.query.on_conflict
    keys = table.primary_key if named is None else named
    return Upsert(keys, "merge-duplicates" if resolution == "merge-duplicates" else "ignore-duplicates")


def _changing(
    root: Node,
    table: Table,
    payload: Payload | None,
    wanted: Wanted,
    statement: Statement,
    upsert: Upsert | None,
) -> str:
    returning = "1"
    if wanted.prefer.get("return") in ("representation", "headers-only"):
        returning = returned(root, table.primary_key)
    where = _root_conditions(wanted)
    if payload is None:
        return delete(root, statement, where=where, returning=returning)
    applies_defaults = wanted.prefer.get("missing") == "default"
    if wanted.method == "PATCH":
        return update(
            root,
            table,
            payload,
            statement,
            where=where,
            returning=returning,
            applies_defaults=applies_defaults,
        )
    if wanted.method == "PUT":
        _check_put(table, wanted)
        return insert(root, table, payload, statement, returning=returning, upsert=upsert, only=where)
    return insert(
        root, table, payload, statement, returning=returning, upsert=upsert, applies_defaults=applies_defaults
    )


def _root_conditions(wanted: Wanted) -> list[Planned]:
    """The filters on the table itself; and, as with PostgREST, all logic, even that on embedded tables."""
    query = wanted.query
    filters = [each for path, each in query.filters if not path]
    return [planned(each) for each in (*filters, *(each for _, each in query.logic))]


def _check_put(table: Table, wanted: Wanted) -> None:
    query = wanted.query
    plain = all(
        each.operation.name == "eq" and not each.operation.is_negated and each.operation.quantifier is None
        for path, each in query.filters
        if not path
    )
    if query.logic or not table.primary_key or query.fields != frozenset(table.primary_key) or not plain:
        message = "Filters must include all and only primary key columns with 'eq' operators"
        raise RestError(405, "PGRST105", message)


async def _changed(session: Session, change: Change) -> asyncpg.Record:
    """Runs the statement; undoes it when the number of rows is not what was asked for."""
    wanted = change.wanted
    is_put, limit = wanted.method == "PUT", wanted.prefer.max_affected
    is_single = wanted.is_single and not is_put
    is_limited = limit is not None and wanted.method in ("PATCH", "DELETE")
    async with transaction(session, wanted, is_needed=is_put or is_single or is_limited) as connection:
        row = await fetched(connection, change.text, change.values)
        rows = int(row["rows"])
        if is_put and rows != 1:
            message = "Payload values do not match URL in primary key column(s)"
            raise RestError(400, "PGRST115", message)
        if is_single and rows != 1:
            raise not_one_row(rows)
        if is_limited and limit is not None and rows > limit:
            message = "Query result exceeds max-affected preference constraint"
            raise RestError(400, "PGRST124", message, f"The query affects {rows} rows")
    return row


def _answered(change: Change, row: asyncpg.Record) -> Answer:
    wanted, rows = change.wanted, int(row["rows"])
    total = rows if wanted.prefer.get("count") in COUNTED_HERE else None
    headers: dict[str, str] = {}
    if row["location"]:
        pairs = (each.partition("=") for each in cast(list[str], row["location"]))
        keys = "&".join(f"{quote(key, safe='')}={quote(value, safe='')}" for key, _, value in pairs)
        headers["Location"] = f"/{wanted.name}?{keys}"
    if wanted.method != "PUT":
        headers["Content-Range"] = content_range(0, rows if wanted.method == "PATCH" else 0, total)
    headers |= wanted.prefer.applied(*_told(change))
    status, otherwise = _statuses(change, row["inserted"])
    if wanted.prefer.get("return") == "representation":
        return as_said(with_body(wanted, row["body"], headers, status), row)
    return as_said(Answer(otherwise, headers), row)


def _told(change: Change) -> list[str]:
    """The preferences that an answer to this method speaks of."""
    method = change.wanted.method
    told = ["return", "count", "handling", "timezone"]
    if method in ("POST", "PATCH"):
        told.append("missing")
    if method in ("PATCH", "DELETE"):
        told.append("max-affected")
    if method == "POST" and change.upsert is not None and change.upsert.keys:
        told.append("resolution")
    return told


def _statuses(change: Change, inserted: int | None) -> tuple[int, int]:
    """The status with a body and without."""
    merges = change.upsert is not None and change.upsert.resolution == "merge-duplicates"
    is_new = inserted is not None and inserted > 0
    if change.wanted.method == "POST":
        created = 201 if is_new or not merges else 200
        return created, created
    if change.wanted.method == "PUT":
        return (201 if is_new else 200), 204
    return 200, 204
