"""Questions about reading tables, by topic, that a real PostgREST and ours are asked over the same rows."""

from tests.contract.rest_questions import Question, reads
from tests.contract.rest_questions_embed import EMBEDS
from tests.contract.rest_questions_filter import FILTERS, JSON_FILTERS

EXACT = {"Prefer": "count=exact"}
COLUMNS = r"""
*
id
id,first_name
id,*
a:id,b:id
"id"
id::text
id::int8,n:id::text
height::int
id::nope
id::int[]
tags::text
seen::date
seen::timestamp with time zone
"first_name":id
a-b:id
"a b":id
tags->0
tags->>0
t:tags->0
tags->0->x
span
span->x
mood::text
raw->j
raw->>j
raw->>j::int
x:raw->>j::int
raw->"j"
first_name->x

,
id,
,id
id first_name
id,,first_name
*,id:
id:
:id
id::
id->
id->>
(id)
id(
id)
count
"count"
id!x
nope
id.sum()
id.median()
count()
x:count()::int
full_name
full_name::text
*,full_name
%C3%BC
id,nope(*)
"""
JSON_COLUMNS = r"""
data->a
data->a->b
data->a->b->0
data->a->b->2->c
data->>a
data->k.e
data->"k.e"
d:data->a
data->a->b->2->>c
data->0
data->a::text
data->>n::int
data->n::int
data->a->b->-1
*,data->n
"""
ORDERS = r"""
id
id.desc
id.asc
first_name.desc,id
mood.nullsfirst,id
mood.desc.nullslast,id
mood.asc.nullsfirst,id.desc
mood.desc.nullsfirst,id
tags->0.desc.nullslast,id
raw->>j.desc.nullslast
nope
id.up
id.desc.nulls
id.nullsfirst.desc

,
id,
id.desc,
 id.desc , first_name
"id".desc
full_name
vc,id
a(id)
id.
height::int
"""
COUNTED = r"""
/numbers?order=n
/numbers?limit=5&order=n
/numbers?limit=5&offset=28&order=n
/numbers?offset=30&order=n
/numbers?offset=31&order=n
/numbers?offset=99
/numbers?n=gt.100
/numbers?n=lt.6&order=n
/numbers?limit=0
/numbers?limit=30&order=n
/projects?select=id,clients!inner(id)&order=id
/clients?select=id,projects()&projects=is.null
"""
SPANS = r"""
/numbers?order=n&limit=-1
/numbers?order=n&limit=x
/numbers?order=n&offset=x
/numbers?order=n&offset=-1
/numbers?order=n&limit=5&offset=-3
/numbers?order=n&limit=x&offset=2
/numbers?order=n&limit=0&offset=5
/numbers?order=n&limit=
/numbers?order=n&limit= 5
/numbers?order=n&limit=5.5
/numbers?order=n&limit=99999999999999999999
/numbers?order=n&offset=99999999999999999999
/numbers?order=n&limit=1&limit=2
/projects?select=id,tasks(id)&order=id&tasks.limit=x
/projects?select=id,tasks(id)&order=id&tasks.offset=1
/projects?select=id,tasks(id)&order=id&tasks.offset=1&tasks.limit=1&tasks.order=id
/projects?select=id,tasks(id)&order=id&tasks.limit=0
"""
RANGES = "0-4 5- 5-4 0-0 40-50 a-b 0-100 bytes=0-4 -5 29-40 30-40 31-40".split()
FORMS = r"""
application/json
*/*
text/csv
application/vnd.pgrst.object
application/vnd.pgrst.object+json
application/vnd.pgrst.object+json;nulls=stripped
application/vnd.pgrst.array
application/vnd.pgrst.array+json;nulls=stripped
application/vnd.pgrst.array;nulls=stripped
text/plain
application/octet-stream
text/html
application/vnd.pgrst.plan+json
application/vnd.pgrst.plan
text/html,application/json
application/json;q=0.1,text/csv;q=0.9
application/openapi+json
application/*
application/vnd.pgrst.object+json; nulls=stripped
application/json; charset=utf-8
foo
text/xml
application/vnd.pgrst.plan+json; for="application/json"; options=analyze|verbose
"""
FORMED = r"""
/projects?select=id,due&order=id&limit=2
/projects?select=id,due,client_id&id=eq.2
/projects?id=eq.77
"""
PREFERENCES = r"""
handling=strict
handling=lenient
handling=strict,foo=bar
foo=bar
handling=strict, foo, bar=2
handling=lenient,foo
timezone=Europe/Berlin
timezone=Nope/Zone
handling=strict,timezone=Nope/Zone
handling=strict,timezone=Europe/Berlin
tx=rollback
tx=commit,handling=strict
count=exact,count=planned
count=bogus,handling=strict
return=representation
missing=default
resolution=merge-duplicates
max-affected=5
Handling=strict,foo
handling = strict
"""
PROFILED = r"""
/things?select=id&order=id
/clients?select=id&order=id
"""
CALLS = r"""
/rpc/all_projects?select=id,clients(name)&order=id
/rpc/all_projects?select=id&order=clients(name)
/rpc/all_projects?select=name,clients(name)&order=id.desc&limit=2
/rpc/all_projects?select=name,clients(name)&order=name.desc&limit=2
/rpc/all_projects?select=id,nope(id)
/rpc/all_projects?id=eq.2
/rpc/all_projects?or=(id.eq.1,id.eq.2)&select=id
/rpc/all_projects?clients=is.null&select=id,clients()
/rpc/all_projects?limit=0
/rpc/all_projects?offset=99
/rpc/all_projects?select=count()
/rpc/all_projects?select=id,latest_task(id)&order=id
/rpc/all_projects?select=id,...clients(name)&order=id
/rpc/all_projects?select=id,clients!inner(name)&clients.name=eq.Babbage
/rpc/all_projects?select=id,tasks(id)&order=id&id=lt.3&tasks.order=id.desc
/rpc/all_projects?select=name&clients.name=eq.1
"""


