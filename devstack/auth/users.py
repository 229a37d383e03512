"""People: rows of auth.users with their identities, how they are found, made and changed, and how JSON shows them."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, cast
from uuid import UUID, uuid4

import asyncpg

from devstack.auth.errors import failure, invalid

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

LOG: Final = logging.getLogger("devstack.auth.users")
Metadata = dict[str, object]
AUDIENCE: Final = "authenticated"
INSTANCE: Final = UUID(int=0)
"""The instance_id of every row that the real server sees; a row inserted without it does not exist for it."""
# What the real server reads into plain strings: a row that has null here makes it fail.
NEVER_NULL: Final = ("confirmation_token", "recovery_token", "email_change_token_new", "email_change")
LONGEST_EMAIL: Final = 255
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
EMAIL: Final = re.compile(rf"[\w.!#$%&'*+/=?^`{{|}}~-]+@{_LABEL}(?:\.{_LABEL})*", re.ASCII)

BY_EMAIL: Final = """
    select * from auth.users
    where instance_id = $1 and lower(email) = lower($2) and aud = $3 and not is_sso_user
"""
BY_ID: Final = "select * from auth.users where instance_id = $1 and id = $2"
IDENTITIES: Final = "select * from auth.identities where user_id = $1 order by created_at"
INSERT_USER: Final = """
    insert into auth.users (
      instance_id, id, aud, role, email, encrypted_password, email_confirmed_at, raw_app_meta_data, raw_user_meta_data,
      confirmation_token, recovery_token, email_change_token_new, email_change, created_at, updated_at
    )
    select
      $1, $2, $3, $4, $5, $6, case when $7 then now() end, $8::text::jsonb, $9::text::jsonb,
      '', '', '', '', now(), now()
"""
INSERT_IDENTITY: Final = """
    insert into auth.identities (
      provider_id, user_id, identity_data, provider, last_sign_in_at, created_at, updated_at
    )
    values ($1::uuid::text, $1, $2::text::jsonb, 'email', now(), now(), now())
"""
CHANGE: Final = """
    update auth.users set
      encrypted_password = coalesce($2, encrypted_password),
      raw_user_meta_data = $3::text::jsonb,
      raw_app_meta_data = $4::text::jsonb,
      role = coalesce($5, role),
      email_confirmed_at = case when $6 then now() else email_confirmed_at end,
      banned_until = $7,
      email = coalesce($8, email),
      updated_at = now()
    where id = $1
"""
CHANGE_IDENTITY: Final = """
    update auth.identities set identity_data = identity_data || $2::text::jsonb, updated_at = now()
    where user_id = $1 and provider = 'email'
