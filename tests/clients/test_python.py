"""The official Python clients do what users do: tables, functions, people, and changes as they happen."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from postgrest.exceptions import APIError
from realtime.exceptions import RealtimeHTTPError
from supabase_auth.errors import AuthApiError

from tests.clients.conftest import Project
from tests.contract.auth_people import PASSWORD, Connect, connecting
from tests.waiting import until


@pytest.fixture
async def connect(project: Project) -> AsyncIterator[Connect]:
    async with connecting(project.url) as connect:
        yield connect


async def test_tables_and_functions(project: Project, connect: Connect) -> None:
    client = await connect(project.key)
    authors = f"{project.prefix}_authors"
    await client.table(authors).insert([{"id": 1, "name": "Ada"}, {"id": 2, "name": "Bob"}]).execute()
    found = (
        await client.table(authors).select("id", count="exact").gt("id", 0).order("id", desc=True).execute()
    )
    assert (found.data, found.count) == ([{"id": 2}, {"id": 1}], 2)
    page = await client.table(authors).select("name").order("id").range(1, 1).execute()
    assert page.data == [{"name": "Bob"}]
    merged = await client.table(authors).upsert({"id": 2, "name": "Ben"}).execute()
    assert merged.data[0]["name"] == "Ben"
    assert (await client.table(authors).select("name").eq("id", 2).single().execute()).data == {"name": "Ben"}
    assert await client.table(authors).select("name").eq("id", 9).maybe_single().execute() is None
    assert (await client.rpc(f"{project.prefix}_add", {"a": 2, "b": 3}).execute()).data == 5
    with pytest.raises(APIError) as refused:
        await client.table(authors).insert({"id": 1, "name": "Zoe"}).execute()
    assert refused.value.code == "23505"
    assert len((await client.table(authors).delete().eq("id", 1).execute()).data) == 1


async def test_people_and_their_rows(project: Project, connect: Connect) -> None:
    client, admin = await connect(project.key), (await connect(project.secret)).auth.admin
    email, notes = f"{project.prefix}.pia@example.com", f"{project.prefix}_notes"
    made = (await client.auth.sign_up({"email": email, "password": PASSWORD})).user
    await client.table(notes).insert({"body": "mine"}).execute()
    assert (await client.table(notes).select("owner").execute()).data == [{"owner": made.id}]
    refreshed = (await client.auth.refresh_session()).session
    assert (await client.auth.get_user(refreshed.access_token)).user.email == email
    await client.auth.sign_out()
    with pytest.raises(APIError) as nobody:
        await client.table(notes).select("owner").execute()
    assert nobody.value.code == "42501"
    with pytest.raises(AuthApiError) as wrong:
        await client.auth.sign_in_with_password({"email": email, "password": "wrong"})
    assert wrong.value.code == "invalid_credentials"
    await admin.delete_user(made.id)
    with pytest.raises(AuthApiError) as gone:
        await admin.get_user_by_id(made.id)
    assert gone.value.code == "user_not_found"


async def test_changes_of_ones_own_rows(project: Project, connect: Connect) -> None:
    una, max_ = await connect(project.key), await connect(project.key)
    notes = f"{project.prefix}_notes"
    for name, client in (("una", una), ("max", max_)):
        await client.auth.sign_up({"email": f"{project.prefix}.{name}@example.com", "password": PASSWORD})
    async with _listening(una, notes) as heard:
        await max_.table(notes).insert({"body": "hers"}).execute()
        await una.table(notes).insert({"body": "mine"}).execute()
        await until("she heard of her own row", lambda: "mine" in heard)
        assert heard == ["mine"]


async def test_broadcast_and_presence(project: Project, connect: Connect) -> None:
    una, max_ = await connect(project.key), await connect(project.key)
    name = f"{project.prefix} room"
    config = {
        "config": {"broadcast": {"self": True, "ack": True}, "presence": {"key": "una", "enabled": True}}
    }
    hers, his = una.channel(name, config), max_.channel(name, {"config": {"presence": {"key": "max"}}})
    heard: list[int] = []
    joined: list[str] = []

    def hear(event: dict[str, Any]) -> None:
        heard.append(event["payload"]["n"])

    def see(key: str, *_: object) -> None:
        joined.append(key)

    hers.on_broadcast("word", hear).on_presence_join(see)
    await hers.subscribe()
    await his.subscribe()
    await hers.send_broadcast("word", {"n": 1})
    await until("her own word came back", lambda: heard == [1])
    await his.send_broadcast("word", {"n": 2})
    await until("his word came", lambda: heard == [1, 2])
    await his.track({"mood": "fine"})
    await until("she saw him come", lambda: "max" in joined)
    assert [each["mood"] for each in hers.presence_state()["max"]] == ["fine"]
    await his.untrack()
    await until("she saw him go", lambda: "max" not in hers.presence_state())


async def test_broadcast_over_http_from_the_database_and_replayed(project: Project, connect: Connect) -> None:
    una, max_ = await connect(project.key), await connect(project.key)
    heard: list[tuple[str, bool]] = []

    def hear(event: dict[str, Any]) -> None:
        heard.append((event["payload"]["body"], "replayed" in str(event.get("meta"))))

    private: dict[str, Any] = {"private": True, "broadcast": {"replay": {"since": 0, "limit": 1}}}
    topic = f"{project.prefix} wire"
    with pytest.raises(RealtimeHTTPError, match="Unauthorized"):
        await max_.channel(topic, {"config": private}).http_send("shout", {"body": "let me in"})
    await una.auth.sign_up({"email": f"{project.prefix}.una@example.com", "password": PASSWORD})
    for body in ("long ago", "before"):
        await una.rpc(f"{project.prefix}_shout", {"topic": topic, "body": body}).execute()
    hers = una.channel(topic, {"config": private}).on_broadcast("shout", hear)
    await hers.subscribe()
    await until("what was said before came again", lambda: len(heard) == 1)
    await una.rpc(f"{project.prefix}_shout", {"topic": topic, "body": "by the database"}).execute()
    await until("the database was heard", lambda: len(heard) == 2)
    await una.channel(topic, {"config": private}).http_send("shout", {"body": "over HTTP"})
    await until("the letter came", lambda: len(heard) == 3)
    assert heard == [("before", True), ("by the database", False), ("over HTTP", False)]


@contextlib.asynccontextmanager
async def _listening(client: Any, table: str) -> AsyncIterator[list[str]]:
    """The bodies of rows as this client hears of them."""
    heard: list[str] = []
    told: list[str] = []

    def hear(event: dict[str, Any]) -> None:
        heard.append(event["data"]["record"]["body"])

    def listen(message: object) -> None:
        told.append(str(message))

    channel = client.channel(table).on_system(listen)
    channel.on_postgres_changes("INSERT", hear, schema="public", table=table)
    await channel.subscribe()
    await until("the client was told Subscribed to PostgreSQL", lambda: "Subscribed to Postgre" in str(told))
    yield heard
    await client.remove_channel(channel)
