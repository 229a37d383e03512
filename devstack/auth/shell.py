"""A token for the shell: to try row level security as a person without signing in."""

from __future__ import annotations

import time

import asyncpg

from devstack.auth import tokens, users
from devstack.auth.call import uuid_or_none
from devstack.keys import LOCAL, Keys


class UnknownUser(Exception):
    """Nobody has this address; the message names the mend."""


async def token_for(
    dsn: str, who: str, *, issuer: str, role: str | None = None, seconds: int = 3600, keys: Keys = LOCAL
) -> str:
    """An access token for an e-mail address or a UUID, good for so many seconds; less than 0 has expired already.

    `dsn` is the database as any role that may read auth.users. The token belongs to no session: it cannot be
    refreshed, and signing out does not end it. A UUID need not be anybody's: then the token has no more than a
    subject and a role. Raises UnknownUser.
    """
    connection = await asyncpg.connect(dsn)
    try:
        id_ = uuid_or_none(who)
        user = await (users.by_email(connection, who) if id_ is None else users.by_id(connection, id_))
    finally:
        await connection.close()
    now = int(time.time())
    if user is not None:
        claims = tokens.claims_of(user, issuer=issuer, seconds=seconds, now=now)
    elif id_ is not None:
        claims = {"iss": issuer, "sub": str(id_), "aud": users.AUDIENCE, "exp": now + seconds, "iat": now}
        claims["role"] = users.AUDIENCE
    else:
        raise UnknownUser(
            f"nobody here has the address {who}: sign up with it first (supabase.auth.sign_up, or "
            "auth.admin.create_user), or name a UUID"
        )
    return keys.sign(claims | ({"role": role} if role else {}))
