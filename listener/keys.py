"""The keys that say to a project who we are: what can be known of one without asking, and how a worker's is made."""

import base64
import binascii
import hmac
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

WHERE_KEYS = (
    "Supabase dashboard, Project Settings, API keys (locally: `python -m devstack status`, `supabase status`)"
)
WORKER_ROLE = "pulse_worker"
_JWT = re.compile(r"[A-Za-z0-9._=-]+")
_SECRET_KEY = re.compile(r"sb_secret_[A-Za-z0-9_-]{8,}")
_PUBLISHABLE_KEY = re.compile(r"sb_publishable_[A-Za-z0-9_-]{8,}")


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """What a key says of itself. The server alone knows whether it is good."""

    kind: str
    role: str | None = None
    made_at: datetime | None = None
    ends_at: datetime | None = None


def facts_of(key: str) -> KeyFacts:
    """The kind of a key, and what its claims say, unverified."""
    if _SECRET_KEY.fullmatch(key):
        return KeyFacts("secret key", "service_role")
    if _PUBLISHABLE_KEY.fullmatch(key):
        return KeyFacts("publishable key", "anon")
    claims = _claims(key)
    if claims is None:
        return KeyFacts("no key")
    role = claims.get("role")
    return KeyFacts(
        "JWT", role if isinstance(role, str) else None, _moment(claims.get("iat")), _moment(claims.get("exp"))
    )


def _moment(seconds: object) -> datetime | None:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def service_key_problem(name: str, key: str) -> str | None:
    """Why the value of that variable is no service key of either format, or is too old; None when all is well."""
    if _SECRET_KEY.fullmatch(key):
        return None
    if key.startswith("sb_publishable_"):
        return f"{name} holds the publishable key, which may not run jobs. Take the secret key: {WHERE_KEYS}"
    claims = _claims(key)
    if claims is None:
        return f"{name} is neither a secret key (sb_secret_…) nor a service_role JWT (eyJ…). Find it here: {WHERE_KEYS}"
    if claims.get("role") != "service_role":
        return f"{name} holds the key of the role {claims.get('role')!r}. Take the service_role key: {WHERE_KEYS}"
    if _has_expired(claims):
        return f"{name} has expired. Take a fresh one: {WHERE_KEYS}"
    return None


def worker_key_problem(name: str, key: str) -> str | None:
    """The same for the key of a worker: a JWT of its role, with an end, since Realtime takes none without."""
    make = "Make one with `pulse worker-key`."
    claims = _claims(key)
    if claims is None:
        return f"{name} is no JWT (eyJ…). {make}"
    if claims.get("role") != WORKER_ROLE:
        return f"{name} holds the key of the role {claims.get('role')!r}, not of {WORKER_ROLE}. {make}"
    if not isinstance(claims.get("exp"), int | float):
        return f"{name} says of no time when it ends (exp), and Realtime takes no such key. {make}"
    if _has_expired(claims):
        return f"{name} has expired. {make}"
    return None


def publishable_key_problem(name: str, key: str) -> str | None:
    """The same for the key that is public, of either format."""
    if _PUBLISHABLE_KEY.fullmatch(key):
        return None
    claims = _claims(key)
    if claims is None or claims.get("role") != "anon":
        return f"{name} is neither a publishable key (sb_publishable_…) nor an anon JWT. Find it here: {WHERE_KEYS}"
    return f"{name} has expired. Take a fresh one: {WHERE_KEYS}" if _has_expired(claims) else None


def new_worker_key(jwt_secret: str, lasts: timedelta) -> str:
    """A key for workers, signed with the project's own secret (HS256), good from now on."""
    now = int(time.time())
    claims = {"iss": "supabase", "role": WORKER_ROLE, "iat": now, "exp": now + int(lasts.total_seconds())}
    signed = f"{_encoded({'alg': 'HS256', 'typ': 'JWT'})}.{_encoded(claims)}"
    return f"{signed}.{_base64(hmac.digest(jwt_secret.encode(), signed.encode(), 'sha256'))}"


def _claims(token: str) -> dict[str, object] | None:
    """The claims of a JWT, unverified (the server verifies), or None when it is none, or cannot be sent."""
    pieces = token.split(".")
    if len(pieces) != 3 or not _JWT.fullmatch(token):
        return None
    try:
        claims: object = json.loads(base64.urlsafe_b64decode(pieces[1] + "=" * (-len(pieces[1]) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return None
    return claims if isinstance(claims, dict) else None  # pyright: ignore[reportUnknownVariableType] - JSON keys are text


def _has_expired(claims: Mapping[str, object]) -> bool:
    expires = claims.get("exp")
    return isinstance(expires, int | float) and expires < time.time()


def _encoded(words: Mapping[str, object]) -> str:
    return _base64(json.dumps(words, separators=(",", ":")).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
