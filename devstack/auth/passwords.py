"""Passwords: which are good enough, how they are kept, and whether one is right.

The real server keeps bcrypt hashes. Python has none of its own, so ours are scrypt; a bcrypt hash that came
with a seed or a dump is checked by the database, if it has pgcrypto.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import secrets
from typing import TYPE_CHECKING, Final

from devstack.auth.errors import AuthError, invalid, not_implemented

if TYPE_CHECKING:
    import asyncpg

    Connection = asyncpg.Connection[asyncpg.Record]

LONGEST: Final = 72  # bytes, bcrypt's limit on the real server
LOG_COST: Final = 14  # 16 MiB and some 50 ms for each try
NOBODY: Final = f"$scrypt$ln={LOG_COST},r=8,p=1${'A' * 22}${'A' * 43}"
"""The hash of no password: to spend as long on an unknown person as on a wrong password."""


def check_strength(password: str, minimum: int) -> None:
    """Raises AuthError for a password that is too long or too weak to be set."""
    if len(password.encode()) > LONGEST:
        raise invalid(f"Password cannot be longer than {LONGEST} characters")
    if len(password.encode()) < minimum:
        message = f"Password should be at least {minimum} characters."
        raise AuthError(422, "weak_password", message, ("length",))


async def kept(password: str) -> str:
    """What the database keeps of it; takes a thread for some 50 ms."""
    salt = secrets.token_bytes(16)
    digest = await asyncio.to_thread(_digest, password, salt, LOG_COST)
    return f"$scrypt$ln={LOG_COST},r=8,p=1${_text(salt)}${_text(digest)}"


async def is_right(password: str, hash_: str, connection: Connection) -> bool:
    """Whether it is the one that was kept; compares in constant time. AuthError when nothing here can tell."""
    if hash_.startswith("$2"):
        return await _is_right_for_bcrypt(password, hash_, connection)
    try:
        _, kind, cost, salt, digest = hash_.split("$")
        log_cost = int(cost.removeprefix("ln=").removesuffix(",r=8,p=1"))
        salted, wanted = _bytes(salt), _bytes(digest)
    except (ValueError, binascii.Error):
        return False
    if kind != "scrypt" or log_cost > LOG_COST:
        return False
    found = await asyncio.to_thread(_digest, password, salted, log_cost)
    return hmac.compare_digest(found, wanted)


async def _is_right_for_bcrypt(password: str, hash_: str, connection: Connection) -> bool:
    place = await connection.fetchval(
        "select n.nspname from pg_catalog.pg_proc as p join pg_catalog.pg_namespace as n on n.oid = p.pronamespace"
        " where p.proname = 'crypt' and n.nspname in ('public', 'extensions')"
    )
    if place is None:
        raise not_implemented(
            "This person's password is a bcrypt hash, and the database has no pgcrypto to check it with: set the "
            "password again through auth.admin.update_user_by_id, or create the person through auth.admin.create_user."
        )
    return bool(await connection.fetchval(f"select {place}.crypt($1, $2) = $2", password, hash_))


def _digest(password: str, salt: bytes, log_cost: int) -> bytes:
    return hashlib.scrypt(
        password.encode(), salt=salt, n=2**log_cost, r=8, p=1, dklen=32, maxmem=64 * 1024 * 1024
    )


def _text(data: bytes) -> str:
    return base64.b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
