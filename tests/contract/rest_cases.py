"""Requests of every kind that we serve, to hold our answers against those of a real server."""

from dataclasses import dataclass
from typing import Any

OBJECT = "application/vnd.pgrst.object+json"
REPRESENTED = "return=representation"
MERGED = f"resolution=merge-duplicates,{REPRESENTED}"
IGNORED = f"resolution=ignore-duplicates,{REPRESENTED}"
UPSERTED = "/payment_jobs?on_conflict=dedup_key&select=job_type,dedup_key"
KNOWN_KEY = {"job_type": "n", "dedup_key": "k1"}
NEW_KEY = {"job_type": "n", "dedup_key": "k9"}
ORDERED = "order=priority.desc,job_type"


@dataclass(frozen=True)
class Case:
    """One request."""

    method: str
    path: str
    body: Any = None
    prefer: str = ""
    role: str = "service_role"
    accept: str = "*/*"


READS = (
    [
        Case("GET", f"/payment_jobs?select={select}&{ORDERED}")
        for select in [
            "job_type",
            "*",
            "kind:job_type,priority",
            "priority::text",
            "p:priority::text,*",
            "payload->x",
            "payload->>x",
            "payload->deep->list->1",
            "payload->deep->>list",
            "deep:payload->deep",
            "nope",
            "job_type,",
            "payload->nope",
            "payload->0",
        ]
    ]
    + [
        Case("GET", f"/payment_jobs?select=job_type,priority&{ORDERED}&{filters}")
        for filters in [
            "priority=eq.5",
            "priority=neq.5",
            "priority=gt.4",
            "priority=gte.5",
            "priority=lt.5",
            "priority=lte.5",
            "job_type=like.*c*",
            "job_type=ilike.*C*",
            "job_type=in.(a,b)",
            'job_type=in.("c, \\"d\\"",b)',
            "priority=in.(5,9)",
            "priority=in.()",
            "dedup_key=is.null",
            "dedup_key=not.is.null",
            "priority=not.eq.5",
            "priority=not.in.(5,9)",
            "dedup_key=is.true",
            "priority=gt.1&priority=lt.9",
            "or=(priority.eq.9,job_type.eq.b)",
            "and=(priority.eq.5,job_type.eq.b)",
            'or=(job_type.eq."c, \\"d\\"",priority.eq.9)',
            "not.or=(priority.eq.9,job_type.eq.b)",
            "or=(and(priority.eq.5,job_type.eq.b),priority.eq.0)",
            "or=(job_type.in.(a,b),priority.eq.9)",
            "or=(priority.not.eq.5,job_type.eq.b)",
            "or=(not.and(priority.eq.5,job_type.eq.b),priority.eq.0)",
            "payload->>x=eq.two",
            "payload->x=eq.1",
            "payload->deep->list->>0=eq.1",
            "priority=eq.abc",
            "nope=eq.1",
            "priority=wibble.1",
            "priority=5",
            "id=eq.x",
            "created_at=gt.2020-01-01",
            "created_at=lt.2020-01-01T00:00:00Z",
            "or=(payload->>x.eq.two,priority.eq.0)",
            "job_type=eq.",
            "job_type=eq.a.b",
            "limit=2",
            "limit=2&offset=1",
            "offset=99",
            "limit=0",
            "limit=-1",
            "limit=x",
        ]
    ]
    + [
        Case("GET", f"/payment_jobs?select=job_type&order={order}")
        for order in [
            "job_type",
            "job_type.desc",
            "dedup_key.nullsfirst,job_type",
            "dedup_key.desc.nullslast,job_type",
            "dedup_key.asc.nullslast,job_type",
            "payload->>x.desc.nullslast,job_type",
            "nope",
        ]
    ]
    + [
        Case("GET", f"/payment_jobs?select=job_type&limit=2&{ORDERED}", prefer="count=exact"),
        Case("GET", f"/payment_jobs?select=job_type&priority=eq.5&{ORDERED}", prefer="count=exact"),
        Case("GET", "/payment_jobs?priority=eq.77", prefer="count=exact"),
        Case("HEAD", "/payment_jobs", prefer="count=exact"),
        Case("GET", "/payment_jobs?select=job_type&job_type=eq.a", accept=OBJECT),
        Case("GET", "/payment_jobs?select=job_type&priority=eq.5", accept=OBJECT),
        Case("GET", "/many_rows?select=id&order=id", prefer="count=exact"),
        Case("GET", "/many_rows?select=id&id=eq.3", role="anon"),
        Case("GET", "/failed_jobs", role="anon"),
        Case("GET", "/failed_jobs", role="authenticated"),
        Case("GET", "/rls_jobs", role="authenticated"),
        Case("GET", "/nothing_like_it"),
        Case("GET", "/v_jobs?select=job_type&order=job_type"),
        Case("GET", "/all_types"),
    ]
)
WRITES = [
    Case("POST", "/payment_jobs?select=job_type,priority", {"job_type": "n", "priority": 3}, REPRESENTED),
    Case("POST", "/payment_jobs?select=job_type", [{"job_type": "n1"}, {"job_type": "n2"}], REPRESENTED),
    Case(
        "POST",
        "/payment_jobs?select=t:job_type,payload->x",
        {"job_type": "n", "payload": {"x": [1]}},
        REPRESENTED,
    ),
    Case("POST", "/payment_jobs", {"job_type": "n"}, "return=minimal"),
    Case("POST", "/payment_jobs", [], "return=minimal"),
    Case(
        "POST",
        "/payment_jobs?columns=job_type&select=job_type,priority",
        {"job_type": "n", "priority": 3},
        REPRESENTED,
    ),
    Case("POST", "/payment_jobs?columns=nope", {"job_type": "n"}),
    Case(
        "POST",
        "/payment_jobs?columns=job_type,priority,payload&select=job_type,priority,payload",
        [{"job_type": "n", "priority": 1}, {"job_type": "m", "payload": {"y": 1}}],
        f"missing=default,{REPRESENTED}",
    ),
    Case("POST", "/payment_jobs", KNOWN_KEY),
    Case("POST", UPSERTED, KNOWN_KEY, MERGED),
    Case("POST", UPSERTED, [KNOWN_KEY, NEW_KEY], MERGED),
    Case("POST", UPSERTED, [KNOWN_KEY, NEW_KEY], IGNORED),
    Case("POST", "/many_rows", {"id": 5, "v": "new"}, MERGED),
    Case("POST", "/many_rows", [{"id": 5, "v": "new"}, {"id": 90005, "v": "new"}], f"{IGNORED},count=exact"),
    Case("POST", "/many_rows", {"id": 90001}, "return=headers-only"),
    Case("POST", "/many_rows", [{"id": 90002}, {"id": 90003}], "return=headers-only"),
    Case("POST", "/nopk", {"a": 1}, "return=headers-only"),
    Case("POST", "/rls_jobs", {"id": 1}, role="anon"),
    Case("POST", "/rls_jobs", {"id": 1}, role="authenticated"),
    Case("POST", "/payment_jobs", [{"job_type": "x"}, 5]),
    Case("PATCH", "/payment_jobs?job_type=eq.b&select=job_type,priority", {"priority": 6}, REPRESENTED),
    Case("PATCH", "/payment_jobs?priority=eq.5", {"status": "s"}, "return=minimal,count=exact"),
    Case("PATCH", "/payment_jobs?priority=eq.77", {"status": "s"}, "count=exact"),
    Case("PATCH", "/payment_jobs?job_type=eq.a", {"nope": 1}),
    Case("PATCH", "/payment_jobs?job_type=eq.a", {}, REPRESENTED),
    Case("PATCH", "/payment_jobs?job_type=eq.a", {}),
    Case("PATCH", "/payment_jobs?priority=eq.5", {"status": "s"}, REPRESENTED, accept=OBJECT),
    Case("PATCH", "/payment_jobs?job_type=eq.a&select=status", {"status": "s"}, REPRESENTED, accept=OBJECT),
    Case("DELETE", "/payment_jobs?job_type=eq.b&select=job_type", None, REPRESENTED),
    Case("DELETE", "/payment_jobs?priority=eq.5", None, "return=minimal,count=exact"),
    Case("DELETE", "/payment_jobs?priority=eq.77"),
]
CALLS = [
    Case("POST", "/rpc/add", {"a": 1, "b": None}),
    Case("POST", "/rpc/add", {"b": 1, "a": "2"}),
    Case("GET", "/rpc/add?a=1&b=2"),
    Case("GET", "/rpc/ret_table?n=3&x=gt.1"),
    Case("POST", "/rpc/ret_table?order=x.desc&limit=1&offset=1", {"n": 3}),
    Case("POST", "/rpc/ret_table?x=gte.2", {"n": 3}, "count=exact"),
    Case("POST", "/rpc/ret_table", {"n": 1}, accept=OBJECT),
    Case("POST", "/rpc/many", {"n": 0}),
    Case("POST", "/rpc/claim_jobs?select=job_type,status&order=job_type", {"n": 2}),
    Case("GET", "/rpc/claim_jobs?n=2"),
    Case("POST", "/rpc/single_json", {}),
    Case("POST", "/rpc/with_default", {"a": 2, "b": 3}),
    Case("POST", "/rpc/overloaded", {"a": 2}),
    Case("POST", "/rpc/ret_void", {}),
    Case("POST", "/rpc/ret_one?select=job_type,payload", {}),
    Case("POST", "/rpc/said", {}),
    *(Case("POST", "/rpc/limits", {}, role=role) for role in ("anon", "authenticated", "service_role")),
    *(
        Case("POST", f"/rpc/raise_{code}", {})
        for code in ("p0001", "23505", "42501", "57014", "pt599", "zz999")
    ),
]
