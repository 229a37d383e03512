"""Calls of functions: `/rpc/<name>`, from named arguments or a whole body to an answer in PostgREST's shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import parse_qsl

from devstack.rest.answer import SAID, Answer, Plan, as_said, content_range, run, with_body
from devstack.rest.errors import RestError, not_implemented, not_one_row
from devstack.rest.functions import WHOLE_BODY, Argument, Function, Functions
from devstack.rest.query import LOGIC, Source, Statement, order_by, quoted, select_list, where
from devstack.rest.request import JSON_MEDIA, READS, Wanted
from devstack.rest.schema import JSON_TYPES, SCHEMA, Column

if TYPE_CHECKING:
    from devstack.rest.sessions import Session

SCALAR: Final = "pgrst_scalar"  # PostgREST's name for the one column of a scalar result
FORM: Final = "application/x-www-form-urlencoded"
# In a GET a value that looks like a filter is one; any other is an argument.
FILTER: Final = re.compile(
    r"not\.|(eq|gte?|lte?|neq|i?like|i?match|isdistinct|in|is|[pw]?fts|plfts|phfts|c[sd]|ov|s[lr]|nx[rl]|adj)"
    r"(\([^()]*\))?\."
)
EMBEDDED: Final = (".order", ".limit", ".offset", ".and", ".or")


@dataclass(frozen=True, slots=True)
class Call:
    """A call that is understood and ready to run."""

    function: Function
    plan: Plan
    wanted: Wanted

    @property
    def settings(self) -> dict[str, str]:
        """What its transaction runs under besides the role's settings; stable functions only read."""
        reads = {"default_transaction_read_only": "on"} if self.function.is_read_only else {}
        return {**self.function.settings, **reads}

    async def run(self, session: Session) -> Answer:
        """Calls the function and answers with what it returned."""
        wanted, is_set = self.wanted, self.function.is_set
        row = await run(session, self.plan, wanted)
        rows, total = int(row["rows"]), None if row["total"] is None else int(row["total"])
        offset = wanted.limits[0] if is_set else 0
        headers = {
            "Content-Range": content_range(offset, rows, total),
            **wanted.prefer.applied("count", "handling", "max-affected"),
        }
        if self.function.type == "void":
            return as_said(Answer(204, headers), row)
        if wanted.is_single and rows != 1:
            raise not_one_row(rows)
        if total is not None and offset > total:
            details = f"An offset of {offset} was requested, but there are only {total} rows."
            beyond = RestError(416, "PGRST103", "Requested range not satisfiable", details)
            return as_said(with_body(wanted, beyond.body().decode(), headers, 416), row)
        status = 206 if total is not None and rows < total else 200
        return as_said(with_body(wanted, row["body"], headers, status), row)


def planned(functions: Functions, wanted: Wanted) -> Call:
    """The call that a request means; raises RestError for what is unknown, ambiguous or not implemented."""
    if wanted.method not in (*READS, "POST"):
        raise RestError(405, "PGRST101", f"Cannot use the {wanted.method} method on RPC")
    statement = Statement()
    is_read = wanted.method in READS
    given, filters = in_query(wanted) if is_read else ({}, wanted.filters)
    where(
        filters, Source("", {}), Statement()
    )  # what cannot be read is refused before the function is looked for
    if is_read:
        function = functions.called(wanted.name, given, None)
        source = _applied_to_texts(function, given, statement)
    else:
        function, source = _called_by_body(functions, wanted, statement)
    if function.type == "void" and function.is_set:
        raise not_implemented(f"'{function.name}' returns a set of void.")
    if function.type == "record" and function.columns is None:
        raise not_implemented(f"'{function.name}' returns a record whose columns have no names.")
    if not function.is_set and wanted.prefer.max_affected is not None:
        message = (
            "Function must return SETOF or TABLE when max-affected preference is used with handling=strict"
        )
        raise RestError(400, "PGRST128", message)
    sql = _sql(function, source, wanted, filters, statement)
    plan = Plan(sql, tuple(statement.values), is_read or function.is_read_only)
    return Call(function, plan, wanted)


def in_query(wanted: Wanted) -> tuple[dict[str, list[str]], list[tuple[str, str]]]:
    """The parameters of a GET: those that are arguments, with all their values, and those that filter the rows."""
    given: dict[str, list[str]] = {}
    filters: list[tuple[str, str]] = []
    for name, value in wanted.filters:
        if name in LOGIC or name.endswith(EMBEDDED) or FILTER.match(value):
            filters.append((name, value))
        else:
            given.setdefault(name, []).append(value)
    return given, filters


def _called_by_body(functions: Functions, wanted: Wanted, statement: Statement) -> tuple[Function, str]:
    """A POST: what the body is depends on its media type; it goes to PostgreSQL as it came, in one parameter."""
    if wanted.media == FORM:
        given: dict[str, list[str]] = {}
        for name, value in parse_qsl(wanted.text(), keep_blank_values=True):
            given.setdefault(name, []).append(value)
        function = functions.called(wanted.name, given, FORM)
        return function, _applied_to_texts(function, given, statement)
    if wanted.media == JSON_MEDIA:
        body, arguments = _arguments(wanted)
        function = functions.called(wanted.name, arguments, JSON_MEDIA)
        if function.arguments and function.arguments[0].name:
            return _called_by_json(function, body, arguments, statement)
        text = body
    elif wanted.media in WHOLE_BODY:
        function = functions.called(wanted.name, (), wanted.media)
        text = "\\x" + wanted.body.hex() if wanted.media.endswith("octet-stream") else wanted.text()
    elif wanted.media == "text/csv":
        raise not_implemented("Calling a function with CSV is not implemented here.")
    else:
        raise RestError(400, "PGRST102", f"Content-Type not acceptable: {wanted.media}")
    whole = statement.value(text, function.arguments[0].type) if function.arguments else ""
    return function, f"{_sql_name(function)}({whole})"


