"""Whose credentials open an account: where they are looked for, and that nothing tells them."""

import json
from typing import cast
from uuid import UUID, uuid4

import pytest

from handlers import resources
from handlers.clients.broker.brokers import Account, Brokers, Connection, NotOpened
from handlers.clients.database import Database
from listener.resources import opened, resources_in
from tests.handlers.conftest import Owner

SECRET = "planted-broker-secret-0123"
NO_DATABASE = cast("Database", None)  # nobody asks it for what is in the environment


def a_connection(
    broker: str = "toy", *, id_: UUID | None = None, credentials_env: str | None = None
) -> Connection:
    return Connection(id_ or uuid4(), uuid4(), broker, "paper", 1, {}, credentials_env)


async def read(db: Database, connection: Connection, settings: dict[str, str], *names: str) -> dict[str, str]:
    return (await Account(connection, settings, db).credentials(*(names or ("key_id", "secret_key")))).values


IN_ENVIRONMENT = a_connection(credentials_env="BROKER_ALPACA")


@pytest.mark.parametrize(
    "settings",
    [
        {"BROKER_ALPACA_KEY_ID": "PK1", "BROKER_ALPACA_SECRET_KEY": SECRET},
        {"BROKER_ALPACA": json.dumps({"key_id": "PK1", "secret_key": SECRET, "more": "than that"})},
    ],
    ids=["two variables", "one of JSON"],
)
async def test_credentials_are_in_the_environment_under_the_name_that_the_connection_says(
    settings: dict[str, str],
) -> None:
    assert await read(NO_DATABASE, IN_ENVIRONMENT, settings) == {"key_id": "PK1", "secret_key": SECRET}


@pytest.mark.parametrize(
    "name",
    ["STRIPE_SECRET_KEY", "SUPABASE_SERVICE_ROLE_KEY", "BROKER_CALLBACK_SECRET", "BROKER_"],
)
async def test_no_other_variable_is_read_for_a_row(name: str) -> None:
    connection = a_connection(credentials_env=name)
    settings = {name: json.dumps({"key_id": SECRET, "secret_key": SECRET}), f"{name}_KEY_ID": SECRET}
    with pytest.raises(NotOpened, match="has to begin with BROKER_") as told:
        await read(NO_DATABASE, connection, settings)
    assert SECRET not in str(told.value)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "set BROKER_ALPACA_KEY_ID and BROKER_ALPACA_SECRET_KEY, or BROKER_ALPACA to a JSON object"),
        ({"BROKER_ALPACA_KEY_ID": SECRET}, "lack secret_key"),
        ({"BROKER_ALPACA": SECRET}, "BROKER_ALPACA has to be a JSON object of strings"),
        ({"BROKER_ALPACA": json.dumps([SECRET])}, "BROKER_ALPACA has to be a JSON object of strings"),
        ({"BROKER_ALPACA": json.dumps({"key_id": {"a": SECRET}})}, "has to be a JSON object of strings"),
        ({"BROKER_ALPACA": json.dumps({"key_id": SECRET})}, "lack secret_key"),
        ({"BROKER_ALPACA": json.dumps({"key_id": SECRET, "secret_key": ""})}, "lack secret_key"),
    ],
)
async def test_what_is_missing_is_told_by_its_name_and_nothing_else_is(
    settings: dict[str, str], says: str
) -> None:
    with pytest.raises(NotOpened, match=says) as told:
        await read(NO_DATABASE, IN_ENVIRONMENT, settings)
    assert SECRET not in str(told.value)
    assert told.value.__suppress_context__ or told.value.__context__ is None


async def test_a_connection_without_credentials_says_where_they_belong(db: Database, owner: Owner) -> None:
    found = await owner.fetchval(
        "insert into broker_connections (user_id, broker) values (gen_random_uuid(), 'toy') returning id"
    )
    with pytest.raises(NotOpened, match=r"credentials_secret_id .* credentials_env"):
        await read(db, a_connection(id_=found), {})


async def test_credentials_come_out_of_vault_by_the_version_that_is_known(db: Database, owner: Owner) -> None:
    secret = await owner.fetchval(
        "select vault.create_secret($1)", json.dumps({"key_id": "PK1", "secret_key": SECRET})
    )
    found = await owner.fetchval(
        "insert into broker_connections (user_id, broker, credentials_secret_id)"
        " values (gen_random_uuid(), 'toy', $1) returning id",
        secret,
    )
    connection = a_connection(id_=found)
    assert await read(db, connection, {}) == {"key_id": "PK1", "secret_key": SECRET}
    await owner.execute("update broker_connections set credentials_secret_id = null where id = $1", found)
    with pytest.raises(NotOpened, match="have just changed"):
        await read(db, connection, {})


async def test_nothing_that_is_printed_of_an_account_has_its_secrets() -> None:
    settings = {"BROKER_ALPACA_KEY_ID": "PK1", "BROKER_ALPACA_SECRET_KEY": SECRET}
    account = Account(IN_ENVIRONMENT, settings, NO_DATABASE)
    found = await account.credentials("key_id", "secret_key")
    assert SECRET in account.secrets
    assert SECRET not in repr([account, found, IN_ENVIRONMENT])


async def test_a_process_opens_the_resource_without_any_secret_of_a_broker(
    environment: dict[str, str],
) -> None:
    needed = resources_in(resources)[Brokers]
    assert not [one.name for one in needed.settings if one.required and "SUPABASE" not in one.name]
    async with opened([needed], environment) as found:
        brokers = found[Brokers]
        assert isinstance(brokers, Brokers)
        with pytest.raises(NotOpened, match="no credentials for the alpaca connection"):
            async with brokers.at(a_connection("alpaca", credentials_env="BROKER_ALPACA")):
                pytest.fail("it was opened")
