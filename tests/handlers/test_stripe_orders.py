"""Lives at Stripe whose events come in random orders, some twice, to workers that die: the end is Stripe's, told once.

Two hundred orders, ten to a test; `PULSE_ORDERS=2000 ./dev test tests/handlers/test_stripe_orders.py` tries more.
"""

import asyncio
import os
import random
from collections import Counter
from decimal import Decimal
from uuid import UUID, uuid4

import pytest

from devstack.stripe import chapters as then
from devstack.stripe.books import Event
from devstack.stripe.double import StripeDouble
from devstack.stripe.story import Story
from handlers.payment.stripe_webhook import UnknownUser
from tests.handlers.conftest import Attempt, Json, Owner
from tests.handlers.mortal import Died, dies_after, make_mortal

ORDERS = int(os.environ.get("PULSE_ORDERS", "200"))
GROUPS = ORDERS // 10
AT_ONCE = 5
MOST_STEPS = 12
"""No event needs more words with the outside than this."""


@pytest.mark.parametrize("group", range(GROUPS))
async def test_random_orders_end_as_stripe_says_and_tell_everything_once(
    follow: Attempt, double: StripeDouble, owner: Owner, monkeypatch: pytest.MonkeyPatch, group: int
) -> None:
    make_mortal(monkeypatch)
    deaths = 0
    seeds = range(group, ORDERS, GROUPS)
    for first in range(0, len(seeds), AT_ONCE):
        some = seeds[first : first + AT_ONCE]
        stories = {seed: _story(double, random.Random(seed)) for seed in some}
        lives = (Life(story, follow, random.Random(seed)) for seed, story in stories.items())
        deaths += sum(await asyncio.gather(*(life.run() for life in lives)))
        for seed, story in stories.items():
            assert await _ours(owner, story) == _theirs(story), f"seed {seed}"
            await _assert_told_once(owner, story, f"seed {seed}")
    assert deaths > len(seeds), "they did not die often enough to prove anything"


def _story(double: StripeDouble, draw: random.Random) -> Story:
    return double.story(uuid4(), tells_user=draw.choice(["checkout", "subscription", "customer"]))


class Life:
    """Steps through a life; after each step some of the events that are on their way arrive, some of them twice."""

    def __init__(self, story: Story, follow: Attempt, draw: random.Random) -> None:
        self._story, self._follow, self._draw = story, follow, draw
        self._deaths = 0

    async def run(self) -> int:
        """How often a worker died."""
        story, draw = self._story, self._draw
        on_their_way: list[Event] = []
        steps = [story.create, story.activate, story.renew, self._refund, self._refund]
        steps += [story.fail, draw.choice([story.recover, story.cancel, lambda: then.fail_again(story)])]
        for step in steps:
            on_their_way += step()
            draw.shuffle(on_their_way)
            arriving = draw.randrange(len(on_their_way))
            on_their_way[arriving:], now = [], on_their_way[arriving:]
            on_their_way += [event for event in now if not await self._arrives(event) or draw.random() < 0.2]
        while on_their_way:
            on_their_way = [event for event in on_their_way if not await self._arrives(event)]
        return self._deaths

    def _refund(self) -> list[Event]:
        return then.refund(self._story, self._draw.randrange(1, 1000))

    async def _arrives(self, event: Json) -> bool:
        """Whether its job is done; a worker that died left it to be tried again."""
        calls = self._draw.randrange(1, MOST_STEPS) if self._draw.random() < 0.5 else 0
        try:
            with dies_after(calls):
                await self._follow(event)
        except Died:
            self._deaths += 1
            return False
        except UnknownUser:
            return False
        return True


async def _ours(owner: Owner, story: Story) -> object:
    row = await owner.fetchrow(
        "select status, extract(epoch from current_period_end)::int as period_end from user_subscriptions"
        " where user_id = $1",
        UUID(story.user_id),
    )
    payments = await owner.fetch(
        "select stripe_invoice_id, status, amount, amount_refunded from payments where user_id = $1",
        UUID(story.user_id),
    )
    assert row is not None
    return row["status"], row["period_end"], sorted(tuple(one) for one in payments)


def _theirs(story: Story) -> object:
    period_end = story.subscription["items"]["data"][0]["current_period_end"]
    payments = [
        (
            invoice["id"],
            "succeeded" if invoice["status"] == "paid" else "failed",
            Decimal(invoice["amount_due"]) / 100,
            Decimal(charge["amount_refunded"] if (charge := _charge(story, invoice)) else 0) / 100,
        )
        for invoice in _invoices(story)
    ]
    return story.subscription["status"], period_end, sorted(payments)


def _invoices(story: Story) -> list[Json]:
    return [one for one in story.books.invoices.values() if one["customer"] == story.customer["id"]]


def _charge(story: Story, invoice: Json) -> Json | None:
    return story.books.charges.get(story.books.intent_of(invoice)["latest_charge"])


async def _assert_told_once(owner: Owner, story: Story, seed: str) -> None:
    rows = await owner.fetch(
        "select data ->> 'type' as kind, data -> 'context' ->> 'amount' as amount from payment_jobs"
        " where type = 'payment_notification' and user_id = $1",
        UUID(story.user_id),
    )
    told = Counter(row["kind"] for row in rows)
    invoices = _invoices(story)
    paid = sum(invoice["status"] == "paid" for invoice in invoices)
    assert told["payment_received"] == paid, seed
    refunds = [Decimal(row["amount"]) for row in rows if row["kind"] == "refund_issued"]
    back = sum(charge["amount_refunded"] for invoice in invoices if (charge := _charge(story, invoice)))
    assert sum(refunds) == Decimal(back) / 100, seed
    failing = [one["attempt_count"] for one in invoices if one["status"] == "open"]
    least, most = (1, failing[0]) if failing else (0, 1)  # one that was recovered meanwhile need not be told
    assert least <= told["payment_failed"] <= most, seed
    ended = story.subscription["status"] == "canceled"  # perhaps before anybody looked
    assert told["subscription_activated"] in ({0, 1} if ended else {1}), seed