def _lines(block: str) -> list[str]:
    return block.strip("\n").split("\n")


TOPICS = {
    "embeds": [
        *reads(*_lines(EMBEDS)),
        *reads(*(path for path in _lines(EMBEDS) if "inner" in path or "null" in path), headers=EXACT),
        *reads(
            *(
                "/projects?select=id,notes(id)&order=id",
                "/projects?select=id,secrets(id)&order=id",
                "/notes",
                "/secrets",
            ),
            role="anon",
        ),
        *reads("/projects?select=id,notes(id)&order=id", "/secrets", role="authenticated"),
    ],
    "filters": [
        *reads(*(f"/people?select=id,first_name&order=id&{each}" for each in _lines(FILTERS))),
        *reads(*(f"/tasks?select=id&order=id&{each}" for each in _lines(JSON_FILTERS))),
    ],
    "columns": [
        *reads(*(f"/people?order=id&limit=2&select={each}" for each in _lines(COLUMNS))),
        *reads(*(f"/tasks?order=id&select={each}" for each in _lines(JSON_COLUMNS))),
        *reads("/people?select=id&select=first_name&order=id"),
    ],
    "orders": reads(
        *(f"/people?select=id&order={each}" for each in _lines(ORDERS)), "/people?order=id.desc&order=id"
    ),
    "counts": [
        question
        for path in _lines(COUNTED)
        for how in ("", "count=exact", "count=planned", "count=estimated")
        for question in (Question("GET", path, {"Prefer": how}), Question("HEAD", path, {"Prefer": how}))
    ],
    "ranges": [
        *reads(*_lines(SPANS)),
        *(
            Question("GET", path, {"Range": each, "Range-Unit": "items", **more})
            for each in RANGES
            for path, more in (
                ("/numbers?order=n", {}),
                ("/numbers?order=n", EXACT),
                ("/numbers?order=n&limit=3&offset=2", {}),
            )
        ),
        Question("HEAD", "/numbers?order=n", {"Range": "0-4"}),
        Question("GET", "/numbers?order=n&limit=0", {"Range": "5-4"}),
    ],
    "forms": [
        *(Question("GET", path, {"Accept": form}) for form in _lines(FORMS) for path in _lines(FORMED)),
        *reads(
            "/people?order=id", "/projects?select=id,clients(name)&order=id", headers={"Accept": "text/csv"}
        ),
        Question("HEAD", "/people?order=id", {"Accept": "text/csv"}),
        *reads("/projects?id=wat", headers={"Accept": "text/html"}),
    ],
    "schemas": [
        *(
            Question("GET", path, {"Accept-Profile": schema})
            for schema in ("public", "other", "hidden", "nope", "")
            for path in _lines(PROFILED)
        ),
        *reads("/things?select=id,groups(name)&order=id", headers={"Accept-Profile": "other"}),
        Question("GET", "/things?select=id,mood&mood=eq.ok", {"Accept-Profile": "other"}),
        Question("GET", "/things?select=id,projects(id)", {"Accept-Profile": "other"}),
        Question("GET", "/groups?select=id,things(id)", {"Accept-Profile": "other", **EXACT}, role="anon"),
    ],
    "functions": [
        *(
            Question(method, path, headers, body)
            for path in _lines(CALLS)
            for method, body in (("GET", None), ("POST", "{}"))
            for headers in ({}, EXACT)
        ),
        *(
            Question("POST", "/rpc/all_projects?order=id", {"Accept": form}, {})
            for form in ("text/csv", "application/vnd.pgrst.array+json;nulls=stripped")
        ),
        Question("POST", "/rpc/all_projects?select=id,clients(name)&order=id", {"Accept": "text/csv"}, {}),
        Question("POST", "/rpc/all_projects?select=id", {"Prefer": "timezone=Europe/Berlin"}, {}),
        Question("POST", "/rpc/all_projects?select=id", {"Prefer": "timezone=Nope,handling=strict"}, {}),
        Question("POST", "/rpc/shout", {"Content-Profile": "other"}, {"a": "x"}),
        Question("GET", "/rpc/shout?a=x", {"Accept-Profile": "other"}),
    ],
    "preferences": [
        Question("GET", "/people?select=id,seen&order=id", {"Prefer": each}) for each in _lines(PREFERENCES)
    ],
}
