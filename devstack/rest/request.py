"""What a REST request asks for besides its path: preferences, accepted form, filters, range, body."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast
from urllib.parse import quote

from devstack.rest.errors import JSON, RestError, not_implemented
from devstack.rest.query import RESERVED

READS: Final = ("GET", "HEAD")
JSON_MEDIA: Final = "application/json"
OBJECT: Final = "application/vnd.pgrst.object+json"
MAX_ROWS: Final = 1000
CHOICES: Final = {
    "resolution": ("merge-duplicates", "ignore-duplicates"),
    "missing": ("default", "null"),
    "return": ("minimal", "headers-only", "representation"),
    "count": ("exact", "planned", "estimated"),
    "tx": ("commit", "rollback"),
    "handling": ("strict", "lenient"),
}
SHOWN: Final = ("resolution", "missing", "return", "count", "handling", "max-affected")


@dataclass(frozen=True, slots=True)
class Preferences:
    """The `Prefer` header; of two words about one thing the first counts."""

    given: Mapping[str, str]

    def get(self, name: str) -> str | None:
        """The preference, or None."""
        return self.given.get(name)

    @property
    def max_affected(self) -> int | None:
        """More changed rows than this undo the request; counts with handling=strict only."""
        limit = self.given.get("max-affected")
        return int(limit) if limit is not None and self.given.get("handling") == "strict" else None

    def applied(self, *names: str) -> dict[str, str]:
        """The Preference-Applied header for those of `names` that were given."""
        shown = [f"{name}={self.given[name]}" for name in SHOWN if name in names and name in self.given]
        return {"Preference-Applied": ", ".join(shown)} if shown else {}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request, read but not yet understood: nothing here knows the database."""

    method: str
    name: str
    params: Sequence[tuple[str, str]]
    prefer: Preferences
    is_single: bool
    body: bytes
    media: str
    range_header: str | None

    def param(self, name: str) -> str | None:
        """The last value of a parameter."""
        return next((value for key, value in reversed(self.params) if key == name), None)

    @property
    def filters(self) -> list[tuple[str, str]]:
        """Parameters that are filters."""
        return [(key, value) for key, value in self.params if key not in RESERVED]

    @property
    def location(self) -> str:
        """The Content-Location of a read: the parameters in order of their names."""
        query = "&".join(f"{quote(k, safe='')}={quote(v, safe='')}" for k, v in sorted(self.params))
        return f"/{self.name}?{query}" if query else f"/{self.name}"

    @property
    def limits(self) -> tuple[int, int]:
        """Offset and limit, from parameters or from the Range header, cut at 1000 rows."""
        offset, limit = self._whole("offset", 0), self._whole("limit", MAX_ROWS)
        if self.range_header is not None:
            found = re.fullmatch(r"(\d+)-(\d*)", self.range_header)
            if found is not None:
                offset = max(offset, int(found[1]))
                limit = min(limit, int(found[2]) - int(found[1]) + 1) if found[2] else limit
        if limit < 0:
            raise RestError(
                416,
                "PGRST103",
                "Requested range not satisfiable",
                "Limit should be greater than or equal to zero.",
            )
        return offset, min(limit, MAX_ROWS)

    def content_type(self) -> str:
        """The Content-Type of an answer with a body."""
        return f"{OBJECT}; charset=utf-8" if self.is_single else JSON

    def text(self) -> str:
        """The body as text; a refusal when it is not UTF-8."""
        try:
            return self.body.decode()
        except UnicodeDecodeError:
            if self.media == JSON_MEDIA:
                raise RestError(400, "PGRST102", "Empty or invalid json") from None
            raise not_implemented("A body that is not UTF-8 is not implemented here.") from None

    def json(self) -> object:
        """The parsed body; PGRST102 when it is not JSON."""
        try:
            return cast(object, json.loads(self.body))
        except ValueError:
            raise RestError(400, "PGRST102", "Empty or invalid json") from None

    def _whole(self, name: str, otherwise: int) -> int:
        given = self.param(name) or ""
        return int(given) if re.fullmatch(r"-?\d+", given) else otherwise


def read_preferences(headers: Sequence[str]) -> Preferences:
    """Understands `Prefer`; refuses (PGRST122) what is unknown when handling is strict."""
    given: dict[str, str] = {}
    wrong: list[str] = []
    for word in (word.strip() for header in headers for word in header.split(",")):
        name, _, value = word.partition("=")
        if value in CHOICES.get(name, ()) or (name == "max-affected" and value.isdigit()):
            given.setdefault(name, value)
        elif name == "timezone" and value:
            raise not_implemented("Prefer: timezone is not implemented here.")
        elif word:
            wrong.append(word)
    if wrong and given.get("handling") == "strict":
        message = "Invalid preferences given with handling=strict"
        raise RestError(400, "PGRST122", message, f"Invalid preferences: {', '.join(wrong)}")
    if given.get("count") in ("planned", "estimated"):
        raise not_implemented(f"count={given['count']} is not implemented here; count=exact is.")
    return Preferences(given)


def accepts_single(accept: str) -> bool:
    """Whether one object is asked for; refuses forms that are neither JSON nor known."""
    kinds = [part.split(";")[0].strip() for part in accept.split(",")]
    if "nulls=stripped" in accept.replace(" ", ""):
        raise not_implemented("nulls=stripped is not implemented here.")
    for kind in kinds:
        if kind in ("*/*", "application/*", "application/json", ""):
            return False
        if kind == OBJECT:
            return True
        if kind in ("text/csv", "application/geo+json", "application/openapi+json", "text/plain"):
            raise not_implemented(f"Answers as {kind} are not implemented here.")
        if kind.startswith("application/vnd.pgrst") or kind in ("application/octet-stream", "text/xml"):
            raise not_implemented(f"Answers as {kind} are not implemented here.")
    raise RestError(406, "PGRST107", f"None of these media types are available: {', '.join(kinds)}")


def check_profile(method: str, headers: Mapping[str, str]) -> None:
    """Only the schema `public` is served; PGRST106 for one that is not exposed."""
    asked = headers.get("Accept-Profile" if method in READS else "Content-Profile", "public")
    if asked == "graphql_public":
        raise not_implemented("The schema graphql_public is not implemented here.")
    if asked != "public":
        hint = "Only the following schemas are exposed: public, graphql_public"
        raise RestError(406, "PGRST106", f"Invalid schema: {asked}", hint=hint)
