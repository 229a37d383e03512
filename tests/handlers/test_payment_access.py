"""Users read their own and write nothing; a service key reads all and writes through functions alone."""

from uuid import UUID, uuid4

import asyncpg
import pytest

from devstack.stripe.double import StripeDouble
from tests.handlers.conftest import Attempt, Owner

TABLES = (
    "subscription_tiers",
    "billing_customers",
    "subscriptions",
    "user_subscriptions",
    "payments",
    "stripe_events",
)
OWN = ("subscriptions", "user_subscriptions", "payments")
CALLABLE = (
    "receive_stripe_event('{}')",
    "draw_stripe_ticket()",
    "apply_stripe_event('evt_1', 1, '{}')",
    "sync_stripe_subscriptions(1, '[]')",
    "enqueue_lost_stripe_events('[]')",
)
FUNCTIONS = (
    *CALLABLE,
    "follow_waiting_stripe_events('{}')",
    "owner_of_stripe_objects('{}')",
    "write_stripe_customer('{}', 1)",
    "write_stripe_subscription(null)",
    "stripe_words(null)",
    "write_stripe_payment(null, false, '{}')",
    "write_stripe_money_back(null, '{}')",
    "send_stripe_notices('[]', null, null)",
    "write_stripe_look(1, '{}')",
)


@pytest.fixture
async def other(follow: Attempt, double: StripeDouble, user_id: UUID) -> UUID:
    """A second user with rows of the same kinds as the first."""
    other = uuid4()
    for one in (user_id, other):
        for event in double.story(one, tells_user="subscription").begin():
            await follow(event)
    return other


async def become(owner: Owner, role: str, user_id: UUID | None = None) -> None:
    claims = f'{{"sub": "{user_id}", "role": "{role}"}}' if user_id else "{}"
    await owner.execute(f"select set_config('request.jwt.claims', '{claims}', false)")
    await owner.execute(f"set role {role}")


async def test_users_see_their_own_rows_and_nobody_elses(owner: Owner, user_id: UUID, other: UUID) -> None:
    for one in (user_id, other):
        await become(owner, "authenticated", one)
        for table in OWN:
            assert [row["user_id"] for row in await owner.fetch(f"select user_id from {table}")] == [one]
        await owner.execute("reset role")


@pytest.mark.parametrize("role", ["anon", "authenticated"])
async def test_the_rest_is_closed_to_users(owner: Owner, user_id: UUID, role: str) -> None:
    await become(owner, role, user_id)
    readable = {"subscription_tiers", *(OWN if role == "authenticated" else ())}
    for table in set(TABLES) - readable:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await owner.fetch(f"select * from {table}")


@pytest.mark.parametrize("role", ["anon", "authenticated", "service_role"])
@pytest.mark.parametrize("table", TABLES)
async def test_nobody_writes_a_table(owner: Owner, role: str, table: str) -> None:
    whole = "insert, update, delete, truncate, references, trigger"
    assert not await owner.fetchval("select has_table_privilege($1, $2, $3)", role, table, whole)
    columns = "insert, update, references"
    assert not await owner.fetchval("select has_any_column_privilege($1, $2, $3)", role, table, columns)


async def test_a_service_key_reads_everything(owner: Owner, other: UUID) -> None:
    await become(owner, "service_role")
    for table in set(TABLES) - {"subscription_tiers"}:
        assert len(await owner.fetch(f"select * from {table}")) >= 2


@pytest.mark.parametrize("function", FUNCTIONS, ids=[one.partition("(")[0] for one in FUNCTIONS])
@pytest.mark.parametrize("role", ["anon", "authenticated", "service_role"])
async def test_only_a_service_key_calls_what_handlers_call(owner: Owner, role: str, function: str) -> None:
    await become(owner, role)
    may = role == "service_role" and function in CALLABLE
    refused: Exception | None = None
    try:
        await owner.execute(f"select {function}")
    except asyncpg.PostgresError as error:
        refused = error
    assert isinstance(refused, asyncpg.InsufficientPrivilegeError) != may


async def test_anyone_sees_the_tiers_on_sale(owner: Owner) -> None:
    await owner.execute(
        "insert into subscription_tiers (slug, name, price_monthly, active)"
        " values ('pro', 'Pro', 29, true), ('gone', 'Gone', 9, false)"
    )
    await become(owner, "anon")
    assert await owner.fetchval("select array_agg(slug) from subscription_tiers") == ["pro"]


async def test_the_subscription_that_counts_is_found_by_index(owner: Owner, user_id: UUID) -> None:
    await owner.execute("set enable_seqscan = off")
    plan = await owner.fetch(f"explain select status from user_subscriptions where user_id = '{user_id}'")
    assert "subscriptions_by_user" in "\n".join(row[0] for row in plan)


async def test_statuses_are_ranked_and_allowed_by_one_list(owner: Owner) -> None:
    check = await owner.fetchval(
        "select pg_get_constraintdef(oid) from pg_constraint where conname = 'subscriptions_status_check'"
    )
    view = await owner.fetchval("select pg_get_viewdef('user_subscriptions'::regclass)")
    words = [part for part in check.split("'") if part.replace("_", "").isalpha()]
    assert len(words) == 9
    ranked = [part for part in view[view.index("array_position") :].split("'") if part in words]
    assert ranked == words
