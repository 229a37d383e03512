"""What the service key may do with people: make, list, look at, change and delete them."""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import urlencode
from uuid import UUID, uuid4

import asyncpg

from devstack.auth import passwords, sessions, users
from devstack.auth.call import Answer, Call, Params, uuid_or_none
from devstack.auth.errors import AuthError, failure, invalid, not_implemented
from devstack.auth.users import Change, NewUser, User

PER_PAGE: Final = 50
LARGEST_PAGE: Final = 10_000
ELSEWHERE: Final = ("phone", "password_hash", "aud")
DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(h|m|s|ms)")
UNITS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


async def create(call: Call) -> Answer:
    """Makes a person; unlike at sign-up, confirmed only if asked for, and with any password."""
    call.require_admin()
    params = call.params()
    _refuse_elsewhere(params)
    if not params.text("email"):
        raise invalid("Cannot create a user without either an email or phone")
    email = users.sound_email(params.text("email"))
    if await users.by_email(call.connection, email) is not None:
        raise _email_exists()
    password = params.text("password") or secrets.token_urlsafe(48)
    if len(password.encode()) > passwords.LONGEST:
        raise invalid(f"bcrypt: password length exceeds {passwords.LONGEST} bytes")
    new = NewUser(
        email,
        await passwords.kept(password),
        params.flag("email_confirm"),
        params.object("user_metadata") or {},
        params.object("app_metadata") or {},
        role=params.text("role").strip() or users.AUDIENCE,
        id=_id(params.text("id")),
    )
    async with call.connection.transaction():
        try:
            user = await users.create(call.connection, new)
        except asyncpg.PostgresError as error:
            raise failure("Database error creating new user") from error
        if params.text("ban_duration"):
            user = await users.change(call.connection, user, _ban(params.text("ban_duration")))
    return Answer(body=user.shown())


async def list_(call: Call) -> Answer:
    """One page of people, the newest first."""
    call.require_admin()
    if call.query.get("sort"):
        raise not_implemented(
            "The development stack lists people by age, the newest first, and in no other order."
        )
    number, size = _count(call, "page", 1), _count(call, "per_page", PER_PAGE)
    found, total = await users.page(call.connection, number, size, call.query.get("filter", ""))
    body = {"users": [user.shown() for user in found], "aud": users.AUDIENCE}
    return Answer(body=body, headers={"X-Total-Count": str(total), "Link": _links(call, number, size, total)})


async def get(call: Call) -> Answer:
    """One person."""
    return Answer(body=(await _somebody(call)).shown())


async def update(call: Call) -> Answer:
    """Changes a person. A new password signs out everywhere."""
    user = await _somebody(call)
    params = call.params()
    _refuse_elsewhere(params)
    email = users.sound_email(params.text("email")) if params.text("email") else None
    password = params.optional_text("password")
    kept: str | None = None
    if password is not None:
        passwords.check_strength(password, call.config.minimum_password_length)
        kept = await passwords.kept(password)
    ban = _ban(params.text("ban_duration"))
    wanted = Change(
        password=kept,
        user_metadata=params.object("user_metadata"),
        app_metadata=params.object("app_metadata"),
        role=params.text("role").strip() or None,
        email=email,
        is_confirmed=params.flag("email_confirm"),
        banned_until=ban.banned_until,
        unbanned=ban.unbanned,
    )
    try:
        async with call.connection.transaction():
            changed = await users.change(call.connection, user, wanted)
            if kept is not None:
                await sessions.end(call.connection, user.id, None, "global")
    except asyncpg.PostgresError as error:  # the address of somebody else among others
        raise failure("Error updating user") from error
    return Answer(body=changed.shown())


async def delete(call: Call) -> Answer:
    """Deletes a person with all sessions; tokens that are still out stay good for REST until they expire."""
    user = await _somebody(call)
    if call.body and call.params().flag("should_soft_delete"):
        raise not_implemented("The development stack deletes people for good; it has no soft delete.")
    try:
        await users.delete(call.connection, user)
    except asyncpg.PostgresError as error:  # rows that refer to the person, above all
        raise failure("Database error deleting user") from error
    return Answer(body={})


async def _somebody(call: Call) -> User:
    call.require_admin()
    id_ = uuid_or_none(call.id)
    if id_ is None:
        raise AuthError(404, "validation_failed", "user_id must be an UUID")
    user = await users.by_id(call.connection, id_)
    if user is None:
        raise AuthError(404, "user_not_found", "User not found")
    return user


def _id(given: str) -> UUID:
    if not given:
        return uuid4()
    id_ = uuid_or_none(given)
    if id_ is None:
        raise invalid("ID must conform to the uuid v4 format")
    if id_ == users.INSTANCE:
        raise invalid("ID cannot be a nil uuid")
    return id_


def _ban(duration: str) -> Change:
    if not duration:
        return Change()
    if duration == "none":
        return Change(unbanned=True)
    parts = list(DURATION.finditer(duration))
    if "".join(part[0] for part in parts) != duration:
        raise invalid(f'invalid format for ban duration: time: invalid duration "{duration}"')
    seconds = sum(float(part[1]) * UNITS[part[2]] for part in parts)
    return Change(banned_until=datetime.now(UTC) + timedelta(seconds=seconds))


def _refuse_elsewhere(params: Params) -> None:
    for name in ELSEWHERE:
        if params.members.get(name):
            raise not_implemented(f"{name} of a person is not part of the development stack.")


def _email_exists() -> AuthError:
    return AuthError(422, "email_exists", "A user with this email address has already been registered")


def _count(call: Call, name: str, default: int) -> int:
    text = call.query.get(name, "")
    if not text:
        return default
    if not re.fullmatch(r"\d{1,18}", text):
        raise invalid(f'Bad Pagination Parameters: strconv.ParseUint: parsing "{text}": invalid syntax')
    return min(max(int(text), 1), LARGEST_PAGE)


def _links(call: Call, number: int, size: int, total: int) -> str:
    last = -(-total // size)

    def link(to: int, rel: str) -> str:
        return f'</admin/users?{urlencode({**call.query, "page": to})}>; rel="{rel}"'

    following = [link(number + 1, "next")] if last > number else []
    return ", ".join([*following, link(last, "last")])
