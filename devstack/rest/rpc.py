"""Calls of functions: `/rpc/<name>`, from a JSON object of named arguments to a JSON answer."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, cast

from devstack.rest.answer import SAID, Answer, Plan, as_said, content_range, run, with_body
from devstack.rest.errors import RestError, not_implemented, not_one_row
from devstack.rest.query import Source, Statement, order_by, quoted, select_list, where
from devstack.rest.request import Wanted
from devstack.rest.schema import JSON_TYPES, SCHEMA, Argument, Function, Schema

if TYPE_CHECKING:
    from devstack.rest.sessions import Session

Arguments = Mapping[str, object]


async def call(session: Session, schema: Schema, wanted: Wanted) -> Answer:
    """Calls the function and answers with what it returned, in PostgREST's shapes."""
    function, plan = _planned(schema, wanted)
    row = await run(session, plan, wanted)
    rows = int(row["rows"])
    total = int(row["total"]) if function.is_set and row["total"] is not None else None
    offset = wanted.limits[0] if function.is_set else 0
    headers = {
        "Content-Range": content_range(offset, rows, total),
        **wanted.prefer.applied("count", "max-affected"),
    }
    if function.type == "void":
        return as_said(Answer(204, headers), row)
    if wanted.is_single and rows != 1:
        raise not_one_row(rows)
    status = 206 if total is not None and rows < total else 200
    return as_said(with_body(wanted, row["body"], headers, status), row)


def _planned(schema: Schema, wanted: Wanted) -> tuple[Function, Plan]:
    statement = Statement()
    is_read = wanted.method in ("GET", "HEAD")
    if is_read:
        function, source, filters = _called_by_query(schema, wanted, statement)
    else:
        function, source = _called_by_body(schema, wanted, statement)
        filters = wanted.filters
    if function.is_variadic:
        raise not_implemented(f"The variadic function '{function.name}' is not implemented here.")
    if function.is_set:
        sql = _set_sql(function, source, wanted, filters, statement)
    elif filters:
        raise not_implemented("Filters on a function that returns no set are not implemented here.")
    else:
        sql = _single_sql(function, source, wanted.param("select"))
    return function, Plan(sql, tuple(statement.values), is_read)


def _called_by_query(
    schema: Schema, wanted: Wanted, statement: Statement
) -> tuple[Function, str, list[tuple[str, str]]]:
    """A GET: parameters that are arguments, and the rest, which filters the rows."""
    arguments = {a.name for each in schema.functions.get(wanted.name, ()) for a in each.arguments}
    names = {name for name, _ in wanted.params} & arguments
    function = schema.function(wanted.name, names)
    given = ", ".join(
        f"{quoted(a.name)} := {statement.value(wanted.param(a.name), a.type)}"
        for a in function.arguments
        if a.name in names
    )
    filters = [(name, value) for name, value in wanted.filters if name not in names]
    return function, f"{_sql_name(function)}({given})", filters


def _called_by_body(schema: Schema, wanted: Wanted, statement: Statement) -> tuple[Function, str]:
    """A POST: a JSON object of arguments. The body goes to PostgreSQL as it came, in one parameter."""
    arguments = _arguments(wanted)
    function = schema.function(wanted.name, arguments)
    body = wanted.body.decode() or "{}"
    if function.takes_whole_body:
        return function, f"{_sql_name(function)}({statement.value(body, function.arguments[0].type)})"
    given = tuple(a for a in function.arguments if a.name in arguments)
    if not given:
        return function, f"{_sql_name(function)}()"
    # jsonb is parsed once for all arguments; json keeps the very text of a value where that can be seen.
    is_plain = all(a.type == "jsonb" or _is_plain(a.type, arguments[a.name]) for a in given)
    statement.values.append(body)
    return function, _applied(function, given, "jsonb" if is_plain else "json")


def _is_plain(type_: str, value: object) -> bool:
    return type_ != "json" and not isinstance(value, dict | list)


def _arguments(wanted: Wanted) -> Arguments:
    if not wanted.body:
        if not wanted.has_content_type:
            raise _no_bytea(wanted.name)
        return {}
    body = wanted.json()
    if not isinstance(body, dict):
        raise not_implemented("A function is called with one JSON object here, not with another JSON value.")
    arguments = cast(dict[str, object], body)
    columns = wanted.param("columns")
    return {k: v for k, v in arguments.items() if k in columns.split(",")} if columns else arguments


def _sql_name(function: Function) -> str:
    return f"{SCHEMA}.{quoted(function.name)}"


@lru_cache(maxsize=512)
def _applied(function: Function, given: tuple[Argument, ...], kind: str) -> str:
    """The function applied to arguments out of the body; as something to select from."""
    row = ", ".join(f"{quoted(a.name)} {a.type}" for a in given)
    passed = ", ".join(f"{quoted(a.name)} := _body_.{quoted(a.name)}" for a in given)
    return f"{kind}_to_record($1::text::{kind}) as _body_ ({row}), lateral {_sql_name(function)}({passed})"


@lru_cache(maxsize=512)
def _single_sql(function: Function, source: str, select: str | None) -> str:
    if function.columns is not None and select:
        source = f"(select {select_list(select, Source('_row_', function.columns))} from {source} as _row_)"
    if function.columns is not None:
        body = "row_to_json(_row_)::text"
    elif function.type in JSON_TYPES:
        body = "coalesce(_row_::text, 'null')"
    elif function.type == "void":
        body = "''"
    else:
        body = "coalesce(to_json(_row_)::text, 'null')"
    return f"select {body} as body, 1 as rows, {SAID} from {source} as _row_"


def _set_sql(
    function: Function, source: str, wanted: Wanted, filters: list[tuple[str, str]], statement: Statement
) -> str:
    offset, limit = wanted.limits
    name = Source("_rows_", function.columns or {})
    condition = where(filters, name, statement)
    picked = select_list(wanted.param("select"), name)
    order = order_by(wanted.param("order"), name)
    page = f"select {picked} from _rows_{condition}{order} limit {limit} offset {offset}"
    item = "_page_" if function.columns is not None else "_page_._row_"
    body = f"coalesce(json_agg({item}), '[]')::text"
    if wanted.is_single:
        body = f"(json_agg({item}) -> 0)::text"
    total = f"(select count(*) from _rows_{condition})" if wanted.prefer.get("count") else "null::bigint"
    return (
        f"with _rows_ as materialized (select _row_.* from {source} as _row_) "
        f"select {body} as body, count(*) as rows, {total} as total, {SAID} from ({page}) as _page_"
    )


def _no_bytea(name: str) -> RestError:
    return RestError(
        404,
        "PGRST202",
        f"Could not find the function {SCHEMA}.{name} in the schema cache",
        f"Searched for the function {SCHEMA}.{name} with a single unnamed bytea parameter, "
        "but no matches were found in the schema cache.",
    )
