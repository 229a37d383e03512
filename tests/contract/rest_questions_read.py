"""Questions about reading tables, by topic, that a real PostgREST and ours are asked over the same rows."""

from tests.contract.rest_questions import Question, reads

EXACT = {"Prefer": "count=exact"}
EMBEDS = r"""
/projects?select=id,clients(name)&order=id
/projects?select=id,c:clients(name,x:id)&order=id
/projects?select=*,clients(*)&order=id
/clients?select=id,projects(id,name)&order=id
/clients?select=id,projects(id,tasks(title))&order=id
/clients?select=id,projects(id,tasks(title,assignments(role)))&order=id
/people?select=id,passports(number)&order=id
/passports?select=id,people(id)&order=id
/people?select=id,tasks(id,title)&order=id
/tasks?select=id,people(id,first_name)&order=id
/tasks?select=id,people!assignments(id)&order=id
/people?select=id,messages(id)
/messages?select=id,people(id)
/messages?select=id,people!sender_id(id)&order=id
/messages?select=id,people!messages_sender_id_fkey(id)&order=id
/messages?select=id,from:people!sender_id(first_name),to:people!recipient_id(first_name)&order=id
/people?select=id,messages!sender_id(id)&order=id
/people?select=id,sent:messages!messages_sender_id_fkey(id)&order=id
/messages?select=id,sender_id(first_name)&order=id
/messages?select=id,messages_sender_id_fkey(first_name)&order=id
/employees?select=id,employees(id)&order=id
/employees?select=id,boss_id(id,name)&order=id
/employees?select=id,boss:boss_id(id,name),staff:employees!boss_id(id)&order=id
/orders?select=region,lines(id)&order=region
/lines?select=id,orders(note)&order=id
/lines?select=id,lines_order(note)&order=id
/projects?select=id,nothing(id)
/projects?select=id,client(id)
/projects?select=id,clients!wrong(id)
/projects?select=id,clients!inner(name)&order=id
/projects?select=id,clients!left(name)&order=id
/projects?select=id,clients!inner(name)&clients.name=eq.Babbage&order=id
/projects?select=id,clients(name)&clients.name=eq.Babbage&order=id
/clients?select=id,projects!inner(id)&projects.name=like.*e*&order=id
/clients?select=id,projects!inner(id,tasks!inner(id))&projects.tasks.done=is.true&order=id
/clients?select=id,projects(id)&projects.order=id.desc&order=id
/clients?select=id,projects(id)&projects.limit=1&projects.order=id&order=id
/clients?select=id,projects(id)&projects.limit=1&projects.offset=1&projects.order=id&order=id
/clients?select=id,p:projects(id)&p.order=name.desc&p.id=gt.1&order=id
/clients?select=id,projects(id)&projects.or=(id.eq.1,name.eq.Notes)&order=id
/clients?select=id,projects(id)&projects.not.and=(id.eq.1,name.eq.Engine)&order=id
/projects?select=id&clients.name=eq.x
/projects?select=id&clients.order=name
/projects?select=id&clients.limit=1
/projects?select=id&clients.or=(id.eq.1)
/projects?select=id,clients(name)&clients=is.null&order=id
/projects?select=id,clients(name)&clients=not.is.null&order=id
/clients?select=id,projects(id)&projects=is.null&order=id
/clients?select=id,projects()&projects=not.is.null&order=id
/clients?select=id,projects()&order=id
/clients?select=id,projects(id,tasks())&order=id
/projects?select=id,clients(name)&order=clients(name).desc,id
/projects?select=id,clients(name)&order=clients(name).desc.nullslast,id
/projects?select=id,c:clients(name)&order=c(name),id
/clients?select=id,projects(id)&order=projects(id)
/projects?select=id&order=clients(name)
/projects?select=id,...clients(name)&order=id
/projects?select=id,...clients(client_name:name,cid:id)&order=id
/tasks?select=id,...projects(name,...clients(cname:name))&order=id
/tasks?select=id,...projects(pname:name,clients(name))&order=id
/projects?select=id,...clients(*)&order=id
/projects?select=id,...clients(name,p:projects())&order=id
/projects?select=id,...clients(name,p:projects(id))&order=id
/measures?select=value,projects(measures())&projects.measures.at=eq.1
/measures?value=gt.100&at=eq.never
/projects?select=id,v_clients(name)&order=id
/v_projects?select=id,clients(name)&order=id
/v_projects?select=id,v_clients(name)&order=id
/v_clients?select=client_key,projects(id),v_projects(id)&order=client_key
/v_of_view?select=project,clients(name)&order=project
/projects?select=id,v_plans(words)&order=id
/v_plans?select=id,projects(name)
/projects?select=id,plans(words)
/projects?select=id,latest_task(id,title)&order=id
/projects?select=id,open_tasks(id)&order=id
/projects?select=id,x:latest_task(id)&order=latest_task(id)&order=id
/projects?select=id,latest_task!inner(id)&order=id
/people?select=id,full_name&order=id
/people?select=id,full:full_name&order=full_name.desc&full_name=like.*a*
/projects?select=id,measures(value)&order=id
/measures?select=value,projects(name)&order=value
/projects?select=id,notes(id)&order=id
/projects?select=id,secrets(id)&order=id
/projects?select=count()
/projects?select=id.sum()
/projects?select=id,tasks(id.count())
/projects?select=id,tasks(count())
/projects?select=total:budget.sum(),client_id
/%22Odd%20%5C%22Table%5C%22%22?select=*
/Odd%20%22Table%22?select=*&order=%22the%20id%22
/Odd%20%22Table%22?select=%22the%20id%22,%22c.d%22,%C3%BC,%22x,y%22,%22(p)%22&order=the id
/Odd%20%22Table%22?select=the id,clients(name)&order=the%20id.desc
/Odd%20%22Table%22?%22c.d%22=eq.dot
/Odd%20%22Table%22?c.d=eq.dot
/Odd%20%22Table%22?%C3%BC=eq.%C3%A4&select=%C3%BC
/clients?select=id,"odd name","a.b"&order=id
/clients?select=id,Odd%20%22Table%22(*)&order=id
/clients?select=id,"Odd%20\"Table\""("ü")&order=id
/clients?select=id,odds:"Odd%20\"Table\""("the id")&odds.order="the id"&"odds"."c.d"=is.null&order=id
/projects?select=id,tasks(id),notes(id),clients(id)&tasks.id=gt.1&notes.id=eq.1&order=id
/projects?select=tasks(id)&order=id
/projects?select=id,tasks(id)&limit=2&tasks.limit=0&order=id
/projects?select=id,clients(id,projects(id,clients(name)))&order=id
/projects?select=id,clients(name),clients(id)
/projects?select=id,a:clients(name),b:clients(id)&order=id
/tasks?select=id,data->a,projects(name)&projects.name=eq.Engine&order=id
/tasks?select=id,projects!inner(clients!inner(name))&projects.clients.name=eq.Babbage&order=id
"""
FILTERS = r"""
id=eq.1
id=neq.1
id=gt.1
id=gte.2
id=lt.2
id=lte.2
id=not.eq.1
id=eq.x
id=in.(1,2)
id=in.()
id=in.(1,x)
id=in.(1
id=in.1
id=not.in.(1,2)
first_name=in.(Ada,Karel)
first_name=in.("Ada","Kar\\"el")
tags=cs.{math}
tags=cs.{math,poetry}
tags=cd.{math,poetry,x}
tags=ov.{poetry,x}
tags=not.cs.{math}
tags=eq.{math,"a,b"}
tags=cs.math
span=cs.3
span=cs.[2,3)
span=cd.[0,20)
span=ov.[4,6)
span=sl.[6,20)
span=sr.[0,1)
span=nxr.[0,5)
span=nxl.[3,20)
span=adj.[5,10)
span=eq.[1,5)
body=fts.engine
body=fts.engine%26card
body=plfts.the engine
body=phfts.difference engine
body=wfts.engine -card
body=fts(english).engines
body=not.fts.card
body=fts(nope).engine
first_name=like.A*
first_name=like.*a*
first_name=ilike.*A*
first_name=ilike(any).{A*,K*}
first_name=like(all).{A*,*a}
first_name=match.^A
first_name=imatch.^a
first_name=match(any).{^A,^K}
first_name=not.like(any).{A*,K*}
first_name=match.(
id=like.1*
id=eq(any).{1,3}
id=eq(all).{1}
id=neq(any).{1}
id=gt(all).{0,1}
id=eq(some).{1}
id=eq().1
mood=is.null
mood=is.NULL
mood=not.is.null
mood=is.true
mood=eq.happy
mood=gt.sad
mood=in.(ok,happy)
mood=eq.wrong
mood=isdistinct.ok
mood=not.isdistinct.ok
id=isdistinct.1
height=eq.1.6
height=gt.1.7
height=gt.1e0
seen=gt.2026-02-28
seen=eq.2026-02-28T11:14:15.123456Z
seen=eq.2026-02-28 11:14:15.123456+00
uid=eq.00000000-0000-0000-0000-000000000001
uid=eq.x
uid=in.(00000000-0000-0000-0000-000000000001)
uid=like.0*
code=eq.abc
code=eq.toolongvalue
code=like.a*
vc=eq.abc
vc=in.(abc,b)
vc=like.a*
nums=cs.{1}
nums=eq.{3}
raw=eq.1
raw->j=eq.1
raw->>j=eq.1
raw->>j=in.(1,2)
bio=fts.weave
nope=eq.1
full_name=eq.Ada Lovelace
full_name=in.("Ada Lovelace",x)
or=(id.eq.1,first_name.eq.Karel)
or=(id.eq.1,and(first_name.eq.Karel,id.eq.3))
and=(id.gt.0,or(id.eq.1,id.eq.2))
not.or=(id.eq.1,id.eq.2)
not.and=(id.eq.1,first_name.eq.Ada)
or=(not.and(id.eq.1),id.eq.2)
or=(id.not.eq.1,id.eq.1)
or=(id.in.(1,2),tags.cs.{math})
or=(tags.cs.{math,"a,b"},id.eq.3)
or=(span.cs.[1\\,2\\),id.eq.3)
or=(span.cs."[1,2)",id.eq.3)
or=(first_name.eq."Ada",id.eq.3)
or=(first_name.eq."Ad\\"a",id.eq.3)
or=(first_name.in.("Ada","x,y"),id.eq.3)
or=(body.fts(english).engine,id.eq.3)
or=(first_name.like(any).{A*,K*},id.eq.2)
or=(mood.is.null,id.eq.1)
or=( id.eq.1 , id.eq.2 )
or=()
or=id.eq.1
or=(id.eq.1
or=(id.eq.1,)
or=(id.xx.1)
or=(id)
and=(id.eq.1)&or=(id.eq.1,id.eq.2)
id=eq.1&first_name=eq.Ada
id=eq.1&id=eq.2
id=1
id=
id
id=foo.1
id=eq
id=eq.
first_name=eq.
first_name=eq.a.b
first_name=not.not.eq.1
first_name=eq.%00
id=not.1
tags->0=eq.x
tags->>0=eq.math
id->a=eq.1
first_name->>x=eq.1
.id=eq.1
id.=eq.1
id-x=eq.1
"id"=eq.1
a.b.c=eq.1
first_name=EQ.Ada
foo;id=eq.1
id=eq.1;limit=1
limit=1&limit=2
"""
JSON_FILTERS = r"""
data->n=eq.5
data->>n=eq.5
data->n=gt.3
data->a->b->0=eq.1
data->a->b->2->>c=eq.x
data->a->b->-1->>c=eq.x
data->>0=eq.1
data->0=eq.1
data->>k.e=eq.dot
data->>"k.e"=eq.dot
data->a=is.null
data->>a=is.null
data=cs.{"n":5}
data=cs.[1]
data=cd.{"n":5}
data=eq.{"a":1}
data=eq.notjson
data->>a.b=eq.1
data->a->>=eq.1
or=(data->n.eq.5,data->>n.eq.3)
or=(data->>n.in.(5,3))
title=eq.test, "quote"
title=in.("test, \\"quote\\"",gears)
or=(title.eq."test, \\"quote\\"",id.eq.1)
done=is.true
done=is.false
done=is.unknown
done=not.is.true
done=eq.true
done=eq.maybe
due=eq.1
"""
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
