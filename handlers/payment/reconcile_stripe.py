"""Heals what webhooks lost: events that never arrived, and subscriptions that are not where Stripe says they are.

    {}                          enqueues one run of each part
    {"part": "events"}          lists Stripe's events and enqueues those that we never saw, as their webhook would have
    {"part": "subscriptions"}   lists all subscriptions and writes those that are different

A run takes some pages and enqueues the next run; its key names the place where it begins, so a run that dies and is
repeated goes on once. Everything may be repeated: events and subscriptions that are known change nothing.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Literal, cast

from pydantic import AwareDatetime

from handlers.clients.database import Database, call
from handlers.clients.stripe.client import Page, StripeClient
from handlers.clients.stripe.errors import StripeAway, come_back
from handlers.clients.stripe.sync import sync_page
from handlers.payment.stripe_webhook import LOOKS
from listener import Job, Payload, Queue, Snooze, every, handler

PAGES = 10
"""A run ends after so many pages of a hundred, and the next one goes on: no attempt lasts for ever."""
LOOKS_BACK = timedelta(days=3)
"""As long as Stripe itself tries to deliver."""


class ReconcileStripe(Payload):
    """`since` is how far back events are listed; Stripe keeps them for thirty days."""

    since: AwareDatetime | None = None
    part: Literal["events", "subscriptions"] | None = None
    after: str | None = None


@every(timedelta(days=1))
@handler(Queue.PAYMENT)
async def reconcile_stripe(
    payload: ReconcileStripe, *, job: Job, stripe: StripeClient, db: Database
) -> dict[str, int] | Snooze:
    """The result counts what this run saw and what it mended."""
    since = payload.since or job.run_at - LOOKS_BACK
    match payload.part:
        case None:
            return {"runs": await _go_on(db, job, since, {"events": None, "subscriptions": None})}
        case part:
            run = _events if part == "events" else _subscriptions
    counted: dict[str, int] = {}
    after = payload.after
    for _ in range(PAGES):
        try:
            page, found = await run(stripe, db, since, after)
        except StripeAway as away:
            if after == payload.after:
                return come_back(away, job)
            break  # what is done is not done again
        counted = {name: counted.get(name, 0) + cast("int", number) for name, number in found.items()}
        after = page.after
        if after is None:
            return counted
    await _go_on(db, job, since, {part: after})
    return counted


async def _events(
    stripe: StripeClient, db: Database, since: datetime, after: str | None
) -> tuple[Page, Mapping[str, object]]:
    page = await stripe.events(int(since.timestamp()), after)
    wanted = [event for event in page.items if event["type"] in LOOKS]
    lost = await call(db, "enqueue_lost_stripe_events", events=wanted)
    return page, {"events": len(page.items), **lost}


async def _subscriptions(
    stripe: StripeClient, db: Database, _: datetime, after: str | None
) -> tuple[Page, Mapping[str, object]]:
    return await sync_page(stripe, db, after)


async def _go_on(db: Database, job: Job, since: datetime, parts: Mapping[str, str | None]) -> int:
    """Enqueues the next run of each part. The key has the job's own, so tomorrow's runs are others."""
    jobs = [
        {
            "queue": job.queue,
            "type": job.type,
            "data": {"part": part, "since": since.astimezone(UTC), "after": after},
            "idempotency_key": f"{job.key}:{part}:{after}",
        }
        for part, after in parts.items()
    ]
    await call(db, "enqueue", jobs=jobs)
    return len(jobs)
