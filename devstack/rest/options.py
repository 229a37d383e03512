"""What browsers and others ask before they send a request: OPTIONS, and the headers of CORS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from devstack.rest.answer import Answer
from devstack.rest.catalogue import Table
from devstack.rest.functions import Functions
from devstack.rest.quoting import quoted
from devstack.rest.rpc import arguments_of

if TYPE_CHECKING:
    from aiohttp import web

    from devstack.rest.request import Wanted
    from devstack.rest.sessions import Session

ANY_ORIGIN: Final = {"Access-Control-Allow-Origin": "*"}
EXPOSED: Final = ANY_ORIGIN | {
    "Access-Control-Expose-Headers": "Content-Encoding, Content-Location, Content-Range, Content-Type, Date, "
    "Location, Server, Transfer-Encoding, Range-Unit"
}
ALWAYS_ALLOWED: Final = ("Accept", "Accept-Language", "Content-Language")
# Bits of pg_relation_is_updatable.
UPDATABLE, INSERTABLE, DELETABLE = 4, 8, 16


def is_preflight(request: web.Request) -> bool:
    """Whether a browser asks on behalf of a page; needs no key."""
    headers = request.headers
    return request.method == "OPTIONS" and "Origin" in headers and "Access-Control-Request-Method" in headers


def preflight(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers that allow a page everything that it asks for."""
    answer = ANY_ORIGIN | {
        "Access-Control-Allow-Methods": "GET, POST, PATCH, PUT, DELETE, OPTIONS, HEAD",
        "Access-Control-Max-Age": "86400",
    }
    asked = headers.get("Access-Control-Request-Headers")
    if asked is not None:
        names = ("Authorization", *(name.strip() for name in asked.split(",")), *ALWAYS_ALLOWED)
        answer["Access-Control-Allow-Headers"] = ", ".join(names)
    return answer


def allowed(methods: str) -> Answer:
    """The answer to a plain OPTIONS."""
    return Answer(200, {**ANY_ORIGIN, "Allow": methods})


def allowed_on_function(functions: Functions, wanted: Wanted) -> Answer:
    """Of a function that the query's arguments mean, whether it may be read."""
    function = functions.called(wanted.name, arguments_of(wanted), None)
    return allowed("OPTIONS,GET,HEAD,POST" if function.is_read_only else "OPTIONS,POST")


async def allowed_on_table(session: Session, table: Table) -> Answer:
    """Of a table or view, how it may be changed; one query."""
    name = f"{quoted(table.schema)}.{quoted(table.name)}"
    bits = int(
        await session.connection.fetchval("select pg_relation_is_updatable($1::text::regclass, true)", name)
    )
    methods = ["OPTIONS,GET,HEAD"]
    if bits & INSERTABLE:
        methods.append("POST")
        if bits & UPDATABLE and table.primary_key:
            methods.append("PUT")
    if bits & UPDATABLE:
        methods.append("PATCH")
    if bits & DELETABLE:
        methods.append("DELETE")
    return allowed(",".join(methods))
