"""Generated requests: tables, filters, logic, orders, ranges, bodies, preferences, calls and profiles, broken ones too.

What versions 12 and 14 are known to answer differently is not asked; rest_questions.py has it, case by case.
"""

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from tests.contract.rest_questions import Question

Texts = SearchStrategy[str]

COLUMNS = ("id", "name", "colour", "amount", "seen_at", "tags", "data", "is_good")
PATHS = (*COLUMNS, "data->x", "data->>x", "data->y->z->0", "data->>y", "nope")
COMPARISONS = ("eq", "neq", "gt", "gte", "lt", "lte")
VALUES = (
    "1", "2", "-4", "20", "1.5", "one", "two", 'three, "3"', "red", "purple", "true", "false", "2026-01-01",
    "{a,b}", "{}", "", "null", "x y", "100%", "☃", '{"x": 1}', "a.b", "(1)", "*o*", "99999999999",
)  # fmt: skip
TABLES = ("things", "things", "things", "things", "good_things")


def _one_of(*words: str) -> Texts:
    return st.sampled_from(words)


def _often(usual: SearchStrategy[Any], rare: SearchStrategy[Any]) -> SearchStrategy[Any]:
    """The second once in thirty times: a request has many parts, and one that is broken spoils it."""
    return st.integers(0, 29).flatmap(lambda n: rare if n == 0 else usual)


def _fixed(**values: SearchStrategy[Any]) -> SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(values)


def _joined(mark: str, parts: Texts, *, least: int = 1, most: int = 3) -> Texts:
    return st.lists(parts, min_size=least, max_size=most).map(mark.join)


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


values = _one_of(*VALUES)
junk = st.text(st.sampled_from("abc.,:()*\"'->!&= "), max_size=8)
# What fits a column goes with it most of the time, so that most requests are answered and not refused.
FITTING = {
    "id": ("1", "2", "3", "7"), "name": ("one", "two", 'three, "3"', "per%cent*", "x y", "☃", "a.b", "(1)"),
    "colour": ("red", "green", "blue"), "amount": ("1.5", "20", "-4", "0"), "is_good": ("true", "false"),
    "seen_at": ("2026-01-01", "2026-02-03T04:05:06Z"), "tags": ("{a,b}", "{}", '{b,"c,d"}'),
    "data": ('{"x": "two"}', "1"), "data->x": ("1", '"two"'), "data->>x": ("1", "two"), "data->>y": ("1", "x"),
    "data->y->z->0": ("1", "2"), "nope": ("1",),
}  # fmt: skip
PATTERNS = ("*o*", "one", "%t%", "T*", "*%*", "")


def _fitting(path: str) -> Texts:
    return st.sampled_from(FITTING[path])


def _listed(path: str) -> Texts:
    return _joined(",", _fitting(path).map(_quoted), least=0)


def _operation(path: str) -> Texts:
    """Operator and value for a column."""
    usual: list[Texts] = [
        st.tuples(_one_of(*COMPARISONS), _fitting(path)).map(".".join),
        _listed(path).map(lambda items: f"in.({items})"),
        _one_of("is.null", "not.is.null"),
        _fitting(path).map("isdistinct.".__add__),
        _listed(path).map(lambda items: f"eq(any).{{{items}}}"),
    ]
    if path in ("name", "data->>x", "data->>y"):
        usual.append(st.tuples(_one_of("like", "ilike"), _one_of(*PATTERNS)).map(".".join))
        usual.append(st.tuples(_one_of("match", "imatch"), _one_of("^o", "O", "[a-t]")).map(".".join))
        usual.append(st.just("like(all).{*o*,*t*}"))
    if path == "is_good":
        usual.append(_one_of("is.true", "is.false", "is.unknown", "is.TRUE"))
    if path == "tags":
        usual.append(st.tuples(_one_of("cs", "cd", "ov"), _one_of("{a}", "{a,b}")).map(".".join))
    if path == "data":
        usual.append(st.tuples(_one_of("cs", "cd"), _one_of('{"x":1}', "[1]")).map(".".join))
    negated = st.tuples(_one_of("", "", "not."), st.one_of(usual)).map("".join)
    rare = st.tuples(_one_of(*COMPARISONS, "like", "is", "in", "cs", "wibble"), values).map(".".join)
    return _often(negated, st.one_of(rare, junk, values))


def _conditions(deeper: Texts) -> Texts:
    word = _one_of("and", "or", "not.and", "not.or")
    return st.tuples(word, _joined(",", deeper)).map(lambda pair: f"{pair[0]}({pair[1]})")


