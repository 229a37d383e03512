"""What the REST side answers when it cannot do what was asked: the bodies and statuses of PostgREST 14."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

import asyncpg

JSON: Final = "application/json; charset=utf-8"

# By the whole SQLSTATE first, then by its class; anything else is the caller's fault (400).
BY_CODE: Final = {
    "23503": 409, "23505": 409, "25006": 405, "42501": 403, "42883": 404, "42P01": 404, "42P17": 500,
    "53400": 500, "57P01": 503, "P0001": 400, "21000": 500,
}  # fmt: skip
BY_CLASS: Final = {
    "08": 503, "09": 500, "0L": 403, "0P": 403, "25": 500, "28": 403, "2D": 500, "38": 500, "39": 500, "3B": 500,
    "40": 500, "53": 503, "54": 500, "55": 500, "57": 500, "58": 500, "F0": 500, "HV": 500, "P0": 500, "XX": 500,
}  # fmt: skip
OPTIONAL: Final = (str, type(None))
REPEATED_FOR_EVER: Final = frozenset({"40001", "40P01"})


@dataclass(slots=True)
class RestError(Exception):
    """One refusal: HTTP status, PostgREST's four words, and headers beyond the usual ones."""

    status: int
    code: str
    message: str
    details: str | Sequence[Mapping[str, str]] | None = None
    hint: str | None = None
    headers: dict[str, str] = field(default_factory=dict[str, str])

    def body(self) -> bytes:
        """The JSON body, keys in PostgREST's order."""
        words = {"code": self.code, "details": self.details, "hint": self.hint, "message": self.message}
        return json.dumps(words, separators=(",", ":"), ensure_ascii=False).encode()

    def all_headers(self) -> dict[str, str]:
        """Every header of the answer."""
        headers = {"Content-Type": JSON, "Proxy-Status": f"PostgREST; error={self.code}"} | self.headers
        if self.status == 503:
            headers.setdefault("Retry-After", "0")
        return headers


def not_implemented(sentence: str) -> RestError:
    """501: the real server can do this and we cannot; the sentence says what."""
    return RestError(
        501, "DEVSTACK", sentence, hint="The development stack has a subset of PostgREST; try a real project."
    )


def unparsable(what: str, details: str) -> RestError:
    """400 for a query string that PostgREST could not read either."""
    return RestError(400, "PGRST100", what, details)


def bad_token(code: str, message: str, details: str | None) -> RestError:
    """401 for a token that does not hold."""
    challenge = f'Bearer error="invalid_token", error_description="{message}"'
    return RestError(401, code, message, details, headers={"WWW-Authenticate": challenge})


def database_away() -> RestError:
    """503 while there is no database to talk to."""
    return RestError(503, "PGRST002", "Could not query the database for the schema cache. Retrying.")


def connection_lost() -> RestError:
    """503 for a request under which the database was stopped."""
    return RestError(503, "57P01", "terminating connection due to administrator command")


def not_one_row(rows: int) -> RestError:
    """406 when one object was asked for and the result is another number of rows."""
    message = "Cannot coerce the result to a single JSON object"
    return RestError(406, "PGRST116", message, f"The result contains {rows} rows")


def from_postgres(error: asyncpg.PostgresError | asyncpg.PostgresWarning, *, is_anon: bool) -> RestError:
    """What PostgREST makes of an error that PostgreSQL raised."""
    code = cast(str | None, error.sqlstate) or "XX000"
    message = str(getattr(error, "message", None) or error)
    details = cast(str | None, getattr(error, "detail", None))
    hint = cast(str | None, getattr(error, "hint", None))
    if code == "PGRST":
        return _spelled_out(message, details)
    if code in REPEATED_FOR_EVER:
        hint = (
            "PostgREST would repeat this transaction without end and never answer: catch it in the function."
        )
    known = RestError(_status(code), code, message, details, hint)
    if code == "42501" and is_anon:
        known.status = 401
    if code == "22023" and message.startswith("role") and message.endswith("does not exist"):
        known.status = 401
    if code == "21000" and message.endswith("requires a WHERE clause"):
        known.status = 400
    if code == "42883" and message.startswith("function xmlagg("):
        known.status = 406
    if known.status == 401:
        known.headers["WWW-Authenticate"] = "Bearer"
    return known


def _status(code: str) -> int:
    if code.startswith("PT"):
        return int(code[2:]) if code[2:].isdecimal() else 500
    return BY_CODE.get(code) or BY_CLASS.get(code[:2], 400)


def _spelled_out(message: str, details: str | None) -> RestError:
    """RAISE SQLSTATE 'PGRST': the function itself writes the answer, as JSON in MESSAGE and DETAIL."""
    words, about = _object(message), _object(details or "")
    if not _holds(words, {"code": str, "message": str, "details": OPTIONAL, "hint": OPTIONAL}):
        return _not_spelled_out(
            f"Invalid JSON value for MESSAGE: '{message}'",
            "MESSAGE must be a JSON object with obligatory keys: 'code', 'message' and optional keys: "
            "'details', 'hint'.",
        )
    if not _holds(about, {"status": int, "headers": dict}):
        wrong = f"Invalid JSON value for DETAIL: '{details}'"
        return _not_spelled_out(
            wrong if details else "DETAIL is missing in the RAISE statement",
            "DETAIL must be a JSON object with obligatory keys: 'status', 'headers' and optional key: "
            "'status_text'.",
        )
    return RestError(
        cast(int, about["status"]),
        cast(str, words["code"]),
        cast(str, words["message"]),
        cast(str | None, words.get("details")),
        cast(str | None, words.get("hint")),
        dict(cast(dict[str, str], about["headers"])),
    )


def _not_spelled_out(details: str, hint: str) -> RestError:
    return RestError(
        500, "PGRST121", "Could not parse JSON in the \"RAISE SQLSTATE 'PGRST'\" error", details, hint
    )


def _object(text: str) -> dict[str, object]:
    try:
        value = cast(object, json.loads(text))
    except ValueError:
        return {}
    return cast(dict[str, object], value) if isinstance(value, dict) else {}


def _holds(found: Mapping[str, object], kinds: Mapping[str, type | tuple[type, ...]]) -> bool:
    return all(isinstance(found.get(name), kind) for name, kind in kinds.items())
