"""The story that the demo plays: seven parts, each from an insert to its promised outcome."""

from functools import partial
from typing import cast
from uuid import uuid4

from demo.counterparts import Counterparts
from demo.reader import tell
from demo.shop import CONFIRMATIONS, Shop
from demo.stage import Stage
from demo.subscriber import Subscriber
from demo.trader import trade
from devstack.chain.anvil import Anvil
from devstack.stripe.double import StripeDouble


async def play(stage: Stage, stripe: StripeDouble, chain_url: str | None, counterparts: Counterparts) -> bool:
    """All parts in turn; answers whether each promise was kept."""
    await stage.opens()
    subscriber = Subscriber(stage, stripe)
    await subscriber.activate()
    failed_job_id = await subscriber.fail()
    await subscriber.replay(failed_job_id)
    await _scheduled(stage)
    await _pay_in_crypto(stage, subscriber, chain_url)
    await trade(stage)
    await tell(stage, counterparts)
    if stage.broken:
        stage.say("\nNOT as promised: " + "; ".join(stage.broken))
        return False
    stage.say("\nAll went as promised: nothing was lost, and nothing was done twice.")
    return True


async def _scheduled(stage: Stage) -> None:
    stage.say("\n4. The scheduler put the hourly clean-up into maintenance_jobs when the worker began.")
    answer = (
        await stage.database.table("jobs")
        .select("id, status, idempotency_key, result")
        .eq("queue", "maintenance")
        .eq("type", "prune")
        .execute()
    )
    rows = cast("list[dict[str, object]]", answer.data)
    stage.promise("one row for the slot, completed", [row["status"] for row in rows] == ["completed"])
    for row in rows:
        stage.say(f"   job {row['id']}, key {row['idempotency_key']}  →  {row['status']}, {row['result']}")


async def _pay_in_crypto(stage: Stage, subscriber: Subscriber, chain_url: str | None) -> None:
    if chain_url is None:
        stage.say(
            "\n5. A payment in crypto is skipped: there is no local chain. `.ci/counterparts` installs one."
        )
        return
    stage.say(
        "\n5. Somebody pays in crypto. The worker looks at a chain, and counts no transaction too early."
    )
    async with Anvil.open(chain_url) as chain:
        shop, user = await Shop.opened(chain, stage.owner), str(uuid4())
        request = await shop.request(stage.database, user)
        stage.say(f"   asked for: {request['amount']} {request['symbol']} to {request['pay_to_address']}")
        tx_hash = await shop.pay(request)
        data = {"crypto_payment_id": request["id"], "tx_hash": tx_hash}
        job = await stage.insert("payment", "crypto_verification", data, f"paid by {tx_hash[:12]}…")
        await stage.until("it has looked", partial(stage.has_run, job, 1))
        stage.promise("in its first block it buys nothing", await subscriber.subscription_of(user) is None)
        await chain.mine(CONFIRMATIONS - 1)
        await stage.move_clock(15)
        stage.say(
            f"   ({CONFIRMATIONS - 1} more blocks, the database's clock moves 15 s ahead, and an event comes)"
        )
        await subscriber.wake()
        await stage.until("it has looked again", partial(stage.has_run, job, 2))
    stage.promise("the payment is confirmed", stage.is_done(job))
    stage.promise("the subscription is active", await subscriber.subscription_of(user) == "active")
