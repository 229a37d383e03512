"""The stand-in for Vault: what the real extension's callers rely on."""

from collections.abc import AsyncIterator
from typing import TypeAlias

import asyncpg
import pytest

from devstack.postgres import SUPERUSER, bootstrap

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@pytest.fixture(params=["postgres", "service_role"])
async def session(fresh: str, request: pytest.FixtureRequest) -> AsyncIterator[Connection]:
    """A new project as somebody who may use Vault."""
    connection = await asyncpg.connect(fresh)
    try:
        await connection.execute(f"set role {request.param}")
        yield connection
    finally:
        await connection.close()


async def test_a_secret_is_made_read_changed_in_part_and_deleted(session: Connection) -> None:
    made = await session.fetchval("select vault.create_secret('sécret', 'mine', 'what opens it')")
    [row] = await session.fetch("select * from vault.decrypted_secrets")
    assert (row["id"], row["name"], row["description"]) == (made, "mine", "what opens it")
    assert row["decrypted_secret"] == "sécret" != row["secret"]
    await session.execute("select vault.update_secret($1, new_secret => 'other')", made)
    await session.execute("select vault.update_secret($1, new_description => 'new words')", made)
    [row] = await session.fetch("select * from vault.decrypted_secrets")
    assert (row["decrypted_secret"], row["name"], row["description"]) == ("other", "mine", "new words")
    await session.execute("delete from vault.secrets where id = $1", made)
    assert await session.fetch("select from vault.decrypted_secrets") == []


async def test_a_name_is_taken_once_and_none_is_needed(session: Connection) -> None:
    await session.execute("select vault.create_secret('a'), vault.create_secret('b')")
    await session.execute("select vault.create_secret('a', 'mine')")
    with pytest.raises(asyncpg.UniqueViolationError):
        await session.execute("select vault.create_secret('b', 'mine')")


async def test_columns_are_those_of_the_extension(session: Connection) -> None:
    columns = "id name description secret key_id nonce created_at updated_at".split()
    for table, names in (
        ("secrets", columns),
        ("decrypted_secrets", [*columns[:4], "decrypted_secret", *columns[4:]]),
    ):
        rows = await session.fetch(
            "select attname from pg_attribute where attrelid = $1::text::regclass and attnum > 0 order by attnum",
            f"vault.{table}",
        )
        assert [row["attname"] for row in rows] == names


@pytest.mark.parametrize("role", ["anon", "authenticated"])
async def test_users_do_not_even_see_the_schema(fresh: str, role: str) -> None:
    connection = await asyncpg.connect(fresh)
    try:
        await connection.execute(f"set role {role}")
        for statement in ("select * from vault.decrypted_secrets", "select vault.create_secret('a')"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
    finally:
        await connection.close()


async def test_secrets_outlive_another_start(fresh: str, cluster_superuser: str) -> None:
    connection = await asyncpg.connect(fresh)
    try:
        await connection.execute("select vault.create_secret('a', 'mine')")
        await bootstrap(cluster_superuser)
        secret = "select decrypted_secret from vault.decrypted_secrets where name = 'mine'"
        assert await connection.fetchval(secret) == "a"
    finally:
        await connection.close()


@pytest.fixture
def cluster_superuser(fresh: str) -> str:
    return fresh.replace("//postgres", f"//{SUPERUSER}", 1)
