"""Questions about changing tables, in their order, that a real PostgREST and ours are asked over the same rows."""

from typing import Any

from tests.contract.rest_questions import Question, reads

OBJECT = "application/vnd.pgrst.object+json"
SHOWN = "return=representation"
HEADERS = "return=headers-only"
MERGED = "resolution=merge-duplicates"
IGNORED = "resolution=ignore-duplicates"


def post(path: str, body: Any, *prefer: str, role: str = "service_role", **headers: str) -> Question:
    """An INSERT; headers are named with `_` for `-`."""
    return _question("POST", path, body, prefer, role, headers)


def patch(path: str, body: Any, *prefer: str, role: str = "service_role", **headers: str) -> Question:
    """An UPDATE."""
    return _question("PATCH", path, body, prefer, role, headers)


def put(path: str, body: Any, *prefer: str, **headers: str) -> Question:
    """An upsert of one row."""
    return _question("PUT", path, body, prefer, "service_role", headers)


def delete(path: str, *prefer: str, role: str = "service_role", **headers: str) -> Question:
    """A DELETE."""
    return _question("DELETE", path, None, prefer, role, headers)


def _question(
    method: str, path: str, body: Any, prefer: tuple[str, ...], role: str, headers: dict[str, str]
) -> Question:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Question(method, path, {**({"Prefer": ",".join(prefer)} if prefer else {}), **named}, body, role)


def _clients(*ids: int) -> list[dict[str, object]]:
    return [{"id": id_, "name": f"n{id_}"} for id_ in ids]


ROWS: list[Any] = [{}, [{}, {}], {"label": None}, {"twice": 4}, {"id": 1}]
COUNTERS = [{"at": 7}, {"label": "l"}]
BODIES = [
    "", "{", "[1]", '[{"label":"a"},{"at":1}]', '[{"label":"a"},5]', "5", '"x"', "null", "true", "[[]]",
    '{"label":"a","label":"b"}', "NaN", '{"label":NaN}', '  {"label":"sp"}', '[{"label":"a"},{"label":"b","at":3}]',
    '{"label":"\\u0000"}', '{"label":{"a":1}}', '{"label":[1,2]}', '{"label":' + "9" * 5000 + "}",
]  # fmt: skip

