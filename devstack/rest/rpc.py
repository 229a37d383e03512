"""Calls of functions: `/rpc/<name>`, from named arguments or a whole body to an answer in PostgREST's shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import parse_qsl

from devstack.rest import sql as rows_sql
from devstack.rest.answer import SAID, Answer, Plan, as_said, content_range, run, with_body
from devstack.rest.catalogue import Column, Table
from devstack.rest.errors import RestError, not_implemented, not_one_row
from devstack.rest.functions import WHOLE_BODY, Argument, Function, Functions
from devstack.rest.media import JSON_ARRAY
from devstack.rest.plan import Scope, filtered, plan
from devstack.rest.quoting import Statement, quoted
from devstack.rest.request import JSON_MEDIA, READS, Wanted
from devstack.rest.schema import Schema
from devstack.rest.tree import Query
from devstack.rest.writes import SOURCE, needed
from devstack.rest.zones import with_known_zone

if TYPE_CHECKING:
    from devstack.rest.sessions import Session

SCALAR: Final = "pgrst_scalar"  # PostgREST's name for the one column of a scalar result
FORM: Final = "application/x-www-form-urlencoded"
COUNTED: Final = (
    "exact",
    "estimated",
)  # the planner knows nothing of a function, so `planned` counts nothing
JSON_TYPES: Final = ("json", "jsonb")
ALL: Final = Query()


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
        wanted, is_set = await with_known_zone(session, self.wanted), self.function.is_set
        wanted.prefer.check()
        row = await run(session, self.plan, wanted)
        rows, total = int(row["rows"]), None if row["total"] is None else int(row["total"])
        offset = wanted.span().first if is_set else 0
        headers = {
            "Content-Range": content_range(offset, rows, total),
            **wanted.prefer.applied("count", "handling", "timezone", "max-affected"),
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


def planned(functions: Functions, schema: Schema, wanted: Wanted) -> Call:
    """The call that a request means; raises RestError for what is unknown, ambiguous or not implemented."""
    if wanted.method not in (*READS, "POST"):
        raise RestError(405, "PGRST101", f"Cannot use the {wanted.method} method on RPC")
    statement = Statement()
    is_read = wanted.method in READS
    query = replace(wanted.query, span=wanted.span())
    if is_read:
        given = arguments_of(wanted)
        function = functions.called(wanted.name, given, None)
        source = _applied_to_texts(functions.schema, function, given, statement)
    else:
        function, source = _called_by_body(functions, wanted, statement)
    if function.type == "void" and function.is_set:
        raise not_implemented(f"'{function.name}' returns a set of void.")
    if function.type == "record" and function.columns is None:
        raise not_implemented(f"'{function.name}' returns a record whose columns have no names.")
    sql = _sql(function, source, wanted, query, schema, statement)
    wanted.prefer.check()
    if not function.is_set and wanted.prefer.max_affected is not None:
        message = (
            "Function must return SETOF or TABLE when max-affected preference is used with handling=strict"
        )
        raise RestError(400, "PGRST128", message)
    return Call(function, Plan(sql, tuple(statement.values), is_read or function.is_read_only), wanted)


def arguments_of(wanted: Wanted) -> dict[str, list[str]]:
    """The parameters of a GET that are arguments and no filters, with all their values."""
    given: dict[str, list[str]] = {}
    for name, value in wanted.query.arguments:
        given.setdefault(name, []).append(value)
    return given


def _called_by_body(functions: Functions, wanted: Wanted, statement: Statement) -> tuple[Function, str]:
    """A POST: what the body is depends on its media type; it goes to PostgreSQL as it came, in one parameter."""
    if wanted.body_kind == FORM:
        given: dict[str, list[str]] = {}
        for name, value in parse_qsl(wanted.text(), keep_blank_values=True):
            given.setdefault(name, []).append(value)
        function = functions.called(wanted.name, given, FORM)
        return function, _applied_to_texts(functions.schema, function, given, statement)
    if wanted.body_kind == JSON_MEDIA:
        body, arguments = _arguments(wanted)
        function = functions.called(wanted.name, arguments, JSON_MEDIA)
        if function.arguments and function.arguments[0].name:
            return _called_by_json(functions.schema, function, body, arguments, statement)
        text = body
    elif wanted.body_kind in WHOLE_BODY:
        function = functions.called(wanted.name, (), wanted.body_kind)
        text = "\\x" + wanted.body.hex() if wanted.body_kind.endswith("octet-stream") else wanted.text()
    elif wanted.body_kind == "text/csv":
        raise not_implemented("Calling a function with CSV is not implemented here.")
    else:
        raise RestError(400, "PGRST102", f"Content-Type not acceptable: {wanted.body_kind}")
    whole = statement.value(text, function.arguments[0].type) if function.arguments else ""
    return function, f"{_sql_name(functions.schema, function)}({whole})"


def _arguments(wanted: Wanted) -> tuple[str, Mapping[str, object]]:
    """The text of the body and its keys. Of an array the first object counts; what has no keys becomes `[]`."""
    columns = wanted.query.columns
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
        arguments = {name: arguments.get(name) for name in sorted(columns)}
    return wanted.text(), arguments


def _called_by_json(
    schema: str, function: Function, body: str, arguments: Mapping[str, object], statement: Statement
) -> tuple[Function, str]:
    given = tuple(a for a in function.arguments if a.name in arguments)
    if not given:
        return function, f"{_sql_name(schema, function)}()"
    # jsonb is parsed once for all arguments; json keeps the very text of a value where that can be seen.
    is_plain = all(a.type == "jsonb" or _is_plain(a.type, arguments[a.name]) for a in given)
    is_list = body.lstrip().startswith("[")
    statement.values.append(body)
    return function, _applied(schema, function, given, "jsonb" if is_plain else "json", is_list=is_list)


def _is_plain(type_: str, value: object) -> bool:
    return type_ != "json" and not isinstance(value, dict | list | float)


def _sql_name(schema: str, function: Function) -> str:
    return f"{quoted(schema)}.{quoted(function.name)}"


def _passed(argument: Argument, value: str) -> str:
    return f"{'variadic ' if argument.is_variadic else ''}{quoted(argument.name)} := {value}"


def _applied_to_texts(
    schema: str, function: Function, given: Mapping[str, list[str]], statement: Statement
) -> str:
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
    return f"{_sql_name(schema, function)}({', '.join(passed)})"


@lru_cache(maxsize=512)
def _applied(
    schema: str, function: Function, given: tuple[Argument, ...], kind: str, *, is_list: bool
) -> str:
    """The function applied to arguments out of the body; as something to select from."""
    row = ", ".join(f"{quoted(a.name)} {a.type}" for a in given)
    passed = ", ".join(_passed(a, f"_body_.{quoted(a.name)}") for a in given)
    record = f"{kind}_to_record(($1::text::{kind}){' -> 0' if is_list else ''})"
    return f"{record} as _body_ ({row}), lateral {_sql_name(schema, function)}({passed})"


def _sql(
    function: Function, source: str, wanted: Wanted, query: Query, schema: Schema, statement: Statement
) -> str:
    """Calls it and reads from what it returned like from a table, so that rows can embed what is related."""
    shaped = (query.select, query.filters, query.logic, query.orders, query.spans, query.span)
    is_bare = shaped == (ALL.select, (), (), (), (), ALL.span)
    is_counted = wanted.prefer.get("count") in COUNTED
    if is_bare and not function.is_set and not is_counted and wanted.media == JSON_ARRAY:
        return _single_sql(function, source)
    columns = function.columns or {SCALAR: Column(SCALAR, function.type)}
    table = Table(function.row_name, columns, (), schema.name)
    scope = Scope(schema.name, schema.tables, schema.relations, wanted.max_rows)
    root = plan(query, table, scope, source=SOURCE)
    media = wanted.media  # after the plan: of two mistakes the one in the query is told
    page = rows_sql.read(root, statement)
    total = "null::bigint"
    if is_counted:
        total = f"(select count(*) from ({rows_sql.count(root, statement)}) as counted)"
    rows = f"pgrst_call as {SCALAR}"
    if function.columns is not None:
        # Only what is shown or filtered by: ordering by any other column is an error there too.
        shown = needed(root)
        names = None if shown is None else sorted(shown | filtered(root))
        rows = "pgrst_call.*" if not names else ", ".join(f"pgrst_call.{quoted(name)}" for name in names)
    item = (
        "page" if function.columns is not None or (function.is_set and media.is_single) else f"page.{SCALAR}"
    )
    form = media if function.is_set else replace(media, is_single=True) if not media.is_csv else media
    body, found = form.body("page", item=item, source=SOURCE), "count(*)" if function.is_set else "1"
    return (
        f"with {SOURCE} as (select {rows} from {source} as pgrst_call) "
        f"select {body} as body, {found} as rows, {total} as total, {SAID} from ({page}) as page"
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
