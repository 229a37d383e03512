"""Sessions: signed in once, refreshed by tokens that are good for one use, ended by signing out.

A refresh token that was used is refused, and with it everything that came of it, except where a client may have
lost the answer: the parent of the active token gets the active one again, and within the reuse interval any used
token gets a new one. Two that refresh at once wait for each other on the token's row.
"""

from __future__ import annotations

import re
import secrets
import string
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, cast
from uuid import UUID, uuid4

from devstack.auth import users
from devstack.auth.errors import AuthError, invalid
from devstack.auth.users import INSTANCE, User

if TYPE_CHECKING:
    import asyncpg

    Connection = asyncpg.Connection[asyncpg.Record]

TOKEN: Final = re.compile(r"[a-z0-9]{12}")
BEGIN: Final = """
    with session as (
      insert into auth.sessions (id, user_id, created_at, updated_at, aal, user_agent, ip)
      values ($1, $2, now(), now(), 'aal1', $3, $4::text::inet)
    ),
    method as (
      insert into auth.mfa_amr_claims (session_id, created_at, updated_at, authentication_method)
      values ($1, now(), now(), 'password')
    )
    update auth.users set last_sign_in_at = now(), updated_at = now() where id = $2
"""
GRANT: Final = """
    insert into auth.refresh_tokens
      (instance_id, token, user_id, revoked, created_at, updated_at, parent, session_id)
    values ($1, $2, $3::uuid::text, false, now(), now(), $4, $5)
"""
SHOWN_TOKEN: Final = "select * from auth.refresh_tokens where token = $1 for update"
ACTIVE_TOKEN: Final = """
    select token, parent from auth.refresh_tokens where session_id = $1 and not revoked order by id desc limit 1
"""
USE: Final = "update auth.refresh_tokens set revoked = true, updated_at = now() where id = $1"
REVOKE_ALL: Final = """
    update auth.refresh_tokens set revoked = true, updated_at = now() where session_id = $1 and not revoked
"""
REFRESHED: Final = """
    update auth.sessions
    set refreshed_at = now() at time zone 'utc', updated_at = now(), user_agent = $2, ip = $3::text::inet
    where id = $1
"""
METHODS: Final = """
    select authentication_method as method, floor(extract(epoch from updated_at))::bigint as timestamp
    from auth.mfa_amr_claims where session_id = $1 order by updated_at desc
"""


@dataclass(frozen=True, slots=True)
class Caller:
    """Where a request comes from, as the session remembers it."""

    user_agent: str | None
    address: str | None


@dataclass(frozen=True, slots=True)
class Session:
    """A session that was just begun or refreshed."""

    id: UUID
    refresh_token: str
    user: User


async def begin(connection: Connection, user: User, caller: Caller) -> Session:
    """Signs in; call in a transaction."""
    session, token = uuid4(), _new_token()
    await connection.execute(BEGIN, session, user.id, caller.user_agent, caller.address)
    await connection.execute(GRANT, INSTANCE, token, user.id, "", session)
    return Session(session, token, await _again(connection, user.id))


async def refresh(
    connection: Connection, token: str, caller: Caller, reuse_seconds: int
) -> Session | AuthError:
    """Swaps a refresh token; call in a transaction and commit it, also when the answer is a refusal."""
    if not TOKEN.fullmatch(token):
        return invalid("Refresh token is not valid")
    row = await connection.fetchrow(SHOWN_TOKEN, token)
    if row is None:
        return _refused("refresh_token_not_found", "Refresh Token Not Found")
    session = cast("UUID | None", row["session_id"])
    if session is None:
        return _refused("session_not_found", "No Valid Session Found")
    user = await _again(connection, UUID(row["user_id"]))
    if user.is_banned:
        return _refused("user_banned", "User Banned")
    issued: str | None = None
    if row["revoked"]:
        active = await connection.fetchrow(ACTIVE_TOKEN, session)
        if active is not None and active["parent"] == token:
            issued = str(active["token"])
        elif datetime.now(UTC) > cast(datetime, row["updated_at"]) + timedelta(seconds=reuse_seconds):
            await connection.execute(REVOKE_ALL, session)
            return _refused("refresh_token_already_used", "Already Used")
    if issued is None:
        issued = _new_token()
        await connection.execute(USE, row["id"])
        await connection.execute(GRANT, INSTANCE, issued, user.id, token, session)
    await connection.execute(REFRESHED, session, caller.user_agent, caller.address)
    return Session(session, issued, user)


async def exists(connection: Connection, session: UUID) -> bool:
    """Whether the session has not been signed out of."""
    return bool(await connection.fetchval("select exists (select from auth.sessions where id = $1)", session))


async def end(connection: Connection, user: UUID, session: UUID | None, scope: str) -> None:
    """Signs out: `local` of this session, `others` of all but this one, `global` of all. Without one, of all."""
    if session is not None and scope == "local":
        await connection.execute("delete from auth.sessions where id = $1", session)
    elif session is not None and scope == "others":
        await connection.execute("delete from auth.sessions where user_id = $1 and id <> $2", user, session)
    else:
        await connection.execute("delete from auth.sessions where user_id = $1", user)


async def methods(connection: Connection, session: UUID) -> list[dict[str, object]]:
    """How the session was signed in to, the latest first: the claim `amr`."""
    return [dict(row) for row in await connection.fetch(METHODS, session)]


async def _again(connection: Connection, id_: UUID) -> User:
    user = await users.by_id(connection, id_)
    if user is None:
        raise _refused("refresh_token_not_found", "Refresh Token Not Found")
    return user


def _refused(code: str, why: str) -> AuthError:
    return AuthError(400, code, f"Invalid Refresh Token: {why}")


def _new_token() -> str:
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(12))
