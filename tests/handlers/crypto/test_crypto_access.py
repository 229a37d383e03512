"""Users read their own requests and write nothing; a service key reads all and writes through functions alone."""

from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import pytest

from devstack.chain.anvil import Anvil, Token
from tests.handlers.conftest import Owner
from tests.handlers.crypto.conftest import Shop, Verify

TABLES = ("crypto_assets", "crypto_payments", "crypto_addresses", "crypto_transactions", "crypto_transfers")
READABLE = {"crypto_assets", "crypto_payments", "crypto_transactions"}
OPEN_TO_SERVERS = {
    "open_crypto_request",
    "renew_crypto_request",
    "submit_crypto_hash",
    "record_crypto_look",
    "expire_crypto_request",
}
ROLES = ("anon", "authenticated", "service_role", "pulse_worker")


async def become(owner: Owner, role: str, user_id: UUID | None = None) -> None:
    claims = f'{{"sub": "{user_id}", "role": "{role}"}}' if user_id else "{}"
    await owner.execute(f"select set_config('request.jwt.claims', '{claims}', false)")
    await owner.execute(f"set role {role}")


async def test_users_see_their_own_requests_and_nobody_elses(
    shop: Shop, verify: Verify, chain: Anvil, usdt: Token, user_id: UUID, owner: Owner
) -> None:
    asset, other = await shop.asset(chain.name, usdt, required_confirmations=1), uuid4()
    await shop.asset(chain.name, usdt, active=False)
    for user in (user_id, other):
        request = await shop.request(asset, user)
        await verify(request, await usdt.pay(chain.accounts[1], request["pay_to_address"], 29))
    for user in (user_id, other):
        await become(owner, "authenticated", user)
        assert [row["user_id"] for row in await owner.fetch("select user_id from crypto_payments")] == [user]
        assert await owner.fetchval("select count(*) from crypto_transactions") == 1
        assert await owner.fetchval("select array_agg(id) from crypto_assets") == [asset]
        await owner.execute("reset role")
    await become(owner, "service_role")
    for table in TABLES:
        assert await owner.fetchval(f"select count(*) from {table}") == 2


async def test_the_rest_is_closed(owner: Owner, user_id: UUID) -> None:
    for role in ROLES:
        for table in TABLES:
            reads = await owner.fetchval("select has_table_privilege($1, $2, 'select')", role, table)
            assert reads == (role == "service_role" or (role == "authenticated" and table in READABLE))
            whole = "insert, update, delete, truncate, references, trigger"
            assert not await owner.fetchval("select has_table_privilege($1, $2, $3)", role, table, whole)
            columns = "insert, update, references"
            assert not await owner.fetchval(
                "select has_any_column_privilege($1, $2, $3)", role, table, columns
            )
    guarded = await owner.fetchval(
        "select count(*) from pg_class where relname = any($1::text[]) and relrowsecurity", list(TABLES)
    )
    assert guarded == len(TABLES)


async def test_only_a_service_key_calls_and_only_the_five(owner: Owner) -> None:
    functions = await owner.fetch(
        "select oid, proname from pg_proc where pronamespace = 'public'::regnamespace and proname like '%crypto%'"
    )
    assert {one["proname"] for one in functions} > OPEN_TO_SERVERS
    for one in functions:
        for role in ROLES:
            may = bool(
                await owner.fetchval(
                    "select has_function_privilege($1, $2::oid, 'execute')", role, one["oid"]
                )
            )
            should = one["proname"] in OPEN_TO_SERVERS and role == "service_role"
            assert should is may, one["proname"]


ASSET = "insert into crypto_assets (id, symbol, decimals, required_confirmations, chain{}) values ('x', 'X', 6, {})"
REFUSED = {
    "an EVM hash in capitals": "insert into crypto_transfers"
    " values ('evm:1', '0x' || repeat('AB', 32), 0, gen_random_uuid(), null, 1)",
    "a Bitcoin hash with 0x": "insert into crypto_transfers"
    " values ('bitcoin:main', '0x' || repeat('ab', 32), 0, gen_random_uuid(), null, 1)",
    "an address in capitals": "insert into crypto_addresses values ('evm', '0x' || repeat('AB', 20))",
    "a chain without its id": ASSET.format("", "1, 'evm'"),
    "no confirmation": ASSET.format("", "0, 'evm:1'"),
    "a contract in capitals": ASSET.format(", token_contract", "1, 'evm:1', '0x' || repeat('AB', 20)"),
    "a token on Bitcoin": ASSET.format(", token_contract", "1, 'bitcoin:main', '0x' || repeat('ab', 20)"),
    "finality of Bitcoin": ASSET.format(", needs_finality", "1, 'bitcoin:main', true"),
    "a treasury on Bitcoin": ASSET.format(
        ", treasury_address", "1, 'bitcoin:main', '0x' || repeat('ab', 20)"
    ),
}


async def test_what_would_be_compared_wrongly_is_refused_by_the_tables(owner: Owner) -> None:
    for what, statement in REFUSED.items():
        with pytest.raises(asyncpg.CheckViolationError):
            await owner.execute(statement)
            pytest.fail(what)


async def test_queries_of_a_user_and_of_a_hash_are_answered_by_index(owner: Owner, user_id: UUID) -> None:
    await owner.execute("set enable_seqscan = off")
    free = "network = 'evm' and crypto_payment_id is null order by created_at, address limit 1"
    for query, index in (
        (f"select * from crypto_payments where user_id = '{user_id}'", "crypto_payments_"),
        (
            f"select * from crypto_transfers where crypto_payment_id = '{user_id}'",
            "crypto_transfers_by_payment",
        ),
        (f"select address from crypto_addresses where {free}", "crypto_addresses_free"),
    ):
        plan = await owner.fetch(f"explain {query}")
        assert index in "\n".join(row[0] for row in plan)


async def test_the_sql_of_the_documentation_runs_as_it_stands(owner: Owner, checkout: Path) -> None:
    _, *blocks = (checkout / "docs" / "crypto.md").read_text().split("```sql")
    assert len(blocks) == 2
    for block in blocks:
        await owner.execute(block.partition("```")[0])
    assert await owner.fetchval("select array_agg(chain) from crypto_assets") == ["evm:1"]