def _leaf(path: str) -> Texts:
    value = _fitting(path).map(_quoted)
    return st.one_of(
        st.tuples(_one_of(*COMPARISONS), value).map(lambda pair: f"{path}.{pair[0]}.{pair[1]}"),
        _listed(path).map(lambda items: f"{path}.in.({items})"),
        st.just(f"{path}.not.is.null"),
    )


paths = _often(st.sampled_from(PATHS[:-1]), st.just("nope"))
trees = st.recursive(paths.flatmap(_leaf), _conditions, max_leaves=4)
logic = st.tuples(_one_of("and", "or", "not.or", "not.and"), _joined(",", trees)).map(
    lambda t: (t[0], f"({t[1]})")
)

fields = st.one_of(
    st.just("*"), paths, st.tuples(_one_of("a:", "b b:", ""), paths, _one_of("", "::text")).map("".join)
)
columns = _joined(",", _one_of("*", "id", "body", "rank", "r:rank"), least=0, most=2)
embeds = _often(
    st.tuples(_one_of("notes", "n:notes", "notes!inner", "notes!thing_id"), columns),
    st.tuples(_one_of("things", "t:things!left", "nothing"), _one_of("*", "name")),
).map(lambda pair: f"{pair[0]}({pair[1]})")
# Not empty: a call would then also show what is inside of the real server's statement.
selects = _often(_joined(",", st.one_of(fields, fields, fields, embeds)), junk.map("name".__add__))
ways = st.tuples(paths, _one_of("", ".asc", ".desc"), _one_of("", ".nullsfirst", ".nullslast")).map("".join)
orders = _often(_joined(",", ways, most=2), junk)
numbers = _often(_one_of("0", "1", "2", "50"), _one_of("-1", "x", ""))

Pairs = SearchStrategy[list[tuple[str, str]]]
by_column = _often(
    paths.flatmap(lambda path: st.tuples(st.just(path), _operation(path))),
    st.tuples(_one_of("notes.rank", "nothing.id"), _one_of("eq.1", "is.null")),
)
plain_conditions: Pairs = st.lists(by_column, max_size=2)
conditions: Pairs = st.lists(st.one_of(by_column, by_column, logic), max_size=2)
shaped: Pairs = st.lists(
    st.one_of(
        st.tuples(st.just("select"), selects),
        st.tuples(st.just("order"), orders),
        st.tuples(_one_of("limit", "offset"), numbers),
    ),
    max_size=3,
    unique_by=lambda pair: pair[0],
)

counted = _one_of("count=exact", "count=exact", "count=planned", "count=estimated")
read_preferences = st.lists(
    _often(st.one_of(counted, _one_of("handling=strict", "handling=lenient")), st.just("wibble")), max_size=2
)
write_preferences = st.lists(
    st.one_of(
        _one_of("return=representation", "return=representation", "return=minimal", "return=headers-only"),
        _one_of(
            "resolution=merge-duplicates", "resolution=ignore-duplicates", "missing=default", "count=exact"
        ),
        _often(_one_of("handling=lenient", "tx=rollback"), _one_of("handling=strict", "wibble")),
    ),
    max_size=3,
)
accepts = _often(
    _one_of("*/*", "application/json"),
    _one_of(
        "application/vnd.pgrst.object+json", "text/csv", "application/vnd.pgrst.object", "text/plain", "x/y"
    ),
)
profiles = _often(st.just(""), _one_of("public", "other", "nope"))
roles = _often(st.just("service_role"), st.just("anon"))
ranges = _often(st.just(""), _one_of("0-1", "1-", "2-9", "9-1", "x"))

scalars = st.sampled_from([None, True, 1, 2, 7, -3, 2.5, "one", "new", "red", "2026-01-01", "x"])
WRITTEN = {
    "name": ("one", "new", "☃"), "colour": ("red", None), "amount": (1, 2.5, "3", None),
    "seen_at": ("2026-01-01", None), "tags": (["a"], "{b}", None), "data": ({"x": [1]}, "text", None),
    "is_good": (True, "false", None),
}  # fmt: skip
pairs_written = st.sampled_from(list(WRITTEN)).flatmap(
    lambda n: st.tuples(st.just(n), st.sampled_from(WRITTEN[n]))
)
written = _often(
    st.lists(pairs_written, max_size=3).map(dict),
    st.dictionaries(_one_of(*COLUMNS, "nope"), scalars, max_size=3),
)
things = st.tuples(st.sampled_from([1, 2, 7, 8, 9]), written).map(lambda pair: {"id": pair[0], **pair[1]})
bodies = _often(
    st.one_of(things, things, written, st.lists(things, max_size=2)).map(json.dumps),
    _one_of("", "{", "[1]", "5", "null", "[[]]", '{"id": 9} x', '{"id": NaN}'),
)

