"""Orders under odd circumstances: none goes out late, to two accounts or with half a number, and none is forgotten."""

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

import pytest

from handlers.broker import execute_order as handler_file
from handlers.clients.broker.broker import Hours, OrderRequest, OutcomeUnknown
from handlers.clients.broker.brokers import Brokers
from handlers.clients.broker.order_words import seen
from handlers.clients.database import CallFailed, call
from tests.handlers.broker.conftest import Broker, Desk, SetClock, raises
from tests.handlers.conftest import Owner

LOST = OutcomeUnknown("no answer")
HOUR = 3600


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e18", "1e1000", "0", "-0", "-1"])
@pytest.mark.parametrize("what", ["quantity", "limit_price", "reference_price"])
async def test_what_is_no_number_of_things_or_money_is_not_placed(desk: Desk, what: str, number: str) -> None:
    with pytest.raises(CallFailed, match="violates check constraint"):
        await desk.place(**{what: number})


async def test_the_same_key_with_another_time_in_force_is_another_order(desk: Desk) -> None:
    first = await desk.place(idempotency_key="mine")
    assert await desk.place(idempotency_key="mine", time_in_force="day") == first
    with pytest.raises(CallFailed, match="another order"):
        await desk.place(idempotency_key="mine", time_in_force="gtc")


class Clock:
    """The handler's monotonic clock."""

    now = 0.0

    @classmethod
    def monotonic(cls) -> float:
        return cls.now


