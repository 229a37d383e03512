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
from handlers.clients.stripe import StripeClient
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


async def test_signed_webhooks_and_old_objects_become_a_subscription_and_its_payment(
    url: str, arrived: tuple[Arrived, str], stripe: StripeClient, db: Database, user_id: UUID, owner: Owner
) -> None:
    jobs, our_address = arrived
    async with aiohttp.ClientSession(url, headers={"Authorization": f"Bearer {KEY}"}) as session:

        async def post(path: str, body: Json) -> Any:
            async with session.post(path, json=body) as response:
                assert response.status == 200, await response.text()
                return await response.json() if path.startswith("/v1") else None

        await post("/_config/webhooks/ours", {"url": our_address, "secret": SECRET})
        subscription = await _subscribe(post, user_id)
    wanted = {"customer.subscription.created", "invoice.payment_succeeded"}
    async with asyncio.timeout(20):
        while wanted:
            job = await jobs.get()
            event = dict(job.data)
            await stripe_webhook(StripeWebhook.model_validate(event), job=a_job(event), stripe=stripe, db=db)
            wanted.discard(str(event["type"]))
    row = await owner.fetchrow("select * from user_subscriptions")
    assert row is not None
    assert (row["user_id"], row["status"]) == (user_id, "active")
    assert int(row["current_period_end"].timestamp()) == subscription["current_period_end"]
    paid = await owner.fetchrow(
        "select user_id, status, amount::text, currency, subscription_id from payments"
    )
    assert paid is not None
    assert tuple(paid) == (user_id, "succeeded", "29.00", "usd", row["id"])


async def _subscribe(post: Any, user_id: UUID) -> Json:
    customer = await post("/v1/customers", {"metadata": {"user_id": str(user_id)}})
    card = {"number": "4242424242424242", "exp_month": "12", "exp_year": "2099", "cvc": "123"}
    method = await post("/v1/payment_methods", {"type": "card", "card": card})
    await post(f"/v1/payment_methods/{method['id']}/attach", {"customer": customer["id"]})
    settings = {"default_payment_method": method["id"]}
    await post(f"/v1/customers/{customer['id']}", {"invoice_settings": settings})
    product = await post("/v1/products", {"name": "Pro"})
    plan = {
        "amount": 2900,
        "currency": "usd",
        "interval": "month",
        "product": product["id"],
        "nickname": "Pro",
    }
    made = await post("/v1/plans", plan)
    subscription: Json = await post(
        "/v1/subscriptions", {"customer": customer["id"], "items": [{"plan": made["id"]}]}
    )
    return subscription


async def test_a_404_that_does_not_say_that_the_object_is_missing_is_not_believed(
    stripe: StripeClient,
) -> None:
    with pytest.raises(Reject, match="HTTP 404, no code"):
        await stripe.subscription("sub_missing")
