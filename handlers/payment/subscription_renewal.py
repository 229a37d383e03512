"""What happens at the end of a paid period: notices before it, grace after it, expiry when nobody pays.

    {}                       finds every subscription that has a step to take, and enqueues one job for each
    {"subscriptionId": "…"}  takes that step, with its notice, in one transaction

Subscriptions that Stripe bills are only looked up at Stripe: nobody here extends or ends them. Any number of runs may
overlap; `sql/230_renewal.sql` says why each step is taken once.
"""

from collections.abc import Mapping
from datetime import timedelta
from uuid import UUID

from handlers.clients.database import Database, call
from handlers.clients.stripe.client import StripeClient
from handlers.clients.stripe.errors import StripeAway, come_back
from handlers.clients.stripe.sync import sync_subscription
from listener import Job, Payload, Queue, Reject, Snooze, every, handler

ROUNDS = 20
"""A sweep ends after so many calls of a thousand jobs even if more is due: the next one, an hour later, goes on."""

GONE_AT_STRIPE = (
    "Stripe has no such subscription. It was made with a key of test mode or of another account, which no event will "
    "ever end: if STRIPE_SECRET_KEY is right, end the row by hand."
)


class SubscriptionRenewal(Payload):
    """Which subscription; none to look for all that are due."""

    subscription_id: UUID | None = None


@every(timedelta(hours=1))
@handler(Queue.PAYMENT)
async def subscription_renewal(
    payload: SubscriptionRenewal, *, job: Job, stripe: StripeClient, db: Database
) -> Mapping[str, object] | Snooze:
    """The result says which step was taken, or how many jobs were enqueued."""
    if payload.subscription_id is None:
        return await _sweep(db)
    renewed = await call(db, "renew_subscription", subscription_id=payload.subscription_id)
    match renewed["outcome"]:
        case "unknown":
            raise Reject("There is no subscription with this id.")
        case "stripe":
            try:
                found = await sync_subscription(stripe, db, str(renewed["stripe_subscription_id"]))
            except StripeAway as away:
                return come_back(away, job)
            if found["looks"] == 0:
                raise Reject(GONE_AT_STRIPE)
            return {**renewed, **found}
        case _:
            return renewed


async def _sweep(db: Database) -> Mapping[str, object]:
    enqueued = 0
    for _ in range(ROUNDS):
        swept = await call(db, "sweep_renewals")
        enqueued += int(str(swept["enqueued"]))
        if not swept["more"]:
            break
    return {"enqueued": enqueued}
