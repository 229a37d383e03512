"""Questions about calls of functions, for a real PostgREST and for ours: arguments, results, errors, methods."""

from collections.abc import Iterator
from typing import Any

from tests.contract.rest_questions import Newer, Question

OBJECT = {"Accept": "application/vnd.pgrst.object+json"}
CSV = {"Accept": "text/csv"}
COUNTED = {"Prefer": "count=exact"}
PAGE = {"Origin": "http://page.example"}


def _called(function: str, body: Any, **headers: str) -> Question:
    kinds = {name.replace("_", "-"): value for name, value in headers.items()}
    return Question("POST", f"/rpc/{function}", kinds, body)


def _sent(kind: str, *calls: tuple[str, str]) -> Iterator[Question]:
    for function, body in calls:
        yield _called(function, body, Content_Type=kind)


def _got(*paths: str, **headers: str) -> Iterator[Question]:
    for path in paths:
        yield Question("GET", f"/rpc/{path}", headers)


RESULTS = (
    *(
        _called(function, {})
        for function in (
            "ret_col", "ret_text", "ret_time", "ret_bool", "ret_bytea", "ret_numeric", "ret_array",
            "ret_jsonb", "ret_json", "ret_json_null", "ret_addr", "ret_void", "ret_null", "ret_none",
            "ret_setof_none", "set_of_json",
            "ret_one?select=job_type,payload", "ret_one?select=payload->x", "ret_one?limit=0",
            "ret_one?job_type=eq.zz&select=job_type", "ret_addr?select=zip",
            "ret_addr?street=eq.S", "ret_addr?zip=gt.1",
        )
    ),
    _called("ret_out", {"a": 1}),
    _called("ret_outs", {"a": 1}),
    _called("ret_both", {"a": 2}),
    _called("set_of_text", {"n": 2}),
    _called("many", {"n": 0}),
    _called("ret_table", {"n": 2}),
    _called("set_of_jobs?select=job_type,priority", {"n": 3}),
    _called("set_of_jobs?select=t:job_type,priority&priority=gt.5&order=priority", {"n": 4}),
    _called("claim_jobs?select=job_type,status&order=job_type", {"n": 2}),
)  # fmt: skip

ARGUMENTS = (
    _called("takes_list", {"v": ["a", "b"]}),
    _called("takes_rest", {"a": 1}),
    _called("takes_rest", {"a": 1, "v": [2, 3]}),
    _called("takes_array", {"a": [1, 2]}),
    _called("takes_addr", {"a": {"street": "s", "zip": 5}}),
    _called("takes_defaults", {}),
    _called("takes_defaults", {"b": "y"}),
    _called("takes_defaults", {"a": None}),
    _called("takes_defaults", {"c": 1}),
    _called("Odd%20Name", {"arg One": 4}),
    _called("named_or_whole", {"a": 1}),
    _called("named_or_whole", {"b": 1}),
    _called("named_or_whole", {}),
    _called("two_unnamed", {}),
    _called("one_unnamed", {}),
    _called("overloaded", {"a": 1}),
    _called("no_function", {}),
    _called("add", {"a": 1}),
    _called("add", {"a": 1, "b": 2, "c": 3}),
    _called("add", {"a": "x", "b": 2}),
    _called("add", [{"a": 1, "b": 2}, {"a": 3, "b": 4}]),
    _called("add", [{"a": 1, "b": 2}, {"a": 3}]),
    _called("add", []),
    _called("add", [1]),
    _called("ret_void", []),
    _called("add?columns=a", {"a": 1, "b": 2}),
    _called("add?columns=a,b", {"a": 1, "b": 2, "c": 3}),
    *_sent(
        "application/json",
        ("takes_json", '{"a": {"b" :  1}}'),
        ("takes_jsonb", '{"a": {"b" :  1}}'),
        ("takes_text", '{"a": {"b" :  1}}'),
        ("takes_text", '{"a": 1e2}'),
        ("takes_text", '{"a": "\\u2603"}'),
        ("takes_text", '{"a": "1", "a": "2"}'),
        ("takes_numeric", '{"a": 1e2}'),
        ("takes_float", '{"a": 0.1}'),
        ("takes_bool", '{"a": true}'),
        ("takes_time", '{"a": "2026-01-01"}'),
        ("takes_mood", '{"a": "nope"}'),
        ("add", '{"a": 1e2, "b": 1}'),
        ("add", "5"),
        ("add", "{"),
        ("add", ""),
        ("add", "null"),
        ("ret_void", ""),
        ("whole_jsonb", "5"),
        ("whole_jsonb", '{"a": 1}'),
        ("whole_jsonb", '[{"a": 1}, {"a": 2}]'),
        ("whole_jsonb", '[{"a": 1}, {"b": 2}]'),
        ("whole_text", '{"a": 1}'),
    ),
    *_sent("text/plain", ("whole_text", "hello"), ("ret_void", "x")),
    *_sent("application/octet-stream", ("whole_bytea", "abc"), ("ret_void", "x"), ("ret_void", "")),
    *_sent("text/xml", ("ret_void", "<a/>")),
    *_sent(
        "application/x-www-form-urlencoded",
        ("add", "a=1&b=2"),
        ("ret_void", ""),
        ("takes_text", "a=x+y%26"),
        ("takes_list", "v=1&v=2"),
    ),
    *_sent("application/wibble", ("add", "{}")),
    *_got(
        "add?a=1&b=2", "add?a=1", "add?a=1&b=2&c=3", "add?a=1&b=2&c=eq.3", "add?a=1&b=eq.2", "add?a=1&a=5&b=2",
        "takes_list?v=a&v=b", "takes_list?v=a", "takes_rest?a=1&v=3&v=4", "takes_array?a={1,2}", "takes_mood?a=sad",
        "takes_mood?a=nope", "takes_time?a=2020-01-01", "takes_bool?a=t", "takes_addr?a=(s,4)", "takes_text?a=",
        "named_or_whole?a=1", "named_or_whole", "two_unnamed", "Odd%20Name?arg%20One=3",
    ),
)  # fmt: skip

