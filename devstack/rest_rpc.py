"""Calls of functions: `/rpc/<name>`, from a JSON object of named arguments to a JSON answer."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, cast

from devstack.rest_answer import SAID, Answer, Plan, as_said, content_range, run, with_body
from devstack.rest_errors import RestError, not_implemented, not_one_row
from devstack.rest_query import Source, Statement, order_by, quoted, select_list, where
from devstack.rest_request import Wanted
from devstack.rest_schema import JSON_TYPES, SCHEMA, Function, Schema

if TYPE_CHECKING:
    from devstack.rest_sessions import Session

BODY: Final = "$1::json"


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
        names = {key for key, _ in wanted.params} & _argument_names(schema, wanted.name)
        function = schema.function(wanted.name, names)
        given = [
            f"{quoted(a.name)} := {statement.value(wanted.param(a.name), a.type)}"
            for a in function.arguments
            if a.name in names
        ]
        source, rest = (
            f"{_sql_name(function)}({', '.join(given)})",
            [f for f in wanted.filters if f[0] not in names],
        )
    else:
        names = _body_names(wanted)
        function = schema.function(wanted.name, names)
        source, rest = _called(function, frozenset(names)), wanted.filters
        if "$1" in source:
            statement.values.append(wanted.body.decode() or "{}")
    if function.is_variadic:
        raise not_implemented(f"The variadic function '{function.name}' is not implemented here.")
    if function.is_set:
        return function, Plan(
            _set_sql(function, source, wanted, rest, statement), tuple(statement.values), is_read
        )
    if rest:
        raise not_implemented("Filters on a function that returns no set are not implemented here.")
    sql = _single_sql(function, source, wanted.param("select"))
    return function, Plan(sql, tuple(statement.values), is_read)


def _body_names(wanted: Wanted) -> set[str]:
    if not wanted.body:
        if not wanted.has_content_type:
            raise _no_bytea(wanted.name)
        return set()
    body = wanted.json()
    if isinstance(body, dict):
        names = {str(name) for name in cast(dict[object, object], body)}
        columns = wanted.param("columns")
        return names & set(columns.split(",")) if columns else names
    raise not_implemented("A function is called with one JSON object here, not with another JSON value.")


def _argument_names(schema: Schema, name: str) -> set[str]:
    return {a.name for each in schema.functions.get(name, ()) for a in each.arguments}


def _sql_name(function: Function) -> str:
    return f"{SCHEMA}.{quoted(function.name)}"


@lru_cache(maxsize=512)
def _called(function: Function, names: frozenset[str]) -> str:
    """The function applied to the request's body; as something to select from."""
    if function.takes_whole_body:
        return f"{_sql_name(function)}($1::text::{function.arguments[0].type})"
    given = [argument for argument in function.arguments if argument.name in names]
    if not given:
        return f"{_sql_name(function)}()"
    row = ", ".join(f"{quoted(a.name)} {a.type}" for a in given)
    passed = ", ".join(f"{quoted(a.name)} := _body_.{quoted(a.name)}" for a in given)
    return f"json_to_record({BODY}) as _body_ ({row}), lateral {_sql_name(function)}({passed})"


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
