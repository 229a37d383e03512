"""The form of an answer: what `Accept` asks for, what of it there is, and how a statement makes it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from devstack.rest.errors import RestError, not_implemented

PARAMETER: Final = re.compile(r"\s*;\s*([\w-]+)\s*=\s*(?:\"([^\"]*)\"|([\w.|-]+))")
KIND: Final = re.compile(r"[\w.*]+/[\w.*+-]+")


@dataclass(frozen=True, slots=True)
class Media:
    """A form: its name on the wire, whether it is one object, and whether nulls are left out."""

    mime: str
    is_single: bool = False
    without_nulls: bool = False

    @property
    def content_type(self) -> str:
        """The Content-Type of an answer in this form."""
        return f"{self.mime}; charset=utf-8"

    @property
    def is_csv(self) -> bool:
        """Whether it is lines of text and not JSON."""
        return self.mime == "text/csv"

    def body(self, rows: str, *, item: str | None = None, source: str | None = None) -> str:
        """The SQL that makes the body, out of a FROM item and what of it stands for one row.

        The names in the first line of a CSV are those of `source`, the WITH query that the rows were read from,
        if there is one; this is so even where other columns were selected from it, as with PostgREST.
        """
        item = item or rows
        if self.is_csv:
            first = f"(array_agg(row_to_json({rows})))[1]"
            if source is not None:
                first = f"(select row_to_json(first) from {source} as first limit 1)"
            names = f"(select string_agg(name, ',') from json_object_keys({first}) as name)"
            # The other lines are rows as PostgreSQL writes them, without parentheses.
            lines = f"string_agg(substring({rows}::text, 2, length({rows}::text) - 2), e'\\n')"
            return f"coalesce({names}, '') || e'\\n' || coalesce({lines}, '')"
        if self.is_single:
            return f"coalesce(({self._stripped(f'json_agg({item}) -> 0')})::text, 'null')"
        return f"coalesce(({self._stripped(f'json_agg({item})')})::text, '[]')"

    def _stripped(self, sql: str) -> str:
        return f"json_strip_nulls({sql})" if self.without_nulls else sql


JSON_ARRAY: Final = Media("application/json")
OBJECT: Final = Media("application/vnd.pgrst.object+json", is_single=True)
OBJECT_WITHOUT_NULLS: Final = Media(
    "application/vnd.pgrst.object+json;nulls=stripped", is_single=True, without_nulls=True
)
ARRAY_WITHOUT_NULLS: Final = Media("application/vnd.pgrst.array+json;nulls=stripped", without_nulls=True)
CSV: Final = Media("text/csv")


@lru_cache(maxsize=256)
def negotiate(accept: str | None) -> Media:
    """The first form asked for that there is; PGRST107 when there is none."""
    asked = _by_quality(accept) if accept else ["*/*"]
    for each in asked:
        found = _known(each)
        if found is not None:
            return found
    names = [_name(each) for each in asked]
    raise RestError(406, "PGRST107", f"None of these media types are available: {', '.join(names)}")


def _by_quality(accept: str) -> list[str]:
    weighed: list[tuple[float, str]] = []
    for part in accept.split(","):
        kind, _, quality = part.strip().partition(";q=")
        try:
            weighed.append((float(quality or 1), kind))
        except ValueError:
            weighed.append((1, kind))
    return [kind for _, kind in sorted(weighed, key=lambda pair: -pair[0])]


def _parts(asked: str) -> tuple[str, dict[str, str]]:
    kind = KIND.match(asked)
    parameters = {found[1].lower(): found[2] or found[3] for found in PARAMETER.finditer(asked)}
    return kind[0].lower() if kind else asked, parameters


def _known(asked: str) -> Media | None:
    kind, parameters = _parts(asked)
    without_nulls = parameters.get("nulls") == "stripped"
    if kind in ("*/*", "application/json"):
        return JSON_ARRAY
    if kind in ("application/vnd.pgrst.object", "application/vnd.pgrst.object+json"):
        return OBJECT_WITHOUT_NULLS if without_nulls else OBJECT
    if kind in ("application/vnd.pgrst.array", "application/vnd.pgrst.array+json"):
        return ARRAY_WITHOUT_NULLS if without_nulls else JSON_ARRAY
    if kind == "text/csv":
        return CSV
    if kind == "application/geo+json":
        raise not_implemented("Answers as application/geo+json are not implemented here.")
    return None


def _name(asked: str) -> str:
    """How a form that there is not is told."""
    kind, parameters = _parts(asked)
    if not kind.startswith("application/vnd.pgrst.plan"):
        return (
            kind
            if kind in ("text/plain", "text/xml", "application/octet-stream", "application/openapi+json")
            else asked
        )
    form = "json" if kind.endswith("+json") else "text"
    inner = _parts(parameters.get("for", "application/json"))[0]
    options = "|".join(
        each
        for each in ("analyze", "verbose", "settings", "buffers", "wal")
        if each in parameters.get("options", "").split("|")
    )
    told = f'application/vnd.pgrst.plan+{form}; for="{inner}"'
    return f"{told}; options={options}" if options else told
