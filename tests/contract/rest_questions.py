"""What a question to a REST server is, and what changed between the judge's version and ours."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from tests.contract.recorded import Reply

COMPARED = (
    "content-range", "preference-applied", "location", "content-type", "content-location", "content-profile",
)  # fmt: skip


@dataclass(frozen=True)
class Question:
    """One request; a body that is no text is sent as JSON."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: Any = None
    role: str = "service_role"

    @property
    def encoded(self) -> str:
        """The path as it is sent; what is encoded already stays."""
        return quote(self.path, safe="%/?&=,.()*:;!+'~-_>")


@dataclass(frozen=True)
class Newer:
    """A question that version 14 answers otherwise than the judge, and what its release notes or source say."""

    question: Question
    status: int
    body: Any
    reason: str


def reads(
    *paths: str, headers: Mapping[str, str] | None = None, role: str = "service_role"
) -> list[Question]:
    """A GET of each."""
    return [Question("GET", path, headers or {}, role=role) for path in paths]


def as_14(reply: Reply) -> object:
    """What of the judge's answer must be ours too: version 14 has other words or another status for some errors."""
    if reply.status == 404 and (not reply.body or reply.code in ("42P01", "PGRST205")):
        return 404  # a table that is not there: PGRST205 since 13
    if reply.code == "PGRST107":
        return 406, reply.body["message"]  # 415 until 12
    if reply.code in ("PGRST106", "PGRST116", "PGRST204"):
        return reply.status, reply.code, reply.body["details"]  # other words since 13
    headers = {name: value for name, value in reply.headers.items() if name in COMPARED}
    return reply.status, headers, reply.body


NO_TO_MANY = "to-many relations can be spread since 13"
ORDERED = "`order` of a change orders what it returns since 13"
TABLE_FIRST = "a table that is not there is told before anything else since 13"
NOT_NULL = "`is.not_null` is there since 13"
LIMITED = "`max-affected` is there since 12.2"

UNSELECTED = "rows of a function can be filtered by columns that are not selected since 13"
# What no question can hold, since the judge is too old or ours refuses it: what the real server does, what ours does.
REMAINING = (
    ("`GET /rest/v1/`", "the OpenAPI description", "501"),
    ("`Accept: application/geo+json`", "GeoJSON by PostGIS", "501"),
    ("Functions with a body in CSV, of type `setof void`, or of `record` without names", "called", "501"),
    (
        "Domains that are media types, casts of domains to json or text",
        "custom forms of answers and values",
        "unknown",
    ),
    ("A CSV body that cannot be read at all", "the words of its CSV library", "the same code, other words"),
    (
        "Two mistakes in one request",
        "an operator that is not there is told before a constant that is wrong",
        "whichever comes first in the statement",
    ),
    (
        "The words after the status of a raised `PTxyz` or of a `status_text`",
        "the message, or what the function said",
        "those of HTTP; clients of HTTP/2 see neither",
    ),
    ("`request.headers`", "has `content-length`", "has not, so that one caller's calls are alike"),
    ("A header that a function sets twice", "both are sent", "the last one"),
    (
        "A method that HTTP does not know, such as BREW",
        "405",
        "400 from the HTTP parser; TRACE is a 405 here too",
    ),
    (
        "A call of a set with an empty `select=`",
        "also the inside of its own statement",
        "the columns of the function",
    ),
    ("A negative `rel.limit`", "12: 500 without a body", "PostgreSQL's own refusal (2201W)"),
)

REPRESENTED = {"Prefer": "return=representation"}
AT_MOST = {"Prefer": "handling=strict,max-affected=1,return=representation"}
BEYOND = {
    "code": "PGRST124",
    "details": "The query affects 3 rows",
    "hint": None,
    "message": "Query result exceeds max-affected preference constraint",
}
NEWER = (
    Newer(
        Question("GET", "/clients?select=id,...projects(name)&order=id"),
        200,
        [{"id": 1, "name": ["Engine", "Notes"]}, {"id": 2, "name": ["Difference"]}, {"id": 3, "name": []}],
        NO_TO_MANY,
    ),
    Newer(
        Question(
            "GET", "/clients?select=id,...projects(name,pid:id)&projects.order=id.desc&id=lt.3&order=id"
        ),
        200,
        [
            {"id": 1, "name": ["Notes", "Engine"], "pid": [2, 1]},
            {"id": 2, "name": ["Difference"], "pid": [3]},
        ],
        NO_TO_MANY,
    ),
    Newer(
        Question("GET", "/people?select=id,...tasks(title)&order=id&limit=1&tasks.order=title.desc"),
        200,
        [{"id": 1, "title": ["gears", "cards"]}],
        NO_TO_MANY,
    ),
    Newer(
        Question("GET", "/clients?select=id,projects(tasks())&order=id&limit=1"),
        200,
        [{"id": 1}],
        "an embed of nothing but empty embeds is empty itself",
    ),
    Newer(
        Question("GET", "/project?select=id,clients(id)"),
        404,
        {
            "code": "PGRST205",
            "details": None,
            "hint": "Perhaps you meant the table 'public.projects'",
            "message": "Could not find the table 'public.project' in the schema cache",
        },
        TABLE_FIRST,
    ),
    Newer(
        Question("GET", "/people?select=id&mood=is.not_null&order=id"), 200, [{"id": 1}, {"id": 2}], NOT_NULL
    ),
    Newer(
        Question("GET", "/people?select=id&or=(mood.is.not_null,id.eq.3)&order=id.desc&limit=1"),
        200,
        [{"id": 3}],
        NOT_NULL,
    ),
    Newer(
        Question("GET", "/people?mood=is.nothing"),
        400,
        {
            "code": "PGRST100",
            "details": 'unexpected "h" expecting isVal: (null, not_null, true, false, unknown)',
            "hint": None,
            "message": '"failed to parse filter (is.nothing)" (line 1, column 7)',
        },
        NOT_NULL,
    ),
    Newer(
        Question("PATCH", "/projects?id=lt.4&select=id&order=id.desc", REPRESENTED, {"due": "2026-01-01"}),
        200,
        [{"id": 3}, {"id": 2}, {"id": 1}],
        ORDERED,
    ),
    Newer(
        Question(
            "POST",
            "/clients?select=id&order=id.desc",
            REPRESENTED,
            [{"id": n, "name": "n"} for n in (501, 502)],
        ),
        201,
        [{"id": 502}, {"id": 501}],
        ORDERED,
    ),
    Newer(
        Question("POST", "/rpc/all_projects?select=name&id=eq.1&order=id", {}, {}),
        200,
        [{"name": "Engine"}],
        UNSELECTED,
    ),
    Newer(
        Question("POST", "/rpc/all_projects?select=name&or=(id.eq.1,client_id.eq.2)&order=id", {}, {}),
        200,
        [{"name": "Engine"}, {"name": "Difference"}],
        UNSELECTED,
    ),
    Newer(Question("PATCH", "/projects?id=lt.4", AT_MOST, {"due": None}), 400, BEYOND, LIMITED),
    Newer(Question("DELETE", "/messages?id=lt.4", AT_MOST), 400, BEYOND, LIMITED),
    Newer(
        Question("PATCH", "/projects?id=eq.4&select=id", AT_MOST, {"due": "2026-01-01"}),
        200,
        [{"id": 4}],
        LIMITED,
    ),
    Newer(
        Question("GET", "/projects?select=id&limit=1&order=id", {"Accept": "Application/JSON"}),
        200,
        [{"id": 1}],
        "the name of a form may be in capitals since 12.2",
    ),
)
