"""The double refuses, remembers and fails as Stripe documents, seen through Stripe's own client."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
import stripe as library

from devstack.stripe.books import after, as_before_2025
from devstack.stripe.double import API_KEY, StripeDouble

# The library hands its form to httpx as text, which httpx calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
async def client(double: StripeDouble) -> AsyncIterator[library.StripeClient]:
    http = library.HTTPXClient(timeout=5)
    yield library.StripeClient(API_KEY, base_addresses={"api": double.url}, http_client=http)
    await http.close_async()  # type: ignore[no-untyped-call]  # the library leaves it without types


async def test_a_post_with_a_known_key_is_answered_from_memory(
    client: library.StripeClient, double: StripeDouble
) -> None:
    options: library.RequestOptions = {"idempotency_key": "payment-1"}
    first = await client.v1.customers.create_async({"email": "a@example.com"}, options)
    again = await client.v1.customers.create_async({"email": "a@example.com"}, options)
    assert first.id == again.id
    assert len(double.books.customers) == 1
    with pytest.raises(library.IdempotencyError):
        await client.v1.customers.create_async({"email": "b@example.com"}, options)


async def test_a_failure_on_the_way_is_not_remembered(
    client: library.StripeClient, double: StripeDouble
) -> None:
    options: library.RequestOptions = {"idempotency_key": "payment-1"}
    double.fail_next("/v1/customers", 402)
    with pytest.raises(library.CardError):
        await client.v1.customers.create_async({}, options)
    assert (await client.v1.customers.create_async({}, options)).id in double.books.customers


async def test_objects_are_updated_and_ended(client: library.StripeClient, double: StripeDouble) -> None:
    story = double.story("u")
    story.begin()
    subscription = story.subscription["id"]
    updated = await client.v1.subscriptions.update_async(
        subscription, {"cancel_at_period_end": True, "metadata": {"user_id": "x"}}
    )
    assert (updated.cancel_at_period_end, updated.metadata["user_id"]) == (True, "x")
    assert (await client.v1.subscriptions.cancel_async(subscription)).status == "canceled"
    seen = await client.v1.subscriptions.retrieve_async(
        subscription, {"expand": ["customer", "latest_invoice"]}
    )
    assert isinstance(seen.customer, library.Customer)
    assert isinstance(seen.latest_invoice, library.Invoice)
    await client.v1.customers.delete_async(seen.customer.id)
    assert (await client.v1.customers.retrieve_async(seen.customer.id)).deleted


async def test_what_does_not_exist_is_refused_by_name(client: library.StripeClient) -> None:
    with pytest.raises(library.InvalidRequestError, match="No such object: 'sub_1'") as missing:
        await client.v1.subscriptions.retrieve_async("sub_1")
    assert (missing.value.http_status, missing.value.code) == (404, "resource_missing")
    with pytest.raises(library.InvalidRequestError, match="Unrecognized request URL"):
        await client.v1.balance.retrieve_async()


async def test_what_cannot_be_expanded_is_refused(client: library.StripeClient, double: StripeDouble) -> None:
    story = double.story("u")
    story.begin()
    with pytest.raises(library.InvalidRequestError, match="cannot be expanded"):
        await client.v1.subscriptions.retrieve_async(story.subscription["id"], {"expand": ["moon"]})


async def test_another_key_and_another_version_are_refused(double: StripeDouble) -> None:
    for key, version, error in (
        ("sk_test_other", None, library.AuthenticationError),
        (API_KEY, "yesterday", library.InvalidRequestError),
    ):
        http = library.HTTPXClient(timeout=5)
        client = library.StripeClient(
            key, stripe_version=version, base_addresses={"api": double.url}, http_client=http
        )
        with pytest.raises(error):
            await client.v1.customers.retrieve_async("cus_1")
        await http.close_async()  # type: ignore[no-untyped-call]  # the library leaves it without types


def test_old_shapes_have_the_period_and_the_subscription_where_they_were() -> None:
    story = StripeDouble().story("u")
    story.begin()
    subscription, invoice = as_before_2025(story.subscription), as_before_2025(story.invoice)
    item = story.subscription["items"]["data"][0]
    assert subscription["current_period_end"] == item["current_period_end"]
    assert "current_period_end" not in subscription["items"]["data"][0]
    assert (invoice["subscription"], "parent" in invoice) == (subscription["id"], False)


@pytest.mark.parametrize(
    ("interval", "start", "end"),
    [
        ("month", "2026-01-31", "2026-02-28"),
        ("month", "2028-01-31", "2028-02-29"),
        ("month", "2026-12-05", "2027-01-05"),
        ("year", "2028-02-29", "2029-02-28"),
        ("month", "2026-05-31", "2026-06-30"),
    ],
)
def test_a_period_ends_on_the_same_day_or_the_last(interval: str, start: str, end: str) -> None:
    begins, ends = (int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()) for day in (start, end))
    assert after("year" if interval == "year" else "month", begins) == ends
