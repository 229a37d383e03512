"""What opens an account comes from Vault, and whatever is wrong with that is said with the mend."""

import json
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import asyncpg
import pytest

from devstack.postgres import SUPERUSER
from listener.migrate import migrate, migrations
from tests.sql.calls import Calls, Connection, Json

SECRET = '{"key_id": "PK7", "secret_key": "not-for-logs"}'


@pytest.fixture
async def superuser(database: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(database, user=SUPERUSER)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture
async def account(owner: Connection) -> UUID:
    """An account whose credentials are in Vault."""
    made = await owner.fetchval(
        "insert into broker_connections (user_id, broker, credentials_secret_id)"
        " values (gen_random_uuid(), 'alpaca', vault.create_secret($1, 'alpaca')) returning id",
        SECRET,
    )
    assert isinstance(made, UUID)
    return made


async def credentials(server: Calls, account: UUID, version: int = 1) -> Json:
    told: Json = json.loads(await server.value("select broker_credentials($1, $2)", account, version))
    return told


async def test_what_vault_keeps_is_what_the_worker_gets(server: Calls, account: UUID) -> None:
    assert await credentials(server, account) == {"version": 1, "secret": SECRET}


async def test_an_account_without_a_secret_in_vault_has_none(server: Calls, owner: Connection) -> None:
    made = await owner.fetchval(
        "insert into broker_connections (user_id, broker, credentials_env)"
        " values (gen_random_uuid(), 'alpaca', 'ALPACA') returning id"
    )
    assert await credentials(server, made) == {"version": 1, "secret": None}


async def test_new_credentials_are_a_new_version_and_the_newest_is_given(
    server: Calls, owner: Connection, account: UUID
) -> None:
    await owner.execute("update broker_connections set label = 'mine', credentials_env = credentials_env")
    assert (await credentials(server, account))["version"] == 1
    await owner.execute("update broker_connections set credentials_secret_id = vault.create_secret('{}')")
    assert await credentials(server, account, version=1) == {"version": 2, "secret": "{}"}
    with pytest.raises(asyncpg.NoDataFoundError, match="no credentials 3 yet"):
        await credentials(server, account, version=3)


async def test_new_credentials_open_an_account_that_the_old_ones_were_locked_out_of(
    owner: Connection, account: UUID
) -> None:
    locked = "update broker_connections set status = 'locked_out', status_reason = 'bad', failures = 3"
    await owner.execute(locked)
    await owner.execute("update broker_connections set label = 'mine'")
    state = "select status, status_reason, failures from broker_connections"
    assert tuple(await owner.fetchrow(state) or ()) == ("locked_out", "bad", 3)
    await owner.execute("update broker_connections set credentials_secret_id = vault.create_secret('{}')")
    assert tuple(await owner.fetchrow(state) or ()) == ("active", None, 0)


async def test_a_secret_that_vault_does_not_have_is_told_with_the_mend(
    server: Calls, owner: Connection, account: UUID
) -> None:
    await owner.execute("delete from vault.secrets")
    with pytest.raises(asyncpg.PostgresError, match=r"Vault has no secret .*vault\.create_secret"):
        await credentials(server, account)


async def test_a_database_without_vault_takes_our_files_and_says_what_to_do(fresh: str) -> None:
    superuser = await asyncpg.connect(fresh, user=SUPERUSER)
    try:
        await superuser.execute("drop schema vault cascade")
        await migrate(fresh, migrations())
        made = await superuser.fetchval(
            "insert into broker_connections (user_id, broker, credentials_secret_id)"
            " values (gen_random_uuid(), 'alpaca', gen_random_uuid()) returning id"
        )
        with pytest.raises(asyncpg.PostgresError, match=r"no Vault.*supabase_vault.*credentials_env"):
            await credentials(Calls(superuser), made)
    finally:
        await superuser.close()


async def test_a_vault_that_does_not_open_for_the_owner_names_the_grants(
    server: Calls, superuser: Connection, account: UUID
) -> None:
    await superuser.execute(
        "alter function broker_credentials owner to supabase_storage_admin;"
        "grant select on broker_connections to supabase_storage_admin;"
        "create policy stranger on broker_connections for select to supabase_storage_admin using (true)"
    )
    told = (
        r"does not open for supabase_storage_admin: `grant usage on schema vault to supabase_storage_admin`"
    )
    with pytest.raises(asyncpg.PostgresError, match=told):
        await credentials(server, account)


async def test_an_account_that_is_not_there_is_told(server: Calls) -> None:
    with pytest.raises(asyncpg.NoDataFoundError, match="there is no account"):
        await credentials(server, uuid4())