INSERTS = [
    *(post("/clients", {"id": 10 + n, "name": "x"}, *prefer) for n, prefer in enumerate([(), (SHOWN,), (HEADERS,)])),
    post("/clients", {"id": 13, "name": "x"}, "return=minimal"),
    post("/clients", _clients(14, 15), SHOWN),
    post("/clients", _clients(16, 17), HEADERS),
    *(post("/clients", [], *prefer) for prefer in [(), (SHOWN,), (HEADERS,), (SHOWN, "count=exact")]),
    *(post("/counters", row, SHOWN) for row in ROWS),
    post("/counters", {}, HEADERS),
    post("/counters?columns=label", {"at": 7}, SHOWN),
    post("/counters?columns=label,at", COUNTERS, SHOWN),
    post("/counters?columns=label,at", COUNTERS, SHOWN, "missing=default"),
    post("/counters?columns=label,at", {"label": "l"}, SHOWN, "missing=default"),
    post("/counters?columns=label,at", {"label": "l"}, SHOWN, "missing=null"),
    post("/counters?columns=nope", {"a": 1}),
    post("/counters", {"nope": 1}),
    post("/counters?columns=", {"label": "x"}, SHOWN),
    post('/counters?columns="label"', {"label": "q"}, SHOWN),
    post("/counters?columns=label, at", {"label": "q", "at": 1}, SHOWN),
    post("/counters?columns=label,(", {"label": "q"}, SHOWN),
    post("/counters?columns=label,at", "not json", SHOWN),
    *(post("/counters?columns=label", body, SHOWN) for body in ['[{"label":1},{"label":2}]', "[1]", ""]),
    *(post("/counters", body, SHOWN) for body in BODIES),
    post("/counters?select=label,x:at,full:twice", {"label": "s"}, SHOWN),
    *(post(f"/counters?select={each}", {"label": "s"}, SHOWN) for each in ("nope", "at::text", "label->x")),
    post("/projects?select=id,clients(name)", {"id": 20, "name": "p", "client_id": 1}, SHOWN),
    post(
        "/projects?select=name,clients(name),tasks(id)",
        [{"id": 21, "name": "p", "client_id": 2}, {"id": 22, "name": "q", "client_id": None}],
        SHOWN,
    ),
    post(
        "/projects?select=name,clients!inner(name)",
        [{"id": 23, "name": "p", "client_id": 2}, {"id": 24, "name": "q", "client_id": None}],
        SHOWN,
    ),
    post("/projects?select=name,clients(name)&clients.name=eq.x", {"id": 25, "name": "p", "client_id": 2}, SHOWN),
    post("/projects?select=id,latest_task(id)", {"id": 26, "name": "p"}, SHOWN),
    post("/people?select=id,full_name", {"id": 20, "first_name": "F", "last_name": "L"}, SHOWN),
    post("/people?select=id,tasks(id),passports(id)", {"id": 21}, SHOWN),
    post("/projects?select=id,...clients(cname:name)", {"id": 27, "name": "p", "client_id": 1}, SHOWN),
    post("/projects?limit=1&select=id", [{"id": 30, "name": "a"}, {"id": 31, "name": "b"}], SHOWN),
    post("/projects?id=eq.5&select=id", {"id": 32, "name": "a"}, SHOWN),
    post("/projects?clients.name=eq.1&select=id", {"id": 33, "name": "a"}, SHOWN),
    post("/projects", {"id": 1, "name": "dup"}),
    post("/projects", {"id": 34}),
    post("/projects", {"id": 35, "name": "x", "client_id": 999}),
    post("/tasks", {"id": "x"}),
    post("/nope", {"id": 1}),
    post("/projects", {"id": 36, "name": "x", "budget": "12.345"}, SHOWN),
    post("/people", {"id": 22, "vc": "toolong"}),
    post("/people", {"id": 22, "code": "toolong"}),
    post(
        "/people",
        {
            "id": 23, "tags": ["a", "b,c"], "nums": [1, 2], "mood": "ok", "raw": {"x": [1]}, "span": "[1,3)",
            "seen": "2026-01-01",
        },
        SHOWN,
    ),
]  # fmt: skip
FORMS = [
    post("/clients", {"id": 40, "name": "o"}, SHOWN, Accept=OBJECT),
    post("/clients", _clients(41, 42), SHOWN, Accept=OBJECT),
    post("/clients", _clients(43, 44), "return=minimal", Accept=OBJECT),
    *reads("/clients?select=id&id=in.(41,42,43,44)"),
    post(
        "/projects?select=id,clients(name)", {"id": 48, "name": "o", "client_id": 1}, SHOWN, Accept="text/csv"
    ),
    post("/clients", {"id": 45, "name": "o"}, SHOWN, Accept="text/csv"),
    post(
        "/clients", {"id": 46, "name": "o"}, SHOWN, Accept="application/vnd.pgrst.array+json;nulls=stripped"
    ),
    post("/clients", {"id": 47, "name": "o"}, Accept="text/html"),
    post("/clients", "id,name\n50,csv\n51,NULL\n", SHOWN, Content_Type="text/csv"),
    post("/clients", 'id,name\n52,csv\n53,"a,b"\n', SHOWN, Content_Type="text/csv"),
    post("/clients", "id,name\n54\n", Content_Type="text/csv"),
    post("/clients", "id,name\n54,x\n55\n", Content_Type="text/csv"),
    post("/clients", "", Content_Type="text/csv"),
    post("/clients", "id,name\n", SHOWN, Content_Type="text/csv"),
    post("/clients", "id=60&name=form+x", SHOWN, Content_Type="application/x-www-form-urlencoded"),
    post("/clients", "<a/>", Content_Type="text/xml"),
    post("/clients", "x", Content_Type="text/plain"),
    post("/clients", '{"id":61,"name":"j"}', Content_Type="application/json; charset=utf-8"),
    post("/clients", '{"id":62,"name":"j"}', Content_Type=OBJECT),
]
UPSERTS = [
    post("/clients", {"id": 1, "name": "merged"}, SHOWN, MERGED),
    post("/clients", _clients(1, 70), SHOWN, MERGED),
    post("/clients", _clients(1, 71), SHOWN, IGNORED),
    post("/clients", _clients(1), SHOWN, IGNORED),
    *(
        post(f"/clients?on_conflict={key}", {"id": 2, "name": "c"}, SHOWN, MERGED)
        for key in ("id", "name", "nope", "")
    ),
    post("/clients?on_conflict=id", {"id": 2, "name": "c"}),
    post("/passports?on_conflict=person_id", {"id": 9, "person_id": 1, "number": "N"}, SHOWN, MERGED),
    post("/plain", {"v": "x"}, SHOWN, MERGED),
    post("/plain", {"v": "x"}, MERGED),
    post("/pairs", {"a": 1, "b": 2, "v": "new"}, SHOWN, MERGED),
    post("/pairs", {"a": 1, "b": 3, "v": "new"}, HEADERS),
    post("/pairs?on_conflict=a,b", {"a": 1, "b": 3, "v": "newer"}, SHOWN, MERGED),
    post("/clients", [], SHOWN, MERGED),
    post("/clients", [], MERGED),
    post("/counters", {}, SHOWN, MERGED),
    post("/clients", _clients(1), MERGED),
    post("/clients", _clients(72), MERGED, HEADERS),
    post("/clients", _clients(1), MERGED, HEADERS, "count=exact"),
]
PREFERRED = [
    post("/plain", {"v": "h"}, HEADERS),
    post("/v_projects", {"id": 80, "name": "v"}, HEADERS),
    post("/v_projects", {"id": 81, "name": "v"}, SHOWN),
    post('/Odd "Table"', {"the id": 90, "c.d": "&="}, HEADERS),
    post('/Odd "Table"?select="the id","ü"', {"the id": 91, "ü": "é"}, SHOWN),
    post("/measures", {"at": "2025-05-05", "project_id": 1}, HEADERS),
    post("/measures", {"at": "2030-05-05"}, SHOWN),
    post("/clients", _clients(92), "count=exact"),
    post("/clients", _clients(93, 94), "count=planned", SHOWN),
    post("/clients", _clients(95), "handling=strict", "foo"),
    post("/clients", _clients(97), "tx=rollback", SHOWN),
    *reads("/clients?select=id&id=in.(95,97)"),
    post(
        "/clients",
        _clients(98),
        "missing=default",
        "handling=lenient",
        SHOWN,
        "count=exact",
        "timezone=Europe/Berlin",
    ),
    post(
        "/people?select=seen", {"id": 30, "seen": "2026-06-01T00:00:00"}, "timezone=America/New_York", SHOWN
    ),
    post("/notes", {"id": 50, "is_public": True}, SHOWN, role="authenticated"),
    post("/notes", {"id": 51, "is_public": False}, SHOWN, role="authenticated"),
    post("/notes", {"id": 52, "is_public": True}, role="anon"),
    post("/secrets", {"id": 5}, role="anon"),
    post("/secrets", {"id": 5}, role="authenticated"),
    post("/things", {"id": 50, "name": "x"}, SHOWN, Content_Profile="other"),
    post("/things?select=id,groups(name)", {"id": 51, "group_id": 1}, SHOWN, Content_Profile="other"),
    post("/things", {"id": 53}, HEADERS, Content_Profile="other"),
    post("/things", {"id": 52}, Accept_Profile="other"),
    post("/clients", _clients(99), Content_Profile="nope"),
]
UPDATES = [
    *(
        patch("/clients?id=eq.3", {"name": "p3"}, *prefer)
        for prefer in [(), (SHOWN,), (HEADERS,), ("count=exact",)]
    ),
    *(
        patch("/clients?id=eq.777", {"name": "p3"}, *prefer)
        for prefer in [(), (SHOWN,), (SHOWN, "count=exact")]
    ),
    patch("/clients?id=in.(2,3)&select=id", {"name": "both"}, SHOWN, "count=exact"),
    patch("/clients?or=(id.eq.2,id.eq.3)&select=id", {"name": "or"}, SHOWN),
    patch("/clients?name=like.o*&select=id", {"name": "changed"}, SHOWN),
    *(patch("/clients?id=eq.3", {}, *prefer) for prefer in [(), (SHOWN,), ("count=exact",)]),
    patch("/clients?id=eq.3&select=id", {}, SHOWN),
    *(patch("/clients?id=eq.3", body, SHOWN) for body in ('[{"name": "arr"}]', "[]", "[{}]")),
    patch("/clients?id=eq.3", {"nope": 1}),
    patch("/clients?nope=eq.3", {"name": "x"}),
    patch("/clients?id=eq.3", "bad"),
    patch("/clients?id=eq.3", ""),
    patch("/clients?id=eq.3&columns=name", {"name": "c", "id": 5}, SHOWN),
    patch("/counters?id=eq.1&columns=label,at", {"label": "u"}, "missing=default", SHOWN),
    patch("/counters?id=eq.1&columns=label,at", {"label": "u", "at": 9}, SHOWN),
    patch("/counters?id=eq.1&columns=label,at", {"label": "u"}, SHOWN),
    patch("/projects?id=eq.1&select=id,clients(name),tasks(id)", {"name": "P"}, SHOWN),
    patch("/projects?select=id,clients!inner(name)&clients.name=eq.zzz&id=eq.1", {"name": "E"}, SHOWN),
    patch("/clients?id=eq.3", {"name": "o"}, SHOWN, Accept=OBJECT),
    patch("/clients?id=lt.4", {"name": "undone"}, SHOWN, Accept=OBJECT),
    *reads("/clients?name=eq.undone"),
    patch("/notes?id=eq.1", {"text": "t"}, SHOWN, role="authenticated"),
    patch("/secrets?id=eq.1", {"id": 1}, role="anon"),
    patch("/v_projects?id=eq.1&select=id", {"name": "Engine"}, SHOWN),
    patch("/clients?id=eq.3", {"name": None}),
    patch("/projects?id=eq.1", {"client_id": 999}),
    patch("/nope?id=eq.1", {"a": 1}),
    patch("/people?id=eq.1&select=id,full_name", {"first_name": "Adah"}, SHOWN),
    patch("/things?id=eq.1", {"name": "t"}, SHOWN, Content_Profile="other"),
]
DELETES = [
    delete("/counters?id=eq.1"),
    delete("/counters?id=eq.2", SHOWN),
    delete("/counters?id=eq.777", SHOWN),
    delete("/counters?id=eq.777", "count=exact"),
    delete("/counters?id=gt.2&select=id", SHOWN, "count=exact"),
    delete("/projects?id=eq.20&select=id,clients(name)", SHOWN),
    delete("/projects?id=eq.21", HEADERS),
    delete("/clients?id=eq.1"),
    delete("/nope?id=eq.1"),
    delete("/clients?id=gte.40", SHOWN, Accept=OBJECT),
    *reads("/clients?select=id&id=gte.93&order=id"),
    delete("/secrets", role="anon"),
    delete("/notes?id=eq.1", SHOWN, role="anon"),
    delete("/projects?or=(id.eq.22,id.eq.23)&select=id", SHOWN),
    delete("/projects?and=(id.eq.24)&select=id", SHOWN),
    delete("/projects?id=eq.x"),
    delete("/projects?clients.id=eq.1&id=eq.25", SHOWN),
    delete("/tasks?id=eq.5&select=id,projects(name)", SHOWN),
]
PUTS = [
    put("/clients?id=eq.2", {"id": 2, "name": "put"}),
    put("/clients?id=eq.200", {"id": 200, "name": "put"}),
    put("/clients?id=eq.201", {"id": 201, "name": "put"}, SHOWN),
    put("/clients?id=eq.2", {"id": 2, "name": "put"}, SHOWN),
    put("/clients?id=eq.2", {"id": 3, "name": "put"}),
    put("/clients?id=eq.2", {"name": "put"}),
    *(
        put(f"/clients{query}", {"id": 2, "name": "put"})
        for query in (
            "", "?id=gt.2", "?id=eq.2&name=eq.x", "?name=eq.x", "?id=eq.2&limit=1", "?id=eq.2&or=(id.eq.2)",
            "?id=not.eq.2", "?id=eq(any).{2}", "?id=in.(2)", "?id=eq.x",
        )
    ),
    put("/clients?id=eq.2", [{"id": 2, "name": "put"}], SHOWN),
    put("/clients?id=eq.2", [{"id": 2, "name": "put"}, {"id": 4, "name": "x"}], SHOWN),
    put("/clients?id=eq.2", [], SHOWN),
    put("/clients?id=eq.2", {}, SHOWN),
    put("/pairs?a=eq.1&b=eq.2", {"a": 1, "b": 2, "v": "pp"}, SHOWN),
    put("/pairs?a=eq.1", {"a": 1, "b": 2, "v": "pp"}, SHOWN),
    put("/plain?v=eq.p", {"v": "p"}),
    put("/clients?id=eq.2&select=name", {"id": 2, "name": "sel"}, SHOWN),
    put("/clients?id=eq.2&columns=name", {"id": 2, "name": "col"}, SHOWN),
    put("/clients?id=eq.2", {"id": 2, "name": "put"}, HEADERS, "count=exact"),
    put("/clients?id=eq.2", {"id": 2, "name": "h"}, SHOWN, "handling=strict", IGNORED, "missing=default"),
    put("/clients?id=eq.2", {"id": 2, "name": "o"}, SHOWN, Accept=OBJECT),
    put("/projects?id=eq.1&select=id,clients(name)", {"id": 1, "name": "n"}, SHOWN),
    put("/projects?id=eq.1&select=id,clients(name)&clients.id=eq.1", {"id": 1, "name": "n"}, SHOWN),
    put("/counters?id=eq.60", {"id": 60}, SHOWN),
]  # fmt: skip
LEFT = reads(
    *(
        f"/{table}?limit=20"
        for table in ("clients", "counters", "projects", "people", "pairs", "plain", "passports", "notes")
    )
)
CHANGES = [*INSERTS, *FORMS, *UPSERTS, *PREFERRED, *UPDATES, *DELETES, *PUTS, *LEFT]