"""


@dataclass(frozen=True, slots=True)
class User:
    """One row as it was read. `identities` is None where the real server does not load them."""

    row: asyncpg.Record
    identities: list[asyncpg.Record] | None
    app_metadata: Metadata
    user_metadata: Metadata

    @property
    def id(self) -> UUID:
        """The id, `auth.uid()` of this person."""
        return cast(UUID, self.row["id"])

    @property
    def password(self) -> str:
        """What is kept of the password; empty without one."""
        return str(self.row["encrypted_password"] or "")

    @property
    def is_confirmed(self) -> bool:
        """Whether the e-mail address is confirmed."""
        return self.row["email_confirmed_at"] is not None

    @property
    def is_banned(self) -> bool:
        """Whether a ban lasts."""
        until = cast("datetime | None", self.row["banned_until"])
        return until is not None and until > datetime.now(UTC)

    def shown(self) -> dict[str, object]:
        """The JSON object of the API, without what it leaves out when empty."""
        row = self.row
        times = {name: _time(row[name]) for name in OPTIONAL_TIMES if row[name] is not None}
        shown: dict[str, object] = {"id": str(self.id), "aud": row["aud"] or "", "role": row["role"] or ""}
        shown |= {"email": row["email"] or "", "phone": row["phone"] or "", **times}
        shown |= {"app_metadata": self.app_metadata, "user_metadata": self.user_metadata}
        shown["identities"] = (
            None if self.identities is None else [_identity(each) for each in self.identities]
        )
        shown |= {"created_at": _time(row["created_at"]), "updated_at": _time(row["updated_at"])}
        return shown | {"is_anonymous": row["is_anonymous"]}


OPTIONAL_TIMES: Final = (
    "email_confirmed_at", "invited_at", "phone_confirmed_at", "confirmation_sent_at", "confirmed_at",
    "recovery_sent_at", "email_change_sent_at", "phone_change_sent_at", "reauthentication_sent_at",
    "last_sign_in_at", "banned_until", "deleted_at",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class NewUser:
    """Somebody to be made. `password` is what is to be kept of it."""

    email: str
    password: str
    is_confirmed: bool
    user_metadata: Metadata
    app_metadata: Metadata = field(default_factory=dict[str, object])
    identity_data: Metadata = field(default_factory=dict[str, object])
    role: str = AUDIENCE
    id: UUID = field(default_factory=uuid4)


@dataclass(frozen=True, slots=True)
class Change:
    """What is to become different; None leaves it. Metadata is merged, and null takes a key out."""

    password: str | None = None
    user_metadata: Metadata | None = None
    app_metadata: Metadata | None = None
    role: str | None = None
    email: str | None = None
    is_confirmed: bool = False
    banned_until: datetime | None = None
    unbanned: bool = False


def sound_email(email: str) -> str:
    """The address as it is kept, in lower case; raises AuthError for what is none."""
    if len(email.encode()) > LONGEST_EMAIL:
        raise invalid("An email address is too long")
    if not EMAIL.fullmatch(email):
        raise invalid("Unable to validate email address: invalid format")
    return email.lower()


async def by_email(connection: Connection, email: str) -> User | None:
    """Who has this address, in whatever case."""
    return await _read(connection, await connection.fetchrow(BY_EMAIL, INSTANCE, email, AUDIENCE))


async def by_id(connection: Connection, id_: UUID) -> User | None:
    """Who has this id."""
    return await _read(connection, await connection.fetchrow(BY_ID, INSTANCE, id_))


async def page(connection: Connection, number: int, size: int, containing: str) -> tuple[list[User], int]:
    """One page of people, the newest first, and how many there are; without their identities."""
    where = "where instance_id = $1 and aud = $2"
    values: list[object] = [INSTANCE, AUDIENCE]
    if containing:
        where += " and (email like $3 or raw_user_meta_data ->> 'full_name' ilike $3)"
        values.append(f"%{containing}%")
    rows = await connection.fetch(
        f"select * from auth.users {where} order by created_at desc limit {size} offset {size * (number - 1)}",
        *values,
    )
    total = await connection.fetchval(f"select count(*) from auth.users {where}", *values)
    return [_user(row, None) for row in rows], int(cast(int, total))


async def create(connection: Connection, new: NewUser) -> User:
    """Makes the person and the e-mail identity; call in a transaction. PostgresError as the database raises it."""
    provided: Metadata = {"provider": "email", "providers": ["email"]}
    confirmed: Metadata = {"email_verified": True} if new.is_confirmed else {}
    await connection.execute(
        INSERT_USER,
        *(INSTANCE, new.id, AUDIENCE, new.role, new.email, new.password, new.is_confirmed),
        *(json.dumps(_merged(provided, new.app_metadata)), json.dumps(new.user_metadata | confirmed)),
    )
    claims = {"sub": str(new.id), "email": new.email, "email_verified": False, "phone_verified": False}
    await connection.execute(INSERT_IDENTITY, new.id, json.dumps(new.identity_data | claims))
    made = await by_id(connection, new.id)
    if made is None:
        raise failure("Database error loading user after sign-up")  # a trigger has taken it away
    return made


async def change(connection: Connection, user: User, wanted: Change) -> User:
    """Changes the row and reads it again; call in a transaction."""
    metadata = _merged(user.user_metadata, wanted.user_metadata or {})
    if wanted.is_confirmed:
        metadata["email_verified"] = True
    banned_until = wanted.banned_until or (None if wanted.unbanned else user.row["banned_until"])
    await connection.execute(
        CHANGE,
        *(user.id, wanted.password, json.dumps(metadata)),
        *(json.dumps(_merged(user.app_metadata, wanted.app_metadata or {})), wanted.role),
        *(wanted.is_confirmed, banned_until, wanted.email),
    )
    if wanted.email is not None:
        claims = {"email": wanted.email, "email_verified": wanted.is_confirmed}
        await connection.execute(CHANGE_IDENTITY, user.id, json.dumps(claims))
    changed = await by_id(connection, user.id)
    if changed is None:
        raise failure("Error updating user")
    return changed


async def delete(connection: Connection, user: User) -> None:
    """Deletes the person with sessions and identities; PostgresError when other rows hold on to the person."""
    await connection.execute("delete from auth.users where id = $1", user.id)


async def _read(connection: Connection, row: asyncpg.Record | None) -> User | None:
    if row is None:
        return None
    nulls = [name for name in NEVER_NULL if row[name] is None]
    if nulls:
        LOG.warning(
            "auth.users has null in %s for %s: the real server fails on such a row, and so do we. "
            "Insert '' there, or make people through auth.admin.create_user.",
            ", ".join(nulls),
            row["id"],
        )
        raise failure("Database error querying schema")
    return _user(row, await connection.fetch(IDENTITIES, row["id"]))


def _user(row: asyncpg.Record, identities: list[asyncpg.Record] | None) -> User:
    return User(row, identities, _object(row["raw_app_meta_data"]), _object(row["raw_user_meta_data"]))


def _object(text: str | None) -> Metadata:
    value: object = json.loads(text or "{}")
    return cast(Metadata, value) if isinstance(value, dict) else {}


def _merged(old: Mapping[str, object], news: Mapping[str, object]) -> Metadata:
    both = {**old, **news}
    return {name: value for name, value in both.items() if value is not None or name not in news}


def _identity(row: asyncpg.Record) -> dict[str, object]:
    shown: dict[str, object] = {
        "identity_id": str(row["id"]),
        "id": row["provider_id"],
        "user_id": str(row["user_id"]),
        "identity_data": json.loads(row["identity_data"]),
        "provider": row["provider"],
    }
    if row["last_sign_in_at"] is not None:
        shown["last_sign_in_at"] = _time(row["last_sign_in_at"])
    shown |= {"created_at": _time(row["created_at"]), "updated_at": _time(row["updated_at"])}
    return shown | ({"email": row["email"]} if row["email"] else {})


def _time(value: datetime | None) -> str:
    """RFC 3339 in UTC; what is null in the row is the year 1, as in the real server."""
    if value is None:
        return "0001-01-01T00:00:00Z"
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
