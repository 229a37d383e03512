"""The official Python client gets what it expects from Auth, and the database knows who asks."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from postgrest.exceptions import APIError
from supabase_auth.errors import AuthApiError, AuthWeakPasswordError

from devstack.gateway import Gateway
from tests.contract.auth_people import ALICE, BOB, PASSWORD, Connect, connecting
from tests.waiting import until

NOTES = """
    create table notes (id int primary key, owner uuid default auth.uid() references auth.users on delete cascade);
    alter table notes enable row level security;
    create policy own on notes to authenticated using (owner = auth.uid()) with check (owner = auth.uid());
    grant select, insert, delete on notes to authenticated, service_role;
    alter publication supabase_realtime add table notes;
"""


@pytest.fixture
async def stack(gateway: Gateway, owner: "asyncpg.Connection[asyncpg.Record]") -> Gateway:
    await owner.execute(NOTES)
    return gateway


@pytest.fixture
async def connect(stack: Gateway) -> AsyncIterator[Connect]:
    async with connecting(stack.url) as connect:
        yield connect


@pytest.fixture
async def client(stack: Gateway, connect: Connect) -> Any:
    return await connect(stack.keys.publishable)


def _words(email: str, password: str = PASSWORD) -> dict[str, Any]:
    return {"email": email, "password": password}


async def test_a_life_with_a_password(client: Any) -> None:
    made = await client.auth.sign_up(
        _words(ALICE.upper()) | {"options": {"data": {"name": "Alice", "age": 3}}}
    )
    assert made.user.email == ALICE
    assert made.user.email_confirmed_at is not None
    assert made.user.user_metadata == {"name": "Alice", "age": 3, "email_verified": True}
    assert made.user.app_metadata == {"provider": "email", "providers": ["email"]}
    assert [identity.provider for identity in made.user.identities] == ["email"]
    await client.auth.sign_out()
    assert await client.auth.get_user() is None

    session = (await client.auth.sign_in_with_password(_words(ALICE))).session
    assert (session.token_type, session.expires_in) == ("bearer", 3600)
    assert (await client.auth.get_user()).user.id == made.user.id
    claims = (await client.auth.get_claims())["claims"]
    assert (claims["sub"], claims["role"], claims["aud"]) == (made.user.id, "authenticated", "authenticated")
    assert [method["method"] for method in claims["amr"]] == ["password"]

    refreshed = (await client.auth.refresh_session()).session
    assert refreshed.refresh_token != session.refresh_token

    changed = await client.auth.update_user({"password": "another", "data": {"age": None, "city": "Rome"}})
    assert changed.user.user_metadata == {"name": "Alice", "city": "Rome", "email_verified": True}
    with pytest.raises(AuthApiError, match="Invalid login credentials") as wrong:
        await client.auth.sign_in_with_password(_words(ALICE))
    assert (wrong.value.code, wrong.value.status) == ("invalid_credentials", 400)
    await client.auth.sign_in_with_password(_words(ALICE, "another"))


async def test_refusals_as_the_client_raises_them(client: Any) -> None:
    await client.auth.sign_up(_words(ALICE))
    with pytest.raises(AuthApiError, match="User already registered") as twice:
        await client.auth.sign_up(_words(ALICE, "something else"))
    assert (twice.value.code, twice.value.status) == ("user_already_exists", 422)
    with pytest.raises(AuthWeakPasswordError, match="at least 6 characters") as weak:
        await client.auth.sign_up(_words(BOB, "12345"))
    assert weak.value.reasons == ["length"]
    with pytest.raises(AuthApiError, match="New password should be different") as same:
        await client.auth.update_user({"password": PASSWORD})
    assert same.value.code == "same_password"
    with pytest.raises(AuthApiError, match="not part of the development stack") as elsewhere:
        await client.auth.sign_in_with_otp({"email": ALICE})
    assert elsewhere.value.status == 501


async def test_people_see_their_own_rows(stack: Gateway, connect: Connect) -> None:
    seen: dict[str, list[int]] = {}
    for number, email in enumerate((ALICE, BOB)):
        client = await connect(stack.keys.publishable)
        await client.auth.sign_up(_words(email))
        await client.table("notes").insert({"id": number}).execute()
        seen[email] = [row["id"] for row in (await client.table("notes").select("id").execute()).data]
    assert seen == {ALICE: [0], BOB: [1]}
    nobody = await connect(stack.keys.publishable)
    with pytest.raises(APIError) as refused:
        await nobody.table("notes").select("id").execute()
    assert refused.value.code == "42501"


async def test_people_hear_of_their_own_rows(stack: Gateway, connect: Connect) -> None:
    alice, bob = [await connect(stack.keys.publishable) for _ in range(2)]
    heard: list[int] = []
    told: list[str] = []
    await alice.auth.sign_up(_words(ALICE))
    await bob.auth.sign_up(_words(BOB))

    def hear(event: dict[str, Any]) -> None:
        heard.append(event["data"]["record"]["id"])

    def listen(message: object) -> None:
        told.append(str(message))

    channel = alice.channel("notes").on_system(listen)
    channel.on_postgres_changes("INSERT", hear, schema="public", table="notes")
    await channel.subscribe()
    await until("the client was told Subscribed to PostgreSQL", lambda: "Subscribed to Postgre" in str(told))
    await bob.table("notes").insert({"id": 1}).execute()
    await alice.table("notes").insert({"id": 2}).execute()
    await until("Alice heard of her row", lambda: 2 in heard)
    assert heard == [2]


async def test_admin_makes_finds_changes_and_deletes_people(stack: Gateway, connect: Connect) -> None:
    admin = (await connect(stack.keys.secret)).auth.admin
    words = _words(ALICE) | {"user_metadata": {"name": "A"}, "app_metadata": {"plan": "gold"}}
    made = (await admin.create_user(words | {"email_confirm": True})).user
    assert made.app_metadata == {"provider": "email", "providers": ["email"], "plan": "gold"}
    with pytest.raises(AuthApiError, match="already been registered") as twice:
        await admin.create_user(words)
    assert twice.value.code == "email_exists"
    unconfirmed = (await admin.create_user(_words(BOB))).user
    assert [user.id for user in await admin.list_users()] == [unconfirmed.id, made.id]
    assert [user.id for user in await admin.list_users(page=2, per_page=1)] == [made.id]

    client = await connect(stack.keys.publishable)
    with pytest.raises(AuthApiError, match="Email not confirmed") as early:
        await client.auth.sign_in_with_password(_words(BOB))
    assert early.value.code == "email_not_confirmed"
    banned = (await admin.create_user(_words("eve@example.com") | {"ban_duration": "1m"})).user
    assert banned.banned_until is not None
    await admin.delete_user(banned.id)
    joined = (await admin.create_user(_words("dan@example.com"))).user
    assert (await client.auth.sign_up(_words("dan@example.com", "any other"))).user.id == joined.id
    await client.auth.sign_in_with_password(_words("dan@example.com"))
    moved = await admin.update_user_by_id(
        unconfirmed.id, {"email": "carol@example.com", "email_confirm": True}
    )
    assert moved.user.identities[0].identity_data["email"] == "carol@example.com"
    await client.auth.sign_in_with_password(_words("carol@example.com"))

    await admin.update_user_by_id(unconfirmed.id, {"ban_duration": "1h30m"})
    with pytest.raises(AuthApiError, match="Banned"):
        await client.auth.refresh_session()
    await admin.update_user_by_id(unconfirmed.id, {"ban_duration": "none"})
    await client.auth.sign_in_with_password(_words("carol@example.com"))

    await admin.delete_user(unconfirmed.id)
    with pytest.raises(AuthApiError, match="User not found") as gone:
        await admin.get_user_by_id(unconfirmed.id)
    assert gone.value.code == "user_not_found"
    assert (await admin.get_user_by_id(made.id)).user.email == ALICE


async def test_only_the_service_key_is_an_admin(client: Any) -> None:
    await client.auth.sign_up(_words(ALICE))
    with pytest.raises(AuthApiError) as refused:
        await client.auth.admin.list_users()
    assert (refused.value.code, refused.value.status) == ("not_admin", 403)


@pytest.mark.parametrize(
    ("scope", "left"), [("local", [BOB, "other"]), ("others", [BOB, "own"]), ("global", [BOB])]
)
async def test_scopes_of_signing_out(stack: Gateway, connect: Connect, scope: str, left: list[str]) -> None:
    clients = {name: await connect(stack.keys.publishable) for name in (BOB, "own", "other")}
    await clients[BOB].auth.sign_up(_words(BOB))
    await clients["own"].auth.sign_up(_words(ALICE))
    await clients["other"].auth.sign_in_with_password(_words(ALICE))
    tokens = {name: (await each.auth.get_session()).access_token for name, each in clients.items()}
    await clients["own"].auth.sign_out({"scope": scope})
    asking = await connect(stack.keys.publishable)

    async def found(token: str) -> str | None:
        try:
            await asking.auth.get_user(token)
        except AuthApiError as error:
            return error.code
        return None

    refused = await asyncio.gather(*(found(token) for token in tokens.values()))
    assert dict(zip(tokens, refused, strict=True)) == {
        name: None if name in left else "session_not_found" for name in clients
    }
