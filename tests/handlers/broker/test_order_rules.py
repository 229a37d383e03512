"""The rules that every order keeps, asked in the transaction that begins to send it."""

import asyncio
from datetime import timedelta
from uuid import uuid4

import asyncpg
import pytest

from handlers.clients.broker.broker import Hours, OutcomeUnknown
from handlers.clients.database import CallFailed, call
from tests.handlers.broker.conftest import Broker, Desk, SetClock, an_account, raises
from tests.handlers.conftest import Owner
from tests.waiting import until

LOST = OutcomeUnknown("no answer")


async def test_the_same_key_is_the_same_order_and_another_order_under_it_is_refused(desk: Desk) -> None:
    first = await desk.place(idempotency_key="mine")
    assert await desk.place(idempotency_key="mine") == first
    assert await desk.owner.fetchval("select count(*) from jobs where type = 'execute_order'") == 1
    with pytest.raises(CallFailed, match="another order"):
        await desk.place(idempotency_key="mine", quantity="6")


async def test_an_order_for_another_users_account_is_not_placed(desk: Desk, owner: Owner) -> None:
    theirs = await an_account(owner, uuid4())
    with pytest.raises(CallFailed, match="no such account"):
        await desk.place(broker_connection_id=theirs)
    with pytest.raises(CallFailed, match="nothing that an order says"):
        await desk.place(status="filled")


async def test_a_market_order_from_a_backlog_is_never_sent(
    desk: Desk, broker: Broker, clock: SetClock
) -> None:
    market = await desk.place(order_type="market", limit_price=None)
    limit = await desk.place()
    await clock(121)
    assert await desk.attempt(market) == {"status": "expired", "reason": "too_old"}
    assert (await desk.attempt(limit))["status"] == "accepted"
    assert broker.submitted == ["pe" + limit.hex]
    assert await desk.told() == ["order_expired"]


async def test_a_market_order_that_grew_old_while_it_was_looked_for_is_not_sent_again(
    desk: Desk, broker: Broker, clock: SetClock
) -> None:
    broker.before = raises(LOST)
    order = await desk.place(order_type="market", limit_price=None)
    await desk.attempt(order)
    broker.before = None
    for seconds in (118, 119):
        await clock(seconds)
        await desk.attempt(order)
    assert await desk.status(order) == "new"
    await clock(121)
    await desk.attempt(order)  # a last look before we say that it was not sent
    await clock(122)
    ended = await desk.attempt(order)
    assert (ended.get("status"), broker.submitted) == ("expired", [])


async def test_a_market_order_for_a_closed_market_waits_until_it_opens_and_is_not_too_old_then(
    desk: Desk, broker: Broker, clock: SetClock
) -> None:
    opens = await desk.owner.fetchval("select clock_now() + interval '5 hours'")
    broker.market = Hours(is_open=False, changes_at=opens)
    order = await desk.place(order_type="market", limit_price=None)
    assert (await desk.attempt(order))["again"] == pytest.approx(5 * 3600)
    refused = await desk.place(when_closed="refuse")
    assert await desk.attempt(refused) == {"status": "rejected", "reason": "market_closed"}
    broker.market = Hours(is_open=True, changes_at=None)
    await clock(5 * 3600 + 1)
    assert (await desk.attempt(order))["status"] == "accepted"


async def test_what_the_adapter_objects_to_is_refused_without_a_call(desk: Desk, broker: Broker) -> None:
    order = await desk.place(quantity="0.5")
    assert await desk.attempt(order) == {"status": "rejected", "reason": "bad_quantity"}
    assert broker.submitted == []


async def test_live_trading_needs_a_subscription_and_an_account_that_is_connected(
    desk: Desk, owner: Owner, broker: Broker
) -> None:
    live = await an_account(owner, desk.user, environment="live")
    order = await desk.place(broker_connection_id=live)
    assert (await desk.attempt(order))["reason"] == "no_subscription"
    await owner.execute(
        "insert into subscriptions (user_id, status, payment_method, stripe_subscription_id, ticket, started_at)"
        " values ($1, 'active', 'stripe', 's', 1, now())",
        desk.user,
    )
    order = await desk.place(broker_connection_id=live)
    assert (await desk.attempt(order))["status"] == "accepted"
    await owner.execute("update broker_connections set status = 'disabled'")
    order = await desk.place(broker_connection_id=live)
    assert (await desk.attempt(order))["reason"] == "connection_disabled"
    assert len(broker.submitted) == 1


