"""Reads the tokens that Realtime is shown, and refuses them in Realtime's words."""

from __future__ import annotations

import base64
import binascii
import json
import time
from dataclasses import dataclass
from typing import Final, cast

from devstack.keys import INVALID, Claims, Keys, TokenError
from devstack.realtime.refusals import Refused

MALFORMED: Final = "The token provided is not a valid JWT"
FIELDS_MISSING: Final = "Fields `role` and `exp` are required in JWT"
SIGNATURE: Final = "Failed to validate JWT signature"


class TokenRefused(Refused):
    """A token that Realtime does not take."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token that was good when it was read. `expires` is in seconds since 1970."""

    text: str
    role: str
    expires: float
    claims: str  # as JSON text, the value of request.jwt.claims


def read(text: str, keys: Keys) -> Token:
    """The token behind `text`; raises TokenRefused. Unlike PostgREST, Realtime allows no clock skew."""
    claims = _claims(text)
    if claims is None:
        raise TokenRefused("MalformedJWT", MALFORMED)
    try:
        keys.verify(text)
    except TokenError as error:
        if error.code == INVALID:
            raise TokenRefused("JwtSignatureError", SIGNATURE, late=":signature_error") from error
    role, expires = claims.get("role"), claims.get("exp")
    if not isinstance(role, str) or not isinstance(expires, int | float) or isinstance(expires, bool):
        raise TokenRefused("InvalidJWTToken", FIELDS_MISSING)
    if expires <= time.time():
        raise TokenRefused("InvalidJWTToken", expired(expires))
    return Token(text, role, float(expires), json.dumps(claims))


def expired(expires: float) -> str:
    """The sentence about a token whose time ran out."""
    return f"Token has expired {max(0, int(time.time() - expires))} seconds ago"


def _claims(text: str) -> Claims | None:
    parts = text.split(".")
    if len(parts) != 3:
        return None
    try:
        claims: object = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError):
        return None
    return cast("Claims", claims) if isinstance(claims, dict) else None
