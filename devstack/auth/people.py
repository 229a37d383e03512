"""What a person does with Auth: sign up, sign in, refresh, look at and change oneself, sign out."""

from __future__ import annotations

import time
from typing import Final

import asyncpg

from devstack.auth import passwords, sessions, tokens, users
from devstack.auth.call import Answer, Call
from devstack.auth.errors import AuthError, failure, invalid, not_implemented, wrong_credentials
from devstack.auth.sessions import Session
from devstack.auth.users import Change, NewUser

GRANTS_ELSEWHERE: Final = ("id_token", "pkce", "web3")
SCOPES: Final = ("global", "local", "others")


async def sign_up(call: Call) -> Answer:
    """Makes a person, confirmed at once, and signs in.

    Somebody whom the admin made and who is not confirmed yet is confirmed and signed in as well, whatever the
    password: so does the real server where addresses are confirmed at once.
    """
    if not call.config.enable_signup:
        raise AuthError(422, "signup_disabled", "Signups not allowed for this instance")
    params = call.params()
    email, phone, password = params.text("email"), params.text("phone"), params.text("password")
    data = params.object("data") or {}
    if not email and not phone:
        raise AuthError(422, "anonymous_provider_disabled", "Anonymous sign-ins are disabled")
    if not password:
        raise invalid("Signup requires a valid password")
    passwords.check_strength(password, call.config.minimum_password_length)
    if email and phone:
        raise invalid("Only an email address or phone number should be provided on signup.")
    if phone:
        raise AuthError(400, "phone_provider_disabled", "Phone signups are disabled")
    address = users.sound_email(email)
    known = await users.by_email(call.connection, address)
    if known is not None and known.is_confirmed:
        raise AuthError(422, "user_already_exists", "User already registered")
    new = NewUser(address, await passwords.kept(password), True, data, identity_data=data)
    async with call.connection.transaction():
        try:
            if known is None:
                user = await users.create(call.connection, new)
            else:
                user = await users.change(call.connection, known, Change(is_confirmed=True))
        except asyncpg.PostgresError as error:
            raise failure("Database error saving new user") from error
        session = await sessions.begin(call.connection, user, call.caller)
    return Answer(body=await _shown(call, session))


async def token(call: Call) -> Answer:
    """Gives tokens for a password or a refresh token."""
    grant = call.query.get("grant_type", "")
    if grant == "password":
        return await _sign_in(call)
    if grant == "refresh_token":
        return await _refresh(call)
    if grant in GRANTS_ELSEWHERE:
        raise not_implemented(
            f"The grant {grant} is not part of the development stack; it has password and refresh_token."
        )
    raise AuthError(400, "invalid_credentials", "unsupported_grant_type")


async def get_user(call: Call) -> Answer:
    """Who one is."""
    person = await call.person()
    if tokens.audience(person.claims) is None:
        raise invalid("Token audience doesn't match request audience")
    return Answer(body=person.user.shown())


async def put_user(call: Call) -> Answer:
    """Changes password and metadata. A new password signs out everywhere else."""
    person = await call.person()
    params, user = call.params(), person.user
    password = params.optional_text("password")
    email = params.text("email")
    if email and users.sound_email(email) != user.row["email"]:
        raise not_implemented(
            "Changing one's address takes a confirmation by mail, and the development stack sends none; "
            "auth.admin.update_user_by_id changes it at once."
        )
    if params.text("phone"):
        raise not_implemented("Phone numbers are not part of the development stack.")
    if password is not None:
        passwords.check_strength(password, call.config.minimum_password_length)
    if params.object("app_metadata") is not None:
        raise AuthError(403, "not_admin", "Updating app_metadata requires admin privileges")
    if password and user.password and await passwords.is_right(password, user.password, call.connection):
        message = "New password should be different from the old password."
        raise AuthError(422, "same_password", message)
    kept = None if password is None else await passwords.kept(password)
    async with call.connection.transaction():
        if kept is not None:
            scope = "others" if person.session else "global"
            await sessions.end(call.connection, user.id, person.session, scope)
        changed = await users.change(
            call.connection, user, Change(password=kept, user_metadata=params.object("data"))
        )
    return Answer(body=changed.shown())


async def sign_out(call: Call) -> Answer:
    """Ends sessions: this one, all but this one, or all."""
    person = await call.person()
    scope = call.query.get("scope") or "global"
    if scope not in SCOPES:
        raise invalid(f'Unsupported logout scope "{scope}"')
    await sessions.end(call.connection, person.user.id, person.session, scope)
    return Answer(204)


async def _sign_in(call: Call) -> Answer:
    params = call.params()
    email, phone, password = params.text("email"), params.text("phone"), params.text("password")
    if email and phone:
        raise invalid("Only an email address or phone number should be provided on login.")
    if phone:
        raise AuthError(422, "phone_provider_disabled", "Phone logins are disabled")
    if not email:
        raise invalid("missing email or phone")
    user = await users.by_email(call.connection, email)
    if user is None or not user.password:
        await passwords.is_right(password, passwords.NOBODY, call.connection)
        raise wrong_credentials()
    if user.is_banned:
        raise AuthError(400, "user_banned", "User is banned")
    if not await passwords.is_right(password, user.password, call.connection):
        raise wrong_credentials()
    if not user.is_confirmed:
        raise AuthError(400, "email_not_confirmed", "Email not confirmed")
    async with call.connection.transaction():
        session = await sessions.begin(call.connection, user, call.caller)
    return Answer(body=await _shown(call, session) | _weakness(call, password))


async def _refresh(call: Call) -> Answer:
    shown = call.params().text("refresh_token")
    async with (
        call.connection.transaction()
    ):  # committed whatever the answer: a reused token ends its session
        session = await sessions.refresh(
            call.connection, shown, call.caller, call.config.refresh_token_reuse_interval
        )
    if isinstance(session, AuthError):
        raise session
    return Answer(body=await _shown(call, session))


async def _shown(call: Call, session: Session) -> dict[str, object]:
    now, seconds = int(time.time()), call.config.jwt_expiry
    claims = tokens.claims_of(session.user, issuer=call.issuer, seconds=seconds, now=now)
    amr = await sessions.methods(call.connection, session.id)
    return {
        "access_token": tokens.access_token(claims, session.id, amr, call.keys),
        "token_type": "bearer",
        "expires_in": seconds,
        "expires_at": now + seconds,
        "refresh_token": session.refresh_token,
        "user": session.user.shown(),
    }


def _weakness(call: Call, password: str) -> dict[str, object]:
    try:
        passwords.check_strength(password, call.config.minimum_password_length)
    except AuthError as error:
        if error.reasons:
            return {"weak_password": {"message": error.message, "reasons": list(error.reasons)}}
    return {}
