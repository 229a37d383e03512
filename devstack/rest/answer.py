"""One answer of the REST side, and how a statement's result row becomes one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, cast

import asyncpg

from devstack.rest.errors import RestError, from_postgres, not_one_row
from devstack.rest.request import Wanted
from devstack.rest.zones import transaction

if TYPE_CHECKING:
    from devstack.rest.sessions import Connection, Session

# What a function may have said about its own answer, read after it ran.
SAID: Final = (
    "nullif(current_setting('response.status', true), '') as status, "
    "nullif(current_setting('response.headers', true), '') as headers"
)


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers, and a body unless there is none."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """One statement with its parameters, ready to run."""

    sql: str
    values: tuple[str | None, ...]
    is_read_only: bool = False


async def run(session: Session, plan: Plan, wanted: Wanted) -> asyncpg.Record:
    """Runs it in one transaction and gives the one row it returns: body, rows, and more by kind.

    Only where the number of rows may undo the change is the transaction spelled out; elsewhere the
    statement is one by itself and costs a single round trip.
    """
    limit = wanted.prefer.max_affected
    is_watched = not plan.is_read_only and (wanted.is_single or limit is not None)
    async with transaction(session, wanted, is_needed=is_watched) as connection:
        row = await fetched(connection, plan.sql, plan.values)
        rows = int(row["rows"])
        if is_watched and limit is not None and rows > limit:
            message = "Query result exceeds max-affected preference constraint"
            raise RestError(400, "PGRST124", message, f"The query affects {rows} rows")
        if is_watched and wanted.is_single and rows != 1:
            raise not_one_row(rows)
        return row


async def fetched(connection: Connection, sql: str, values: Sequence[str | None]) -> asyncpg.Record:
    """The one row that a statement returns.

    An SQLSTATE of class 01 or 02, raised as an error, becomes a RestError here: asyncpg's exception for it is
    immutable and cannot pass through a context manager.
    """
    try:
        row = await connection.fetchrow(sql, *values)
    except asyncpg.PostgresWarning as error:
        raise from_postgres(error, is_anon=False) from None
    if row is None:
        raise RestError(
            500, "DEVSTACK", "The statement returned no row; this is an error of devstack itself."
        )
    return row


def with_body(wanted: Wanted, text: str, headers: Mapping[str, str], status: int = 200) -> Answer:
    """An answer with a JSON body and the headers that go with it."""
    kind = {"Content-Type": wanted.media.content_type, **wanted.profile.headers()}
    return Answer(status, {**headers, **kind}, text.encode())


def as_said(answer: Answer, row: asyncpg.Record) -> Answer:
    """The answer with the status and headers that the function set for itself, if it did."""
    status, headers = row["status"], row["headers"]
    if status is None and headers is None:
        return answer
    extra = _headers_said(headers) if headers is not None else {}
    if status is not None and not str(status).isdigit():
        raise RestError(500, "PGRST112", "response.status guc must be a valid status code")
    return Answer(int(status or answer.status), {**answer.headers, **extra}, answer.body)


def _headers_said(text: str) -> dict[str, str]:
    try:
        each = [item for (item,) in (said.items() for said in json.loads(text))]
    except (ValueError, TypeError, AttributeError):
        each = [("", None)]
    if any(not isinstance(value, str) for _, value in each):
        what = "a JSON array composed of objects with a single key and a string value"
        raise RestError(500, "PGRST111", f"response.headers guc must be {what}")
    return dict(cast(list[tuple[str, str]], each))


def content_range(offset: int, rows: int, total: int | None) -> str:
    """PostgREST's Content-Range: `0-4/*`, `*/0`."""
    span = f"{offset}-{offset + rows - 1}" if rows and total != 0 else "*"
    return f"{span}/{'*' if total is None else total}"


def planned_rows(explained: str) -> int:
    """How many rows PostgreSQL expects, out of an EXPLAIN in JSON."""
    outermost = cast(list[dict[str, dict[str, int]]], json.loads(explained))
    return outermost[0]["Plan"]["Plan Rows"]
