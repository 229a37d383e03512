"""The official Python client gets what it expects from the REST side, with every kind of key."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import httpx
import pytest
from postgrest.exceptions import APIError
from supabase import AsyncClientOptions, acreate_client

from devstack.gateway import Gateway

OWN_ROWS = """
    alter table rls_jobs add column owner uuid default auth.uid();
    create policy own on rls_jobs to authenticated using (owner = auth.uid()) with check (owner = auth.uid());
"""
Connect = Callable[[str], Awaitable[Any]]  # the client's own types are partly unknown to the checkers
ALICE, BOB = "00000000-0000-4000-8000-00000000000a", "00000000-0000-4000-8000-00000000000b"


@pytest.fixture
async def stack(recorded_database: str) -> AsyncIterator[Gateway]:
    async with Gateway(recorded_database) as running:
        yield running


@pytest.fixture
async def connect(stack: Gateway) -> AsyncIterator[Connect]:
    """Makes clients that end with the test."""
    async with AsyncExitStack() as until_the_end:

        async def connected(key: str) -> Any:
            http = await until_the_end.enter_async_context(httpx.AsyncClient())
            return await acreate_client(stack.url, key, AsyncClientOptions(httpx_client=http))

        yield connected


@pytest.fixture
async def client(stack: Gateway, connect: Connect) -> Any:
    return await connect(stack.keys.secret)


async def test_insert_select_update_delete(client: Any) -> None:
    table = client.table("payment_jobs")
    inserted = await table.insert([{"job_type": "a", "priority": n} for n in range(3)]).execute()
    assert [row["priority"] for row in inserted.data] == [0, 1, 2]
    found = (
        await table.select("job_type, priority", count="exact").gte("priority", 1).order("priority").execute()
    )
    assert (found.count, found.data) == (2, [{"job_type": "a", "priority": n} for n in (1, 2)])
    assert len((await table.update({"status": "done"}).in_("priority", [0, 2]).execute()).data) == 2
    assert len((await table.delete().eq("status", "done").execute()).data) == 2
    one = await table.select("priority").single().execute()
    assert one.data == {"priority": 1}


async def test_upsert(client: Any) -> None:
    table = client.table("payment_jobs")
    row = {"job_type": "a", "dedup_key": "k"}
    await table.insert(row).execute()
    merged = await table.upsert({**row, "job_type": "b"}, on_conflict="dedup_key").execute()
    assert [each["job_type"] for each in merged.data] == ["b"]
    ignored = await table.upsert(row, on_conflict="dedup_key", ignore_duplicates=True).execute()
    assert ignored.data == []


async def test_rpc(client: Any) -> None:
    assert (await client.rpc("add", {"a": 1, "b": 2}).execute()).data == 3
    assert (await client.rpc("ret_json", {}).execute()).data == {"a": 1, "b": [1, 2]}
    assert (await client.rpc("ret_table", {"n": 1}).execute()).data == [{"x": 1, "y": "t1"}]
    assert (await client.rpc("add", {"a": 1, "b": 2}, get=True).execute()).data == 3


async def test_errors_keep_their_codes(client: Any) -> None:
    table = client.table("payment_jobs")
    await table.insert({"job_type": "a", "dedup_key": "k"}).execute()
    refused = {
        "23505": table.insert({"job_type": "a", "dedup_key": "k"}),
        "23502": table.insert({"job_type": None}),
        "PGRST204": table.insert({"nope": 1}),
        "42703": table.select("nope"),
        "PGRST116": table.select("*").eq("job_type", "none").single(),
        "PGRST205": client.table("nope").select("*"),
        "PGRST202": client.rpc("nope", {}),
        "PJ001": client.rpc("raise_custom", {}),
        "PT429": client.rpc("raise_pt429", {}),
        "57014": client.rpc("raise_57014", {}),
    }
    for code, request in refused.items():
        with pytest.raises(APIError) as error:
            await request.execute()
        assert error.value.code == code


@pytest.mark.parametrize("kind", ["publishable", "anon"])
async def test_keys_without_rights_have_none(stack: Gateway, connect: Connect, kind: str) -> None:
    client = await connect(getattr(stack.keys, kind))
    with pytest.raises(APIError) as error:
        await client.table("rls_jobs").insert({"id": 1}).execute()
    assert error.value.code == "42501"
    assert (await client.table("rls_jobs").select("*").execute()).data == []


@pytest.mark.parametrize("kind", ["secret", "service_role"])
async def test_keys_of_the_service_pass_row_level_security(
    stack: Gateway, connect: Connect, kind: str
) -> None:
    client = await connect(getattr(stack.keys, kind))
    await client.table("rls_jobs").insert({"id": 1}).execute()
    assert len((await client.table("rls_jobs").select("*").execute()).data) == 1


async def test_users_see_their_own_rows(stack: Gateway, connect: Connect, recorded_database: str) -> None:
    connection = await asyncpg.connect(recorded_database)
    await connection.execute(OWN_ROWS)
    await connection.close()
    seen = {}
    for number, user in enumerate((ALICE, BOB)):
        client = await connect(stack.keys.publishable)
        client.postgrest.auth(stack.keys.mint("authenticated", sub=user))
        await client.table("rls_jobs").insert({"id": number}).execute()
        seen[user] = [row["id"] for row in (await client.table("rls_jobs").select("id").execute()).data]
    assert seen == {ALICE: [0], BOB: [1]}
