"""What a REST request asks for besides its path: preferences, accepted form, query, rows, body."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from devstack.rest import querystring
from devstack.rest.errors import RestError, not_implemented
from devstack.rest.media import Media, negotiate
from devstack.rest.payload import parsed
from devstack.rest.preferences import Preferences, read_preferences
from devstack.rest.tree import Query, Span

if TYPE_CHECKING:
    from aiohttp import web

READS: Final = ("GET", "HEAD")
JSON_MEDIA: Final = "application/json"
RANGE: Final = re.compile(r"(\d+)-(\d*)")
UNSATISFIABLE: Final = "Requested range not satisfiable"


@dataclass(frozen=True, slots=True)
class Profile:
    """The schema that a request speaks to, and whether the answer says which one that is."""

    schema: str
    is_told: bool

    def headers(self) -> dict[str, str]:
        """What an answer with a body says of it."""
        return {"Content-Profile": self.schema} if self.is_told else {}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request, read but not yet understood: nothing here knows the database.

    `content_type` is None when the request has none, which means JSON.
    """

    method: str
    name: str
    profile: Profile
    raw_query: str
    prefer: Preferences
    accept: str | None
    body: bytes
    content_type: str | None
    range_header: str | None
    max_rows: int | None
    is_call: bool = False

    @property
    def query(self) -> Query:
        """The query string, understood; PGRST100 when it cannot be."""
        return querystring.read(self.raw_query, is_call=self.is_call and self.method in READS)

    @property
    def media(self) -> Media:
        """The form of the answer; PGRST107 when there is no such form."""
        return negotiate(self.accept)

    @property
    def is_single(self) -> bool:
        """Whether exactly one object is asked for."""
        return self.media.is_single

    @property
    def body_kind(self) -> str:
        """The kind of the body, without parameters."""
        return (self.content_type or JSON_MEDIA).split(";")[0].strip().lower()

    @property
    def location(self) -> str:
        """The Content-Location of a read: the parameters in order of their names."""
        return f"/{self.name}?{self.query.canonical}" if self.query.canonical else f"/{self.name}"

    def span(self) -> Span:
        """The rows asked for, by parameters and by the Range header of a GET; PGRST103 when there can be none."""
        asked = self.query.span
        header = RANGE.fullmatch(self.range_header) if self.range_header and self.method == "GET" else None
        first, last = (int(header[1]), int(header[2]) if header[2] else None) if header else (0, None)
        is_zero = asked.last == -1
        if last is not None and last < first and not is_zero:
            details = (
                "The lower boundary must be lower than or equal to the upper boundary in the Range header."
            )
            raise RestError(416, "PGRST103", UNSATISFIABLE, details)
        both = Span(0, -1) if is_zero else asked.within(first, last)
        if both.is_empty and not is_zero:
            details = "Limit should be greater than or equal to zero."
            raise RestError(416, "PGRST103", UNSATISFIABLE, details)
        return both

    def text(self) -> str:
        """The body as text; a refusal when it is not UTF-8."""
        try:
            return self.body.decode()
        except UnicodeDecodeError:
            if self.body_kind == JSON_MEDIA:
                raise RestError(400, "PGRST102", "Empty or invalid json") from None
            raise not_implemented("A body that is not UTF-8 is not implemented here.") from None

    def json(self) -> object:
        """The parsed body; PGRST102 when it is not JSON."""
        return parsed(self.text())


async def read_wanted(
    request: web.Request, name: str, profile: Profile, *, max_rows: int | None, is_call: bool
) -> Wanted:
    """Takes from the HTTP request what matters here."""
    return Wanted(
        method=request.method,
        name=name,
        profile=profile,
        raw_query=request.rel_url.raw_query_string,
        prefer=read_preferences(request.headers.getall("Prefer", [])),
        accept=request.headers.get("Accept"),
        body=await request.read(),
        content_type=request.headers.get("Content-Type"),
        range_header=request.headers.get("Range"),
        max_rows=max_rows,
        is_call=is_call,
    )


def read_profile(request: web.Request, schemas: Sequence[str]) -> Profile:
    """The schema of a request by its profile header, else the first; PGRST106 for one that is not exposed."""
    header = "Content-Profile" if request.method in ("POST", "PATCH", "PUT", "DELETE") else "Accept-Profile"
    asked = request.headers.get(header)
    if asked is None:
        return Profile(schemas[0], len(schemas) > 1)
    if asked not in schemas:
        hint = f"Only the following schemas are exposed: {', '.join(schemas)}"
        raise RestError(406, "PGRST106", f"Invalid schema: {asked}", hint=hint)
    return Profile(asked, True)