ROWS = (
    *_got(
        "ret_table?n=3&x=gt.1&order=x.desc", "ret_table?n=3&or=(x.eq.1,x.eq.3)", "ret_table?n=3&nope=gt.1",
        "ret_table?n=3&select=x,y&y=like.*2", "ret_table?n=3&x=in.(1,2)&limit=1", "ret_table?n=3&order=nope",
        "many?n=3&pgrst_scalar=gt.1", "many?n=3&order=pgrst_scalar.desc", "many?n=3&nope=eq.1", "many?n=3&limit=0",
        "set_of_jobs?n=2&select=job_type", "set_of_jobs?n=2&select=job_type&job_type=eq.b", "set_of_jobs?n=2&nope=eq.1",
    ),
    *_got("many?n=5", Range="1-2"),
    *_got("many?n=5", Range="1-2", Prefer="count=exact"),
    *_got("many?n=3&limit=1", "many?n=3&limit=1&offset=9", Prefer="count=exact"),
    *_got("add?a=1&b=2", "ret_one?select=job_type", Prefer="count=exact"),
    *_got("add?a=1&b=2", "many?n=5&limit=2", "ret_void", Prefer="count=planned"),
    *_got("many?n=5&limit=2", Prefer="count=estimated"),
    _called("many", {"n": 3}, Prefer="count=exact", Range="0-1"),
    _called("many?limit=1&offset=1", {"n": 3}, Prefer="count=exact"),
    _called("many", {"n": 3}, Prefer="return=minimal"),
    _called("many", {"n": 3}, Prefer="handling=strict,wibble=2"),
    _called("many", {"n": 3}, Prefer="tx=rollback"),
    _called("many", {"n": 1500}, Prefer="count=exact"),
    _called("add?a=eq.1", {"a": 1, "b": 2}),
    _called("add?select=x", {"a": 1, "b": 2}),
    _called("add?order=x", {"a": 1, "b": 2}),
    _called("add?limit=0", {"a": 1, "b": 2}),
)  # fmt: skip

FORMS = (
    *(
        Question("POST", f"/rpc/{function}", form, {})
        for form in (OBJECT, CSV, {"Accept": "application/json, text/csv"}, {"Accept": "text/plain"})
        for function in (
            "ret_addr",
            "ret_void",
            "ret_text",
            "ret_col",
            "set_of_json",
            "ret_setof_none",
            "ret_null",
        )
    ),
    _called("ret_table", {"n": 2}, Accept="application/vnd.pgrst.object+json"),
    _called("many", {"n": 1}, Accept="application/vnd.pgrst.object+json"),
    _called("ret_table", {"n": 2}, Accept="text/csv"),
    _called("many", {"n": 2}, Accept="text/csv"),
    _called("ret_none", {}, Accept="application/vnd.pgrst.array+json;nulls=stripped"),
)

SAID = (
    *_got("about", "own_timeout", "volatile_read", "stable_write", "claim_jobs?n=1", "ret_void"),
    Question("GET", "/rpc/about", {"X-Said": "yes"}, role="anon"),
    Question("GET", "/rpc/about", role="authenticated"),
    Question("POST", "/rpc/about", {}, {}),
    Question("GET", "/rpc/cookies", {"Cookie": "a=b; c=d"}),
    Question("GET", "/rpc/cookies"),
    _called("own_isolation", {}),
    _called("stable_write", {}),
    *(_called("says_status", {"s": status}) for status in ("201", "404", "abc", "")),
    *(
        _called("says_headers", {"h": headers})
        for headers in (
            '[{"X-A":"1"},{"X-B":"2"}]',
            '{"X-A":"1"}',
            '[{"X-A":1}]',
            '[{"X-A":"1","X-B":"2"}]',
            '[{"Content-Type":"text/x"}]',
            "",
        )
    ),
)

