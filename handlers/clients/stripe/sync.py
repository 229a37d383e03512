"""Brings subscriptions to where Stripe says they are when no event asked for it: one, or a page of the whole list."""

from collections.abc import Mapping
from typing import cast

from handlers.clients.database import Database, call
from handlers.clients.stripe.client import Page, StripeClient
from handlers.clients.stripe.looks import GONE, see_subscription, subscription_seen
from handlers.clients.stripe.objects import Subscription


async def sync_subscription(
    stripe: StripeClient, db: Database, stripe_subscription_id: str
) -> Mapping[str, object]:
    """Looks one subscription up and writes what it is: {"looks", "mended", "unknown"}; no look when it is gone.

    Only reads at Stripe and may be repeated. Raises StripeAway: return `come_back(away, job)` then.
    """
    ticket = await draw_ticket(db)
    seen = await see_subscription(stripe, stripe_subscription_id)
    looks = [] if seen is GONE else [seen]
    return await call(db, "sync_stripe_subscriptions", ticket=ticket, looks=looks)


async def sync_page(
    stripe: StripeClient, db: Database, after: str | None
) -> tuple[Page, Mapping[str, object]]:
    """The same for the hundred subscriptions that Stripe lists after this one."""
    ticket = await draw_ticket(db)
    page = await stripe.subscriptions(after)
    looks = [subscription_seen(Subscription.model_validate(one)) for one in page.items]
    return page, await call(db, "sync_stripe_subscriptions", ticket=ticket, looks=looks)


async def draw_ticket(db: Database) -> int:
    """Puts a look in its place among all others; drawn before the look."""
    return cast("int", (await call(db, "draw_stripe_ticket"))["ticket"])
