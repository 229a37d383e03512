"""A whole worker: a row that the app's server inserts becomes a look at the chain, again and again until it is sure."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from uuid import UUID

import pytest

from devstack.chain.anvil import Anvil, Token
from handlers.clients.database import Database
from listener.config import read_config
from listener.registry import load
from listener.service import Plan, Service
from tests.handlers.conftest import Json, Owner
from tests.handlers.crypto.conftest import Shop
from tests.waiting import until

MoveClock = Callable[[timedelta], Awaitable[None]]


@pytest.fixture
async def worker(environment: dict[str, str], endpoints: dict[str, list[str]]) -> AsyncIterator[Service]:
    """A process that runs payment jobs, with the keys that it asks for."""
    settings = environment | {
        "CRYPTO_ENDPOINTS": json.dumps(endpoints),
        "STRIPE_SECRET_KEY": "sk_test_not_used_here",
        "STRIPE_WEBHOOK_SECRET": "whsec_not_used_here",
    }
    registry = load("handlers", ["payment"])
    config = read_config(settings, [*registry.handler_settings, *registry.webhook_settings])
    service = Service(config, registry, Plan(["payment"], schedules=False))
    async with asyncio.TaskGroup() as group:
        group.create_task(service.run())
        await until(
            "the worker is ready", lambda: not service.health().problems and service._store is not None
        )
        yield service
        service.stop()


async def insert(db: Database, data: Json) -> int:
    """As the app's server does, when its user has named a hash."""
    row = {"type": "crypto_verification", "data": data}
    answer: Json = dict((await db.from_("payment_jobs").insert(row).execute()).data[0])  # type: ignore[arg-type]  # JSON
    return int(answer["id"])


async def test_a_row_becomes_a_subscription_and_waiting_costs_no_attempt(
    worker: Service,
    shop: Shop,
    db: Database,
    chain: Anvil,
    usdt: Token,
    user_id: UUID,
    owner: Owner,
    move_clock: MoveClock,
) -> None:
    request = await shop.request(await shop.asset(chain.name, usdt, required_confirmations=2), user_id)
    paid = await usdt.pay(chain.accounts[1], request["pay_to_address"], 29)
    job = await insert(db, {"cryptoPaymentId": request["id"], "txHash": paid})

    async def job_is(status: str, uncounted: int) -> bool:
        row = await owner.fetchrow("select status, attempt, uncounted from jobs where id = $1", job)
        return row is not None and tuple(row) == (status, uncounted + (status == "completed"), uncounted)

    await until("it has looked and waits", lambda: job_is("pending", 1))
    assert await owner.fetchval("select status from crypto_payments") == "confirming"
    await chain.mine()
    await move_clock(timedelta(seconds=16))
    await insert(db, {})  # any row makes the worker look
    await until("it has looked again and is sure", lambda: job_is("completed", 1))
    assert await owner.fetchval("select result ->> 'status' from jobs where id = $1", job) == "confirmed"
    assert await shop.status(user_id) == "active"

    words = {"userId": str(user_id), "tierId": str(shop.tier), "txHash": paid.upper(), "amount": 29}
    job = await insert(db, words)
    await until("the earlier sketch's words are understood", lambda: job_is("completed", 0))
    assert await owner.fetchval("select count(*) from payments") == 1


async def test_a_payload_that_names_nobody_or_no_uuid_is_a_dead_letter_that_says_so(
    worker: Service, db: Database, owner: Owner
) -> None:
    nobody: list[Json] = [
        {"txHash": "0x" + "ab" * 32},
        {"userId": "123", "tierId": "pro", "txHash": "0x1", "amount": 29},
        {},
    ]
    for data in nobody:
        await insert(db, data)

    async def all_failed() -> bool:
        return bool(await owner.fetchval("select count(*) = $1 from failed_jobs", len(nobody)))

    await until("all are dead letters", all_failed)
    letters = await owner.fetch(
        "select error_class, error_message, attempts from failed_jobs order by job_id"
    )
    assert [one["error_class"] for one in letters] == ["Reject", "InvalidPayload", "Reject"]
    assert {one["attempts"] for one in letters} == {1}
    assert "crypto_payment_id, or all of user_id, tier_id and tx_hash" in letters[0]["error_message"]
    assert "userId" in letters[1]["error_message"]