def _arguments(wanted: Wanted) -> tuple[str, Mapping[str, object]]:
    """The text of the body and its keys. Of an array the first object counts; what has no keys becomes `[]`."""
    columns = wanted.param("columns")
    body: object = wanted.json() if wanted.body or columns is not None else dict[str, object]()
    if isinstance(body, list) and body:
        rows = cast(list[object], body)
        first = rows[0]
        if not isinstance(first, dict) or any(
            not isinstance(r, dict) or r.keys() != first.keys() for r in rows
        ):
            raise RestError(400, "PGRST102", "All object keys must match")
        arguments = cast(dict[str, object], first)
    elif isinstance(body, dict):
        arguments = cast(dict[str, object], body)
    else:
        return "[]", {}
    if columns is not None:
        arguments = {name: arguments.get(name) for name in columns.split(",")}
    return wanted.text(), arguments


def _called_by_json(
    function: Function, body: str, arguments: Mapping[str, object], statement: Statement
) -> tuple[Function, str]:
    given = tuple(a for a in function.arguments if a.name in arguments)
    if not given:
        return function, f"{_sql_name(function)}()"
    # jsonb is parsed once for all arguments; json keeps the very text of a value where that can be seen.
    is_plain = all(a.type == "jsonb" or _is_plain(a.type, arguments[a.name]) for a in given)
    is_list = body.lstrip().startswith("[")
    statement.values.append(body)
    return function, _applied(function, given, "jsonb" if is_plain else "json", is_list=is_list)


def _is_plain(type_: str, value: object) -> bool:
    return type_ != "json" and not isinstance(value, dict | list | float)


def _sql_name(function: Function) -> str:
    return f"{SCHEMA}.{quoted(function.name)}"


def _passed(argument: Argument, value: str) -> str:
    return f"{'variadic ' if argument.is_variadic else ''}{quoted(argument.name)} := {value}"


def _applied_to_texts(function: Function, given: Mapping[str, list[str]], statement: Statement) -> str:
    """The function applied to texts; of several values of one name the last counts, or all for a variadic."""
    passed: list[str] = []
    for argument in function.arguments:
        values = given.get(argument.name)
        if values is None:
            continue
        if argument.is_variadic:
            each = [statement.value(value) for value in values]
            passed.append(_passed(argument, f"array[{', '.join(each)}]::{argument.type}"))
        else:
            passed.append(_passed(argument, statement.value(values[-1], argument.type)))
    return f"{_sql_name(function)}({', '.join(passed)})"


@lru_cache(maxsize=512)
def _applied(function: Function, given: tuple[Argument, ...], kind: str, *, is_list: bool) -> str:
    """The function applied to arguments out of the body; as something to select from."""
    row = ", ".join(f"{quoted(a.name)} {a.type}" for a in given)
    passed = ", ".join(_passed(a, f"_body_.{quoted(a.name)}") for a in given)
    record = f"{kind}_to_record(($1::text::{kind}){' -> 0' if is_list else ''})"
    return f"{record} as _body_ ({row}), lateral {_sql_name(function)}({passed})"


def _sql(
    function: Function,
    source: str,
    wanted: Wanted,
    filters: Sequence[tuple[str, str]],
    statement: Statement,
) -> str:
    is_bare = not filters and not any(
        wanted.param(name) is not None for name in ("select", "order", "limit", "offset")
    )
    if not function.is_set and is_bare and not wanted.prefer.get("count"):
        return _single_sql(function, source)
    columns = function.columns or {SCALAR: Column(SCALAR, function.type)}
    name = Source(quoted(function.row_name), columns)
    offset, limit = wanted.limits
    condition = where(filters, name, statement)
    rows = "_row_.*" if function.columns is not None else f"_row_ as {SCALAR}"
    picked = select_list(wanted.param("select"), name)
    order = order_by(wanted.param("order"), name)
    page = f"select {picked} from _called_ as {name.sql}{condition}{order} limit {limit} offset {offset}"
    item = "_page_" if function.columns is not None or wanted.is_single else f"_page_.{SCALAR}"
    total = (
        f"(select count(*) from _called_ as {name.sql}{condition})"
        if wanted.prefer.get("count")
        else "null::bigint"
    )
    if function.is_set and not wanted.is_single:
        body, count = f"coalesce(json_agg({item}), '[]')::text", "count(*)"
    else:
        item = item if function.is_set or function.columns is not None else f"_page_.{SCALAR}"
        body, count = (
            f"coalesce((json_agg({item}) -> 0)::text, 'null')",
            "count(*)" if function.is_set else "1",
        )
    return (
        f"with _called_ as (select {rows} from {source} as _row_) "
        f"select {body} as body, {count} as rows, {total} as total, {SAID} from ({page}) as _page_"
    )


@lru_cache(maxsize=512)
def _single_sql(function: Function, source: str) -> str:
    """The short way for the commonest case: one value, taken as it is."""
    if function.columns is not None:
        source = f"(select _row_.* from {source} as _row_)"
        body = "row_to_json(_row_)::text"
    elif function.type in JSON_TYPES:
        body = "coalesce(_row_::text, 'null')"
    elif function.type == "void":
        body = "''"
    else:
        body = "coalesce(to_json(_row_)::text, 'null')"
    return f"select {body} as body, 1 as rows, null::bigint as total, {SAID} from {source} as _row_"