calls = st.one_of(
    st.tuples(
        st.just("add"), _often(st.just({"a": 1}), st.dictionaries(_one_of("a", "b"), scalars, max_size=2))
    ),
    st.tuples(st.just("add"), _fixed(a=st.integers(-5, 5), b=st.integers(-5, 5))),
    st.tuples(st.just("things_of"), _fixed(colour=_often(_one_of("red", "green"), st.just("purple")))),
    st.tuples(st.just("pairs"), _fixed(n=st.integers(0, 4))),
    st.tuples(st.just("echo"), written),
    st.tuples(st.just("words"), _fixed(w=st.lists(_one_of("a", "b,c"), max_size=2))),
    st.tuples(st.just("nothing"), st.just({})),
    st.tuples(st.just("paint"), _fixed(thing=st.integers(1, 5), colour=_often(_one_of("red", "blue"), st.just("x")))),
    _often(st.tuples(st.just("pairs"), st.just({"n": 2})), st.tuples(_one_of("nope", "pair"), written)),
)  # fmt: skip


def _url(path: str, pairs: Sequence[tuple[str, str]]) -> str:
    query = "&".join(f"{quote(name, safe='.->')}={quote(value, safe='.,()*')}" for name, value in pairs)
    return f"{path}?{query}" if query else path


def _question(
    method: str, path: str, pairs: Sequence[tuple[str, str]], body: str | None, role: str, **headers: str
) -> Question:
    given = {name.replace("_", "-"): value for name, value in headers.items() if value}
    return Question(method, _url(path, pairs), given, body, role)


@st.composite
def reads(draw: st.DrawFn) -> Question:
    """A GET or HEAD of a table or view."""
    return _question(
        draw(_one_of("GET", "GET", "GET", "HEAD")),
        f"/{draw(_often(_one_of(*TABLES), st.just('nothing')))}",
        [*draw(conditions), *draw(shaped)],
        None,
        draw(roles),
        Prefer=",".join(draw(read_preferences)),
        Accept=draw(accepts),
        Accept_Profile=draw(profiles),
        Range=draw(ranges),
    )


@st.composite
def writes(draw: st.DrawFn) -> Question:
    """A change of a table."""
    method = draw(_one_of("POST", "POST", "PATCH", "PATCH", "DELETE"))
    select = [("select", draw(_joined(",", fields)))] if draw(st.booleans()) else []
    # No logic: version 12 applies it to the returned rows too, newer ones to those that are changed only.
    pairs = select if method == "POST" else [*draw(plain_conditions), *select]
    if method == "POST" and draw(st.integers(0, 3)) == 0:
        pairs = [*pairs, ("on_conflict", draw(_often(_one_of("id", "name"), st.just("nope"))))]
    if method != "DELETE" and draw(st.integers(0, 5)) == 0:
        pairs = [*pairs, ("columns", draw(_joined(",", _one_of("id", "name", "amount"))))]
    return _question(
        method,
        f"/{draw(_often(st.just('things'), _one_of('notes', 'nothing')))}",
        pairs,
        None if method == "DELETE" else draw(bodies),
        draw(roles),
        Prefer=",".join(draw(write_preferences)),
        Accept=draw(accepts),
        Content_Profile=draw(profiles),
    )


@st.composite
def called(draw: st.DrawFn) -> Question:
    """A call of a function, by POST or by GET."""
    name, arguments = draw(calls)
    fits = {
        "things_of": shaped,
        "pairs": st.lists(st.tuples(_one_of("x"), _one_of("gt.1", "in.(1,3)")), max_size=1),
    }
    pairs = draw(_often(fits.get(name, st.just([])), shaped))
    headers = {"Prefer": ",".join(draw(read_preferences)), "Accept": draw(accepts)}
    if draw(st.booleans()):
        body = draw(_often(st.just(json.dumps(arguments)), bodies))
        return _question(
            "POST", f"/rpc/{name}", pairs, body, draw(roles), Content_Profile=draw(profiles), **headers
        )
    pairs = [
        *((key, value if isinstance(value, str) else json.dumps(value)) for key, value in arguments.items()),
        *pairs,
    ]
    return _question(
        "GET", f"/rpc/{name}", pairs, None, draw(roles), Accept_Profile=draw(profiles), **headers
    )


questions = st.one_of(reads(), reads(), writes(), called())