ERRORS = (
    *(
        _called("raise_code", {"code": code})
        for code in (
            "PT201", "PT404", "PT600", "PTxyz", "PT4O4", "23514", "23P01", "23502", "08000", "0L000", "0P000", "28P01",
            "2D000", "38000", "39000", "3B000", "53000", "55000", "57000", "58000", "F0000", "HV000", "P0001", "P0004",
            "XX001", "25001", "25006", "09000", "42601", "02000", "01000", "34000", "44000", "22012", "0A000", "3D000",
            "42P02", "42501", "42883", "42P01", "AB123",
        )
    ),
    _called(
        "raise_as_told", {"message": '{"code":"1","message":"m"}', "detail": '{"status":420,"headers":{"X-A":"y"}}'}
    ),
    _called(
        "raise_as_told",
        {"message": '{"code":"1","message":"m","details":"d","hint":"h"}', "detail": '{"status":599,"headers":{}}'},
    ),
)  # fmt: skip

METHODS = (
    *(Question(method, "/rpc/add", {}, {"a": 1}) for method in ("PUT", "PATCH", "DELETE")),
    Question("HEAD", "/rpc/add?a=1&b=2"),
    Question("HEAD", "/rpc/many?n=3", COUNTED),
    Question("HEAD", "/rpc/ret_void"),
    Question("OPTIONS", "/rpc/volatile_read"),
    Question("OPTIONS", "/rpc/ret_text"),
    Question("OPTIONS", "/rpc/add"),
    Question("OPTIONS", "/payment_jobs"),
    Question("OPTIONS", "/nopk"),
    Question("OPTIONS", "/"),
    Question("OPTIONS", "/payment_jobs", PAGE),
    Question("OPTIONS", "/payment_jobs", PAGE | {"Access-Control-Request-Method": "POST"}),
    Question(
        "OPTIONS",
        "/rpc/nothing",
        PAGE | {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "Foo,Bar"},
    ),
    Question("GET", "/rpc/add?a=1&b=2", PAGE),
    Question("POST", "/rpc/nothing", PAGE, {}),
    Question("GET", "/rpc/"),
)

CALLS = {
    "results": RESULTS, "arguments": ARGUMENTS, "rows": ROWS, "forms": FORMS, "said": SAID, "errors": ERRORS,
    "methods": METHODS,
}  # fmt: skip

UNREADABLE = {
    "code": "PGRST121",
    "details": "Invalid JSON value for MESSAGE: 'nope'",
    "hint": "MESSAGE must be a JSON object with obligatory keys: 'code', 'message' and optional keys: 'details', "
    "'hint'.",
    "message": "Could not parse JSON in the \"RAISE SQLSTATE 'PGRST'\" error",
}
NO_PATH = {
    "code": "PGRST125",
    "details": None,
    "hint": None,
    "message": "Invalid path specified in request URL",
}
SINGLE = {
    "code": "PGRST128",
    "details": None,
    "hint": None,
    "message": "Function must return SETOF or TABLE when max-affected preference is used with handling=strict",
}
BEYOND = {
    "code": "PGRST124",
    "details": "The query affects 3 rows",
    "hint": None,
    "message": "Query result exceeds max-affected preference constraint",
}


def _raised(code: str, status: int, reason: str) -> Newer:
    body = {"code": code, "details": None, "hint": None, "message": "m"}
    return Newer(_called("raise_code", {"code": code}), status, body, reason)


NEWER_CALLS = (
    *(_raised(code, 500, "another status since 13") for code in ("21000", "42P17", "53400", "54000")),
    Newer(
        _called("raise_as_told", {"message": "nope", "detail": "{}"}),
        500,
        UNREADABLE,
        "more words since 12.1",
    ),
    Newer(
        Question("GET", '/rpc/takes_json?a={"a":1}'),
        200,
        {"a": 1},
        "arguments are passed as they are since 13",
    ),
    Newer(
        Question("GET", "/rpc/ret_table?n=3&select=x&y=like.*2"),
        200,
        [{"x": 2}],
        "unselected columns filter since 13",
    ),
    Newer(Question("GET", "/rpc/a/b"), 404, NO_PATH, "an empty object until 12"),
    Newer(Question("GET", "/a/b"), 404, NO_PATH, "an empty object until 12"),
    Newer(
        _called("many", {"n": 3}, Prefer="handling=strict,max-affected=2"), 400, BEYOND, "counts since 12.2"
    ),
    Newer(
        _called("many", {"n": 3}, Prefer="handling=strict,max-affected=3"),
        200,
        [1, 2, 3],
        "counts since 12.2",
    ),
    Newer(
        _called("add", {"a": 1, "b": 2}, Prefer="handling=strict,max-affected=3"),
        400,
        SINGLE,
        "refused since 13.0.3",
    ),
)
