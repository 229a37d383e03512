"""Against somebody else's double of Stripe: its signed webhooks become jobs, and its objects become our rows.

It renders objects as Stripe did years ago and calls prices plans, which makes it a good second opinion on shapes.
"""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import aiohttp
import pytest
from aiohttp import web

from handlers.clients.database import Database
from handlers.clients.stripe.client import StripeClient
from handlers.payment.stripe_webhook import StripeWebhook, receive, stripe_webhook
from listener import Delivery, NewJob, Reject
from tests.handlers.conftest import Json, Owner, a_job
from tests.handlers.local_stripe import local_stripe

KEY = "sk_test_12345"
SECRET = "whsec_local"
Arrived = asyncio.Queue[NewJob]


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with local_stripe() as url:
        yield url


@pytest.fixture
async def arrived() -> AsyncIterator[tuple[Arrived, str]]:
    """The jobs that our webhook makes of what arrives, and the address to send it to."""
    jobs: Arrived = asyncio.Queue()

    async def door(request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        delivery = Delivery(await request.read(), headers, datetime.now(UTC))
        jobs.put_nowait(receive(delivery, {"STRIPE_WEBHOOK_SECRET": SECRET}))
        return web.Response()

    app = web.Application()
    app.router.add_post("/webhooks/stripe", door)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield jobs, f"http://127.0.0.1:{runner.addresses[0][1]}/webhooks/stripe"
    await runner.cleanup()


@pytest.fixture
async def stripe(url: str) -> AsyncIterator[StripeClient]:
    async with StripeClient.open({"STRIPE_SECRET_KEY": KEY, "STRIPE_API_BASE": url}) as client:
        yield client


class Shop:
    """Somebody who sells through localstripe, and follows what it delivers."""

    def __init__(
        self, session: aiohttp.ClientSession, jobs: Arrived, stripe: StripeClient, db: Database
    ) -> None:
        self._session, self._jobs, self._stripe, self._db = session, jobs, stripe, db

    async def post(self, path: str, body: Json) -> Any:
        async with self._session.post(path, json=body) as response:
            assert response.status == 200, await response.text()
            return await response.json() if path.startswith("/v1") else None

    async def delete(self, path: str) -> None:
        async with self._session.delete(path) as response:
            assert response.status == 200, await response.text()

    async def subscribe(self, user_id: UUID) -> Json:
        customer = await self.post("/v1/customers", {"metadata": {"user_id": str(user_id)}})
        card = {"number": "4242424242424242", "exp_month": "12", "exp_year": "2099", "cvc": "123"}
        method = await self.post("/v1/payment_methods", {"type": "card", "card": card})
        await self.post(f"/v1/payment_methods/{method['id']}/attach", {"customer": customer["id"]})
        settings = {"default_payment_method": method["id"]}
        await self.post(f"/v1/customers/{customer['id']}", {"invoice_settings": settings})
        product = await self.post("/v1/products", {"name": "Pro"})
        plan = {
            "amount": 2900,
            "currency": "usd",
            "interval": "month",
            "product": product["id"],
            "nickname": "Pro",
        }
        made = await self.post("/v1/plans", plan)
        subscription: Json = await self.post(
            "/v1/subscriptions", {"customer": customer["id"], "items": [{"plan": made["id"]}]}
        )
        return subscription

    async def follows(self, *types: str) -> None:
        """Follows everything that is delivered until one of each type has been."""
        wanted = set(types)
        async with asyncio.timeout(20):
            while wanted:
                event = dict((await self._jobs.get()).data)
                payload = StripeWebhook.model_validate(event)
                await stripe_webhook(payload, job=a_job(event), stripe=self._stripe, db=self._db)
                wanted.discard(str(event["type"]))


@pytest.fixture
async def shop(
    url: str, arrived: tuple[Arrived, str], stripe: StripeClient, db: Database
) -> AsyncIterator[Shop]:
    jobs, our_address = arrived
    async with aiohttp.ClientSession(url, headers={"Authorization": f"Bearer {KEY}"}) as session:
        shop = Shop(session, jobs, stripe, db)
        await shop.post("/_config/webhooks/ours", {"url": our_address, "secret": SECRET})
        yield shop


async def test_signed_webhooks_and_old_objects_become_a_subscription_and_its_payment(
    shop: Shop, user_id: UUID, owner: Owner
) -> None:
    subscription = await shop.subscribe(user_id)
    await shop.follows("customer.subscription.created", "invoice.payment_succeeded")
    row = await owner.fetchrow("select * from user_subscriptions")
    assert row is not None
    assert (row["user_id"], row["status"]) == (user_id, "active")
    assert int(row["current_period_end"].timestamp()) == subscription["current_period_end"]
    paid = await owner.fetchrow(
        "select user_id, status, amount::text, currency, subscription_id from payments"
    )
    assert paid is not None
    assert tuple(paid) == (user_id, "succeeded", "29.00", "usd", row["id"])


async def test_a_cancelled_subscription_and_a_new_address_are_seen(
    shop: Shop, user_id: UUID, owner: Owner
) -> None:
    subscription = await shop.subscribe(user_id)
    await shop.follows("customer.subscription.created")
    await shop.delete(f"/v1/subscriptions/{subscription['id']}")
    await shop.follows("customer.subscription.deleted")
    assert await owner.fetchval("select status from user_subscriptions") == "canceled"
    await shop.post(f"/v1/customers/{subscription['customer']}", {"email": "new@example.com"})
    await shop.follows("customer.updated")
    assert await owner.fetchval("select email from billing_customers") == "new@example.com"


async def test_a_404_that_does_not_say_that_the_object_is_missing_is_not_believed(
    stripe: StripeClient,
) -> None:
    with pytest.raises(Reject, match="HTTP 404, no code"):
        await stripe.subscription("sub_missing")
