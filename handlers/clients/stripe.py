"""Stripe as handlers see it: looks objects up, in our types, with time-outs and errors that say what to do.

The library is imported when the client is opened: a process that serves no payments does not pay for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypeVar

from handlers.clients.stripe_objects import CheckoutSession, Invoice, StripeObject, Subscription
from handlers.clients.stripe_signature import secrets_in
from listener import Reject, RetryAfter, Setting, Settings

if TYPE_CHECKING:
    import stripe

STRIPE_SECRET_KEY = Setting(
    "STRIPE_SECRET_KEY", "Stripe dashboard, Developers, API keys (sk_test_… or sk_live_…)"
)
STRIPE_WEBHOOK_SECRET = Setting(
    "STRIPE_WEBHOOK_SECRET", "Stripe dashboard, Developers, Webhooks, your endpoint, Signing secret (whsec_…)"
)
STRIPE_WEBHOOK_SECRET_IN_JOBS = Setting(
    STRIPE_WEBHOOK_SECRET.name, STRIPE_WEBHOOK_SECRET.where, required=False
)
STRIPE_API_BASE = Setting(
    "STRIPE_API_BASE", "set it only to use a double of Stripe: its URL", required=False, secret=False
)

TIMEOUT_SECONDS: Final = 10.0
NETWORK_RETRIES: Final = 2
"""Tries after the first within one call, for a broken connection, a time-out, a 5xx or a 409."""

Found = TypeVar("Found", bound=StripeObject)


class StripeClient:
    """Looks up Stripe's objects; None means that Stripe has no such object. Opened once per process by `open`.

    Raises Reject when our key or our question is wrong, RetryAfter when Stripe names a time to come back, and Stripe's
    own error for what may pass by itself: those are retried by the table.
    """

    def __init__(self, client: stripe.StripeClient, *, livemode: bool, webhook_secrets: list[str]) -> None:
        self._client = client
        self.livemode = livemode
        """Whether the key moves real money; an event of the other mode is about objects that this key cannot see."""
        self.webhook_secrets = webhook_secrets
        """For deliveries that are verified in the job; empty when none is set."""

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[StripeClient]:
        """A client made from the environment, closed at the end of the block."""
        import stripe

        key = settings[STRIPE_SECRET_KEY.name]
        base = settings.get(STRIPE_API_BASE.name)
        http = stripe.HTTPXClient(timeout=TIMEOUT_SECONDS)
        client = stripe.StripeClient(
            key,
            http_client=http,
            max_network_retries=NETWORK_RETRIES,
            base_addresses={"api": base.rstrip("/")} if base else {},
        )
        secrets = secrets_in(settings.get(STRIPE_WEBHOOK_SECRET.name, ""))
        try:
            yield cls(client, livemode=key.startswith(("sk_live_", "rk_live_")), webhook_secrets=secrets)
        finally:
            await http.close_async()  # type: ignore[no-untyped-call]  # the library leaves it without types

    async def subscription(self, object_id: str) -> Subscription | None:
        """A subscription, with its customer's metadata."""
        return await _look(
            Subscription, self._client.v1.subscriptions.retrieve_async(object_id, {"expand": ["customer"]})
        )

    async def invoice(self, object_id: str) -> Invoice | None:
        """An invoice, with its customer's metadata."""
        return await _look(
            Invoice, self._client.v1.invoices.retrieve_async(object_id, {"expand": ["customer"]})
        )

    async def checkout_session(self, object_id: str) -> CheckoutSession | None:
        """A checkout session, with its customer's metadata."""
        return await _look(
            CheckoutSession,
            self._client.v1.checkout.sessions.retrieve_async(object_id, {"expand": ["customer"]}),
        )


async def _look(kind: type[Found], request: Awaitable[stripe.StripeObject]) -> Found | None:
    import stripe

    try:
        with _explained():
            found = await request
    except stripe.InvalidRequestError as error:
        if (
            error.code == "resource_missing"
        ):  # not any 404: a wrong address would look like objects that are gone
            return None
        raise Reject(
            f"Stripe did not understand our request for a {kind.__name__} (HTTP {error.http_status}, "
            f"{error.code or 'no code'}, {error.request_id or 'no request id'})."
        ) from None
    return kind.model_validate(found.to_dict())


@contextmanager
def _explained() -> Iterator[None]:
    """Turns errors that no retry, or only a later one, can mend into our words."""
    import stripe

    try:
        yield
    except (stripe.AuthenticationError, stripe.PermissionError) as error:
        raise Reject(
            f"Stripe refused our key (HTTP {error.http_status}): check STRIPE_SECRET_KEY, then replay this job."
        ) from None
    except stripe.RateLimitError as error:
        if (seconds := (error.headers or {}).get("retry-after", "")).isdigit():
            raise RetryAfter(timedelta(seconds=int(seconds)), "Stripe is limiting our rate.") from None
        raise