async def test_the_limit_of_an_order_weighs_market_orders_by_the_dearer_of_two_prices(
    desk: Desk, owner: Owner
) -> None:
    await owner.execute("update trading_rules set max_order_notional = 100")

    async def sent(**words: object) -> object:
        return (await desk.attempt(await desk.place(**words))).get("reason")

    market = {"order_type": "market", "limit_price": None}
    assert await sent(limit_price="20") is None
    assert await sent(limit_price="20.01") == "order_too_large"
    assert await sent(**market) == "no_reference_price"
    assert await sent(**market, reference_price="20") is None
    await owner.execute(
        "insert into positions (broker_connection_id, symbol, user_id, quantity, current_price, sync_run_id, as_of)"
        " values ($1, 'AAPL', $2, 1, 50, gen_random_uuid(), now())",
        desk.connection,
        desk.user,
    )
    assert await sent(**market, reference_price="20") == "order_too_large"


async def test_the_limit_of_a_position_counts_what_is_held_and_what_is_under_way_and_lets_everybody_out(
    desk: Desk, owner: Owner, broker: Broker
) -> None:
    await owner.execute("update trading_rules set max_position_notional = 100")

    async def sent(**words: object) -> object:
        return (await desk.attempt(await desk.place(**({"limit_price": "10"} | words)))).get("reason")

    assert await sent(quantity="6") is None  # open
    broker.fills_at_once = True
    assert await sent(quantity="4") is None  # held
    assert await sent(quantity="1") == "position_too_large"
    assert await sent(quantity="14", side="sell") is None  # to ten short
    assert await sent(quantity="1", side="sell") == "position_too_large"


async def test_two_orders_that_fit_only_one_by_one_are_not_both_sent(desk: Desk, owner: Owner) -> None:
    await owner.execute("update trading_rules set max_position_notional = 100")
    orders = [await desk.place(quantity="9", limit_price="10") for _ in range(2)]
    ended = await asyncio.gather(*[desk.attempt(order) for order in orders])
    assert sorted(str(one.get("status")) for one in ended) == ["accepted", "rejected"]


@pytest.mark.parametrize("for_all", [True, False])
async def test_after_a_halt_has_returned_nothing_is_sent_and_other_users_are_not_concerned(
    desk: Desk, owner: Owner, broker: Broker, for_all: bool
) -> None:
    user = None if for_all else desk.user
    other = uuid4()
    theirs = Desk(desk.db, owner, desk.brokers, other, await an_account(owner, other))
    waiting = await desk.place()
    halted = await call(desk.db, "halt_trading", user_id=user, reason="a bad day")
    assert halted == {"in_flight": 0, "cancelling": 0}
    assert (await desk.attempt(waiting))["reason"] == "trading_halted"
    assert (await theirs.attempt(await theirs.place()))["reason"] == ("trading_halted" if for_all else None)
    assert await call(desk.db, "resume_trading", user_id=user) == {"resumed": True}
    assert (await desk.attempt(await desk.place()))["status"] == "accepted"


async def test_a_halt_waits_for_what_is_being_begun_and_counts_it(
    desk: Desk, owner: Owner, database: str
) -> None:
    """The race: begin_order has looked for a halt, found none, and has not committed yet."""
    order = await desk.place()
    other = await asyncpg.connect(database)
    try:
        async with other.transaction():
            begun = await other.fetchval("select begin_order($1)", order)
            assert '"submit"' in begun
            halting = asyncio.create_task(call(desk.db, "halt_trading", user_id=None, reason="now"))
            await until(
                "the halt waits",
                lambda: owner.fetchval("select exists (select from pg_locks where not granted)"),
            )
            assert not halting.done()
        assert (await halting)["in_flight"] == 1
    finally:
        await other.close()
    assert (await desk.attempt(await desk.place()))["reason"] == "trading_halted"


async def test_what_began_before_a_halt_is_not_sent_again_after_it(
    desk: Desk, broker: Broker, clock: SetClock
) -> None:
    broker.before = raises(LOST)
    order = await desk.place()
    await desk.attempt(order)
    await call(desk.db, "halt_trading", user_id=desk.user, reason="a bad day")
    for seconds in (10, 11, 12, 13):
        await clock(seconds)
        await desk.attempt(order)
    await clock(14)
    ended = await desk.attempt(order)
    assert ended == {"status": "rejected", "reason": "trading_halted"}
    assert broker.submitted == []


def test_the_window_is_shorter_than_what_the_database_waits_for() -> None:
    from handlers.broker.execute_order import SUBMIT_WINDOW
    from handlers.clients.broker.guard import CALL

    assert timedelta(seconds=20) >= SUBMIT_WINDOW + CALL
