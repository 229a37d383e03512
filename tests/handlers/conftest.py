"""What handler tests stand on: a double of Stripe, the clients as a worker opens them, and one attempt at a job."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias
from uuid import UUID, uuid4

import asyncpg
import pytest

from devstack.gateway import Gateway
from devstack.keys import LOCAL
from devstack.stripe.double import StripeDouble
from handlers import resources
from handlers.clients.database import Database
from handlers.clients.stripe.client import StripeClient
from handlers.payment.stripe_webhook import StripeWebhook, stripe_webhook
from listener import Job
from listener.resources import opened, resources_in

Json = dict[str, Any]
Owner: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Attempt = Callable[[Json], Awaitable[Any]]
"""What the handler answers: its result, or the Snooze of a job that comes back."""


def a_job(
    data: Json,
    queue: str = "payment",
    type_: str = "stripe_webhook",
    attempt: int = 1,
    age: timedelta = timedelta(),
) -> Job:
    """A claimed job as a handler gets it, inserted so long ago."""
    now = datetime.now(UTC) - age
    return Job(1, queue, type_, data, None, 0, now, attempt, 0, 4, now)


@pytest.fixture
async def double() -> AsyncIterator[StripeDouble]:
    """Stripe, for this test alone."""
    async with StripeDouble() as running:
        yield running


@pytest.fixture
def environment(gateway: Gateway, double: StripeDouble) -> dict[str, str]:
    """The settings of a worker with the payment family."""
    return {
        "SUPABASE_URL": gateway.url,
        "SUPABASE_SERVICE_ROLE_KEY": LOCAL.service_role,
        "STRIPE_SECRET_KEY": double.api_key,
        "STRIPE_WEBHOOK_SECRET": double.webhook_secret,
        "STRIPE_API_BASE": double.url,
    }


@pytest.fixture
async def db(environment: dict[str, str]) -> AsyncIterator[Database]:
    """The database through the gateway, as the worker's resource gives it."""
    async with opened([resources_in(resources)[Database]], environment) as found:
        client = found[Database]
        assert isinstance(client, Database)
        yield client


@pytest.fixture
async def stripe(environment: dict[str, str]) -> AsyncIterator[StripeClient]:
    """The client of the double, as the worker's resource gives it."""
    async with opened([resources_in(resources)[StripeClient]], environment) as found:
        client = found[StripeClient]
        assert isinstance(client, StripeClient)
        yield client


@pytest.fixture
def follow(db: Database, stripe: StripeClient) -> Attempt:
    """One attempt at the job of an event (or of a delivery)."""

    async def attempt(data: Json) -> Any:
        return await stripe_webhook(StripeWebhook.model_validate(data), job=a_job(data), stripe=stripe, db=db)

    return attempt


@pytest.fixture
async def door(environment: dict[str, str]) -> AsyncIterator[str]:
    """The URL of a process that receives webhooks and runs payment jobs."""
    from tests.handlers.stripe_door import open_door  # which needs the types of this file

    async with open_door(environment) as url:
        yield url


@pytest.fixture
def user_id() -> UUID:
    return uuid4()


@pytest.fixture
async def tier(owner: Owner) -> UUID:
    found = await owner.fetchval(
        "insert into subscription_tiers (slug, name, price_monthly, price_yearly)"
        " values ('pro', 'Pro', 12.50, 120) returning id"
    )
    assert isinstance(found, UUID)
    return found


@pytest.fixture
def clock_at(move_clock: Callable[[timedelta], Awaitable[None]]) -> Callable[[str], Awaitable[None]]:
    """Sets the database's clock to a moment; it runs on from there."""

    async def set_to(moment: str) -> None:
        await move_clock(datetime.fromisoformat(moment).replace(tzinfo=UTC) - datetime.now(UTC))

    return set_to
