"""One request to Auth: what it says, who makes it, and what it may use; and the answer it gets."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, cast
from uuid import UUID

from devstack.auth import sessions, tokens, users
from devstack.auth.errors import AuthError
from devstack.auth.sessions import Caller
from devstack.auth.users import User
from devstack.config import Config
from devstack.keys import Claims, Keys

if TYPE_CHECKING:
    import asyncpg

    Connection = asyncpg.Connection[asyncpg.Record]

BEARER: Final = re.compile(r"bearer (\S+)", re.IGNORECASE)
LARGEST_BODY: Final = 1 << 20  # bytes
ADMIN: Final = "service_role"


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, JSON body unless there is none, and headers."""

    status: int = 200
    body: object = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody with a good access token."""

    user: User
    session: UUID | None
    claims: Claims


@dataclass(frozen=True, slots=True)
class Call:
    """`authorization` is the header behind the gateway, where a new-style key has become a token."""

    connection: Connection
    keys: Keys
    config: Config
    issuer: str
    query: Mapping[str, str]
    authorization: str | None
    body: bytes
    caller: Caller
    id: str = ""
    """The id in the path of a call about one person."""

    def params(self) -> Params:
        """The body, which must be a JSON object; raises AuthError."""
        if len(self.body) > LARGEST_BODY:
            message = f"Request body too large (max {LARGEST_BODY} bytes)"
            raise AuthError(413, "request_entity_too_large", message)
        try:
            value: object = json.loads(self.body)
            json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair cannot be kept
        except (ValueError, RecursionError) as error:
            raise _bad_json(str(error)) from error
        if not isinstance(value, dict):
            raise _bad_json("it has to be an object")
        return Params(cast("dict[str, object]", value))

    async def person(self) -> Person:
        """Who asks, by the access token; raises AuthError for nobody, somebody deleted, banned or signed out."""
        claims = self._claims()
        id_, session = tokens.subject(claims), tokens.session(claims)
        user = await users.by_id(self.connection, id_)
        if user is None:
            raise AuthError(403, "user_not_found", "User from sub claim in JWT does not exist")
        if session is not None and not await sessions.exists(self.connection, session):
            message = "Session from session_id claim in JWT does not exist"
            raise AuthError(403, "session_not_found", message)
        if user.is_banned:
            raise AuthError(403, "user_banned", "User is banned")
        return Person(user, session, claims)

    def require_admin(self) -> None:
        """Raises AuthError unless the service key asks."""
        if self._claims().get("role") != ADMIN:
            raise AuthError(403, "not_admin", "User not allowed")

    def _claims(self) -> Claims:
        given = BEARER.fullmatch(self.authorization or "")
        if given is None:
            raise AuthError(401, "no_authorization", "This endpoint requires a valid Bearer token")
        return tokens.opened(given[1], self.keys)


@dataclass(frozen=True, slots=True)
class Params:
    """The members of a request's body, each asked for by its type; a member of another type is an AuthError."""

    members: Mapping[str, object]

    def text(self, name: str) -> str:
        """A string; empty when it is missing or null."""
        return self.optional_text(name) or ""

    def optional_text(self, name: str) -> str | None:
        """A string, or None when it is missing or null."""
        value = self.members.get(name)
        if value is not None and not isinstance(value, str):
            raise _bad_json(f"{name} has to be a string")
        return value

    def object(self, name: str) -> dict[str, object] | None:
        """An object, or None when it is missing or null."""
        value = self.members.get(name)
        if value is not None and not isinstance(value, dict):
            raise _bad_json(f"{name} has to be an object")
        return cast("dict[str, object] | None", value)

    def flag(self, name: str) -> bool:
        """A boolean; false when it is missing or null."""
        value = self.members.get(name)
        if value is not None and not isinstance(value, bool):
            raise _bad_json(f"{name} has to be true or false")
        return bool(value)


def uuid_or_none(text: str) -> UUID | None:
    """The UUID that the text spells, if it does."""
    try:
        return UUID(text)
    except ValueError:
        return None


def _bad_json(why: str) -> AuthError:
    return AuthError(400, "bad_json", f"Could not parse request body as JSON: {why}")