async def test_a_process_that_stands_still_right_before_the_call_does_not_make_it(
    desk: Desk, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything was checked in time, and what runs next in the process runs an hour later."""
    monkeypatch.setattr(handler_file, "time", Clock)
    monkeypatch.setattr(Clock, "now", 0.0)

    def weighed(_: OrderRequest) -> None:
        asyncio.get_running_loop().call_soon(lambda: setattr(Clock, "now", float(HOUR)))

    monkeypatch.setattr(broker, "objection", weighed)
    order = await desk.place()
    assert "again" in await desk.attempt(order)
    assert (broker.submitted, await desk.status(order)) == ([], "new")
    assert (await desk.row(order))["status_reason"] == "late"


@pytest.mark.parametrize("what", ["credentials_env = 'BROKER_OTHER'", """settings = '{"account_id": "2"}'"""])
async def test_what_may_have_gone_to_one_account_is_not_sent_to_another(
    desk: Desk, broker: Broker, clock: SetClock, what: str
) -> None:
    broker.after = raises(LOST)
    order = await desk.place()
    await desk.attempt(order)
    broker.orders.clear()  # what it opens now is another account
    await desk.owner.execute(f"update broker_connections set {what}")
    for seconds in (10, 11, 12):
        await clock(seconds)
        await desk.attempt(order)
    row = await desk.row(order)
    assert (row["status"], row["status_reason"]) == ("in_doubt", "credentials_changed")
    assert len(broker.submitted) == 1
    assert await desk.told() == await desk.told("operators") == ["order_in_doubt"]


async def test_other_settings_do_not_open_an_account_that_is_locked_out(desk: Desk) -> None:
    await desk.owner.execute("update broker_connections set status = 'locked_out'")
    await desk.owner.execute("""update broker_connections set settings = '{"quote": "EUR"}'""")
    assert (await desk.account())["status"] == "locked_out"
    await desk.owner.execute("update broker_connections set credentials_env = 'BROKER_OTHER'")
    assert (await desk.account())["status"] == "active"
    assert (await desk.account())["credentials_version"] == 3


async def test_an_order_of_which_nobody_can_say_anything_is_told_once_and_looked_for_on(
    desk: Desk, broker: Broker, clock: SetClock
) -> None:
    """The broker answers everybody else, so nothing is wrong with the connection."""
    broker.after = raises(LOST)
    order = await desk.place()
    await desk.attempt(order)
    broker.after = None
    broker.look = raises(OutcomeUnknown("cannot be read"))
    for seconds, told in ((890, []), (910, ["order_in_doubt"]), (5000, ["order_in_doubt"])):
        await clock(seconds)
        assert (await desk.attempt(order))["again"] <= 60
        assert (await desk.attempt(await desk.place()))["status"] == "accepted"
        assert await desk.told() == await desk.told("operators") == told
    broker.look = None
    assert (await desk.attempt(order))["status"] == "accepted"
    assert await desk.told() == ["order_in_doubt", "order_found"]


async def test_an_order_in_doubt_is_not_asked_about_for_ever_at_an_account_that_is_closed(
    desk: Desk, broker: Broker, clock: SetClock
) -> None:
    broker.after = raises(LOST)
    order = await desk.place()
    await desk.attempt(order)
    await desk.owner.execute("update broker_connections set status = 'disabled'")
    await clock(HOUR)
    assert "again" in await desk.attempt(order)
    await clock(timedelta(days=7).total_seconds())
    assert await desk.attempt(order) == {"status": "in_doubt", "reason": "connection_disabled"}


async def test_looks_at_the_same_time_count_as_one(desk: Desk, broker: Broker, clock: SetClock) -> None:
    broker.after = raises(LOST)
    order = await desk.place()
    await desk.attempt(order)
    await clock(100)
    begun = [await call(desk.db, "begin_order", order_id=order) for _ in range(3)]
    traits = {"dedupe": "open_orders", "settle_seconds": 10, "misses": 3, "shows_closed": True}
    for one in begun:
        told = {"found": None, "begun_at": one["begun_at"], "traits": traits}
        await call(desk.db, "record_lookup", order_id=order, submission=1, told=told)
    row = await desk.row(order)
    assert (row["status"], row["misses"]) == ("unknown", 1)


async def test_a_limit_order_for_a_market_that_never_opens_does_not_wait_for_ever(
    desk: Desk, broker: Broker, clock: SetClock
) -> None:
    broker.market = Hours(is_open=False, changes_at=None)
    order = await desk.place()
    for hours in range(0, 24, 4):
        await clock(hours * HOUR)
        assert (await desk.attempt(order))["again"] == HOUR
    await clock(24 * HOUR + 1)
    assert await desk.attempt(order) == {"status": "expired", "reason": "too_old"}


async def test_an_order_that_a_look_took_for_a_stranger_is_ours_as_soon_as_its_answer_comes(
    desk: Desk, broker: Broker, owner: Owner
) -> None:
    """At a broker whose lists do not show our ids; the look comes between its order and its answer."""
    order = await desk.place(order_type="market", limit_price=None)
    fill = {
        "broker_fill_id": "f1", "broker_order_id": f"b-pe{order.hex}", "symbol": "AAPL", "quantity": "2",
        "price": "10", "commission": "0.1", "filled_at": datetime.fromisoformat("2026-01-05T15:00:00+00:00"),
    }  # fmt: skip

    async def looked() -> None:
        (listed,) = [seen(replace(one, client_order_id=None)) for one in broker.orders.values()]
        told = {"orders": [listed], "missing": [], "looked_for": [], "fills": [fill], "ends": "yes"}
        await owner.execute("insert into broker_looks (broker_connection_id) values ($1)", desk.connection)
        await call(desk.db, "record_orders_seen", broker_connection_id=desk.connection, look=1, told=told)

    broker.after = looked
    assert (await desk.attempt(order))["status"] == "accepted"
    rows = await owner.fetch("select id, source, broker_order_id, commission::text from orders")
    assert [tuple(row) for row in rows] == [(order, "platform", f"b-pe{order.hex}", "0.1")]
    assert await owner.fetchval("select order_id from order_fills") == order


async def canceled_again(desk: Desk) -> list[UUID]:
    """Which orders the sweep has canceled by a job of its own."""
    await call(desk.db, "sweep_orders_to_check")
    rows = await desk.owner.fetch(
        "select (data ->> 'order_id')::uuid from jobs where type = 'cancel_order' and idempotency_key like 'cancel:%'"
    )
    return [row[0] for row in rows]


async def test_a_cancel_that_met_a_closed_account_is_done_when_that_is_open_again(
    desk: Desk, broker: Broker, clock: SetClock
) -> None:
    order, other = await desk.place(), await desk.place()
    await desk.attempt(order)
    await desk.attempt(other)
    await desk.owner.execute("update broker_connections set status = 'disabled'")
    assert (await desk.cancel(order))["reason"] == "connection_disabled"
    await clock(301)
    assert await canceled_again(desk) == []
    await desk.owner.execute("update broker_connections set status = 'active'")
    assert await canceled_again(desk) == await canceled_again(desk) == [order]
    assert (await desk.cancel(order))["status"] == "canceled"
    await clock(HOUR + 301)
    assert await canceled_again(desk) == [order]


async def test_a_worker_that_lacks_what_opens_an_account_holds_it_for_nobody_and_is_told_of(
    desk: Desk, broker: Broker
) -> None:
    async with Brokers.open({}, {}, desk.db) as lacking:
        poor = replace(desk, brokers=lacking)
        orders = [await poor.place() for _ in range(4)]
        for order in orders:
            assert (await poor.attempt(order))["again"] == 10
    assert (await desk.account())["failures"] == 0
    assert await desk.told("operators") == ["broker_not_opened"]
    for order in orders:
        assert (await desk.attempt(order))["status"] == "accepted"
