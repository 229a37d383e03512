"""What a request's transaction runs under: role, claims, search path and the facts about the request itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from devstack.keys import Claims, Keys, TokenError
from devstack.rest.errors import bad_token
from devstack.rest.quoting import quoted
from devstack.rest.request import READS, Profile

if TYPE_CHECKING:
    from aiohttp import web

RawHeaders = tuple[tuple[bytes, bytes], ...]

# Content-Length alone would make each call different from the one before; cookies are told apart.
UNSAID: Final = (b"content-length", b"cookie")


def facts(
    request: web.Request, path: str, profile: Profile, keys: Keys, extra: Sequence[str]
) -> dict[str, str]:
    """The settings, as the database's functions and policies see them; raises RestError for a bad token."""
    authorization = keys.authorization(request.headers)
    claims = _claims(keys, authorization)
    role = str(claims.get("role", "anon"))
    raw = tuple(header for header in request.raw_headers if header[0].lower() not in UNSAID)
    return {
        "request.jwt.claims": _json(dict(sorted({"role": role, **claims}.items()))),
        "search_path": _search_path((profile.schema, *extra)),
        "request.method": request.method,
        "request.path": path,
        "request.headers": _headers(raw, authorization),
        "request.cookies": _json(dict(request.cookies)) if "Cookie" in request.headers else "{}",
        "default_transaction_read_only": "on" if request.method in READS else "off",
        "role": role,
    }


def _claims(keys: Keys, authorization: str | None) -> Claims:
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer":
        return {}
    if not token:
        raise bad_token("PGRST301", "Empty JWT is sent in Authorization header", None)
    try:
        return keys.verify(token)
    except TokenError as error:
        raise bad_token(error.code, error.message, error.details) from None


@lru_cache(maxsize=256)
def _headers(raw: RawHeaders, authorization: str | None) -> str:
    """All headers in one JSON object; a worker sends the same ones over and over."""
    headers = {name.decode().lower(): value.decode("utf-8", "surrogateescape") for name, value in raw}
    if authorization is not None:
        headers["authorization"] = authorization
    return _json(headers)


@lru_cache(maxsize=64)
def _search_path(schemas: tuple[str, ...]) -> str:
    return ", ".join(map(quoted, schemas))


def _json(value: dict[str, object] | dict[str, str]) -> str:
    return json.dumps(value, separators=(",", ":"))
