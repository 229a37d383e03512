"""Access tokens: minted with the claims of the real server, so that `auth.uid()` is real, and read back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final, cast
from uuid import UUID

from devstack.auth.errors import bad_jwt
from devstack.auth.users import User
from devstack.keys import INVALID, Claims, Keys, TokenError

UNREADABLE: Final = "invalid JWT: unable to parse or verify signature, "


def claims_of(user: User, *, issuer: str, seconds: int, now: int) -> Claims:
    """The claims of a token for this person, without those of a session."""
    shown = user.shown()
    return {
        "iss": issuer,
        "sub": shown["id"],
        "aud": shown["aud"],
        "exp": now + seconds,
        "iat": now,
        "email": shown["email"],
        "phone": shown["phone"],
        "app_metadata": user.app_metadata,
        "user_metadata": user.user_metadata,
        "role": shown["role"],
        "aal": "aal1",
        "is_anonymous": shown["is_anonymous"],
    }


def access_token(claims: Claims, session: UUID, amr: Sequence[Claims], keys: Keys) -> str:
    """A signed token of a session, the claims in the real server's order."""
    last = {"amr": list(amr), "session_id": str(session), "is_anonymous": claims["is_anonymous"]}
    return keys.sign({name: claims[name] for name in claims if name != "is_anonymous"} | last)


def opened(token: str, keys: Keys) -> Claims:
    """The claims of a token of ours that is good at this very second; raises AuthError in the real server's words."""
    try:
        claims = keys.verify(token)
    except TokenError as error:
        raise bad_jwt(UNREADABLE + _why(error)) from error
    expires = claims.get("exp")
    if isinstance(expires, int | float) and expires <= time.time():
        raise bad_jwt(UNREADABLE + "token has invalid claims: token is expired")
    return claims


def subject(claims: Claims) -> UUID:
    """Whom the token is for; raises AuthError for a key of the project, which is for nobody."""
    if not claims.get("sub"):
        raise bad_jwt("invalid claim: missing sub claim")
    try:
        return UUID(str(claims["sub"]))
    except ValueError:
        raise bad_jwt("invalid claim: sub claim must be a UUID", 400) from None


def session(claims: Claims) -> UUID | None:
    """The session that the token belongs to; None for one that was minted from the shell."""
    if not claims.get("session_id"):
        return None
    try:
        return UUID(str(claims["session_id"]))
    except ValueError:
        raise bad_jwt("invalid claim: session_id claim must be a UUID") from None


def audience(claims: Claims) -> str | None:
    """The first audience named, if any."""
    named = claims.get("aud")
    if isinstance(named, list):
        return str(cast("list[object]", named)[0]) if named else None
    return str(named) if named else None


def _why(error: TokenError) -> str:
    if error.code != INVALID:
        late = error.message == "JWT expired"
        return f"token has invalid claims: token is {'expired' if late else 'not valid yet'}"
    if "3 parts" in error.message:
        return "token is malformed: token contains an invalid number of segments"
    if "cryptographic operation" in error.message:
        return "token is malformed: could not decode it"
    return "token signature is invalid: signature is invalid"
