"""The keys of a local Supabase project: signing and checking tokens, and what the gateway swaps for what.

All of it is public: `supabase start` prints the same keys on every machine. Nothing here guards anything.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from secrets import token_urlsafe
from typing import Final, cast

Claims = dict[str, object]

JWT_SECRET: Final = "super-secret-jwt-token-with-at-least-32-characters-long"
PUBLISHABLE_KEY: Final = "sb_publishable_ACJWlzQHlZjBrEguHvfOxg_3BJgxAaH"
SECRET_KEY: Final = "sb_secret_N7UND0UgjKTVK-Uodkm0Hg_xSvEMPvz"
KEY_EXPIRY: Final = 1_983_812_996  # of the two long-lived keys, in seconds since 1970
CLOCK_SKEW_SECONDS: Final = 30
INVALID: Final = "PGRST301"
UNACCEPTABLE: Final = "PGRST303"


class TokenError(Exception):
    """A token that PostgREST would refuse, in its words: `code`, `message` and perhaps `details`."""

    def __init__(self, code: str, message: str, details: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details


@dataclass(frozen=True, slots=True)
class Keys:
    """One project's keys; the defaults are those that `supabase start` prints."""

    jwt_secret: str = JWT_SECRET
    publishable: str = PUBLISHABLE_KEY
    secret: str = SECRET_KEY
    further: set[str] = field(default_factory=set[str], compare=False)
    """Other secret keys that are good as well, as while one replaces another."""
    withdrawn: set[str] = field(default_factory=set[str], compare=False)
    """Keys and tokens that are good no more."""

    @property
    def anon(self) -> str:
        """The long-lived JWT of role `anon`."""
        return _long_lived(self, "anon")

    @property
    def service_role(self) -> str:
        """The long-lived JWT of role `service_role`."""
        return _long_lived(self, "service_role")

    def mint(self, role: str, **claims: object) -> str:
        """A signed token for `role`, good for an hour unless `exp` says otherwise; `sub=` names the user."""
        now = int(time.time())
        return self.sign({"iss": "supabase-demo", "role": role, "iat": now, "exp": now + 3600} | claims)

    def new_secret(self) -> str:
        """One more secret key, good from now on."""
        key = f"sb_secret_{token_urlsafe(23)}"
        self.further.add(key)
        return key

    def verify(self, token: str) -> Claims:
        """The claims of a token of ours that is valid now (30 s of clock skew); raises TokenError."""
        if token in self.withdrawn:
            raise _unknown_signer()
        claims = _opened(self, token)
        _check_times(claims)
        return dict(claims)

    def key_as_token(self, key: str) -> str:
        """The JWT that stands behind a new-style key (`sb_secret_…`, `sb_publishable_…`); others unchanged."""
        if key in self.withdrawn:
            return key
        if key == self.secret or key in self.further:
            return self.service_role
        return self.anon if key == self.publishable else key

    def authorization(self, headers: Mapping[str, str]) -> str | None:
        """The Authorization header that the gateway passes on to PostgREST.

        An `Authorization` is kept unless it carries a new-style key; then, or without one, `apikey` decides.
        """
        given = headers.get("Authorization")
        if given is not None and not given.startswith("Bearer sb_"):
            return given
        key = headers.get("apikey")
        if key is None:
            return given
        if key in self.withdrawn:
            return f"Bearer {key}"  # nobody, and not anon: a hosted project answers 401 to a key that it had
        token = self.key_as_token(key)
        return key if token is key else f"Bearer {token}"

    def sign(self, claims: Mapping[str, object]) -> str:
        """A token with exactly these claims."""
        signed = f"{_encoded({'alg': 'HS256', 'typ': 'JWT'})}.{_encoded(claims)}"
        return f"{signed}.{self.signature(signed)}"

    def signature(self, signed: str) -> str:
        """The third part of a token, for the first two."""
        return _base64(hmac.digest(self.jwt_secret.encode(), signed.encode(), "sha256"))


LOCAL: Final = Keys()


@lru_cache(maxsize=64)
def _long_lived(keys: Keys, role: str) -> str:
    return keys.sign({"iss": "supabase-demo", "role": role, "exp": KEY_EXPIRY})


@lru_cache(maxsize=256)
def _opened(keys: Keys, token: str) -> Claims:
    """The claims of a token whose signature holds, whatever the time; remembered, a worker has only one."""
    parts = token.split(".")
    if len(parts) != 3:
        raise TokenError(INVALID, f"Expected 3 parts in JWT; got {len(parts)}")
    header, claims = _decoded(parts[0]), _decoded(parts[1])
    if header is None or claims is None:
        raise TokenError(INVALID, "JWT cryptographic operation failed")
    if header.get("alg") == "none":
        raise TokenError(
            INVALID,
            "Wrong or unsupported encoding algorithm",
            "JWT is unsecured but expected 'alg' was not 'none'",
        )
    expected = keys.signature(f"{parts[0]}.{parts[1]}")
    if header.get("alg") != "HS256" or not hmac.compare_digest(expected.encode(), parts[2].encode()):
        raise _unknown_signer()
    return claims


def _unknown_signer() -> TokenError:
    return TokenError(
        INVALID, "No suitable key or wrong key type", "None of the keys was able to decode the JWT"
    )


def mint(role: str, **claims: object) -> str:
    """`Keys.mint` of the local project."""
    return LOCAL.mint(role, **claims)


def verify(token: str) -> Claims:
    """`Keys.verify` of the local project."""
    return LOCAL.verify(token)


def _check_times(claims: Claims) -> None:
    now = time.time()
    expires, begins, issued = claims.get("exp"), claims.get("nbf"), claims.get("iat")
    if isinstance(expires, int | float) and now - CLOCK_SKEW_SECONDS >= expires:
        raise TokenError(UNACCEPTABLE, "JWT expired")
    if isinstance(begins, int | float) and now + CLOCK_SKEW_SECONDS <= begins:
        raise TokenError(UNACCEPTABLE, "JWT not yet valid")
    if isinstance(issued, int | float) and now + CLOCK_SKEW_SECONDS <= issued:
        raise TokenError(UNACCEPTABLE, "JWT issued at future")


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _encoded(value: Mapping[str, object]) -> str:
    return _base64(json.dumps(value, separators=(",", ":")).encode())


def _decoded(part: str) -> Claims | None:
    try:
        value: object = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (binascii.Error, ValueError):
        return None
    return cast(Claims, value) if isinstance(value, dict) else None
