"""Orders that are strange, or that their broker is silent about, keep nobody from seeing the others."""

import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from handlers.broker.monitor_orders import monitor_orders
from handlers.clients.database import Database, call
from tests.handlers.broker.truth.conftest import Desk
from tests.handlers.broker.truth.exchange import Exchange


async def test_however_many_are_filled_by_hand_between_two_looks_all_are_found(
    desk: Desk, exchange: Exchange
) -> None:
    """Also those that are long over when the others have been found."""
    await desk.owner.execute("update broker_connections set created_at = created_at - interval '3 hours'")
    ours = await desk.order()
    for n in range(25):
        exchange.fill(exchange.place("TSLA").broker_order_id, "10")
        exchange.executions[-1] = replace(
            exchange.executions[-1], filled_at=datetime.now(UTC) - timedelta(minutes=150 - 5 * n)
        )
    exchange.fill(await desk.broker_id(ours), "10")
    for _ in range(3):
        await desk.later(minutes=1, seconds=1)
        await desk.work()
    assert (len(await desk.orders()), len(await desk.fills())) == (25, 26)
    looks = exchange.calls.count("open_orders")
    await desk.later(minutes=5)
    await desk.work()
    assert exchange.calls.count("open_orders") == looks  # nothing is left to look for


async def test_orders_that_the_broker_does_not_answer_for_stand_in_nobodys_way(
    desk: Desk, exchange: Exchange
) -> None:
    mute = [await desk.order() for _ in range(2)]
    other = await desk.order()
    for order in (*mute, other):
        exchange.fill(await desk.broker_id(order), "10")
    exchange.mute = {await desk.broker_id(order) for order in mute}
    exchange.fill(by_hand := exchange.place("TSLA").broker_order_id, "10")
    exchange.mute.add(by_hand)
    for _ in range(5):
        await desk.later(seconds=10)
        await desk.work()
    assert (await desk.row(other))["status"] == "filled"
    assert len(await desk.fills()) == 3
    account = await desk.account()
    assert (account["failures"], account["held_until"]) == (0, None)  # orders are still sent
    assert exchange.calls.count("open_orders") <= 6
    exchange.mute.clear()
    await desk.later(minutes=5, seconds=1)  # by now they count as missing
    await desk.work()
    assert {(await desk.row(order))["status"] for order in mute} == {"filled"}


async def test_very_many_open_orders_are_written_down_in_portions(
    desk: Desk, exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five thousand in one statement take longer than Supabase lets one take."""
    following = sys.modules[monitor_orders.__module__]
    monkeypatch.setattr(following, "AT_ONCE", 2)
    written: list[int] = []

    async def noted(db: Database, function: str, **words: Any) -> Any:
        if function == "record_orders_seen":
            written.append(len(words["told"]["orders"]))
        return await call(db, function, **words)

    monkeypatch.setattr(following, "call", noted)
    order = await desk.order()
    exchange.fill(await desk.broker_id(order), "10")
    for _ in range(5):
        exchange.place("TSLA")
    await desk.look()
    assert written == [2, 2, 2]
    assert len(await desk.orders()) == 5
    assert ((await desk.row(order))["status"], len(await desk.fills())) == ("filled", 1)


async def test_a_miss_is_counted_once_a_look_whoever_else_is_looked_for(
    desk: Desk, exchange: Exchange
) -> None:
    order = await desk.order()
    exchange.hidden.add(await desk.broker_id(order))
    exchange.fill(exchange.place("TSLA").broker_order_id, "10")
    await desk.look()
    assert (await desk.row(order))["missing"] == 1
    assert len(await desk.orders()) == 1


async def test_a_price_that_is_none_of_ours_stands_in_nobodys_way(desk: Desk, exchange: Exchange) -> None:
    """A combination that pays whoever buys it has a negative one."""
    by_hand, ours = exchange.place("COMBO").broker_order_id, await desk.order()
    await desk.look()
    exchange.fill(by_hand, "10", "-2.5")
    exchange.fill(await desk.broker_id(ours), "10")
    await desk.look()
    await desk.look()
    assert (await desk.row(ours))["status"] == "filled"
    (row,) = await desk.orders()
    assert (row["status"], row["filled_quantity"], row["filled_avg_price"]) == ("filled", 10, None)


async def test_an_order_that_cannot_be_told_in_our_words_stands_in_nobodys_way(
    desk: Desk, exchange: Exchange
) -> None:
    order = await desk.order()
    exchange.place(order_type="limit")  # without a price
    exchange.fill(await desk.broker_id(order), "10")
    await desk.look()
    assert (await desk.row(order))["status"] == "filled"
    assert await desk.orders() == []
    assert [one["audience"] for one in await desk.told("order_unreadable")] == ["operators"]


async def test_an_order_that_rests_there_by_hand_is_seen_by_the_hourly_look_at_an_account_without_ours(
    desk: Desk, exchange: Exchange
) -> None:
    exchange.place("TSLA", "sell", "3", order_type="limit", limit_price=Decimal(200))
    await desk.sync()
    await desk.work()
    (row,) = await desk.orders()
    assert (row["symbol"], row["status"], row["source"]) == ("TSLA", "accepted", "broker")
    looks = exchange.calls.count("open_orders")
    await desk.sync()
    await desk.work()
    assert exchange.calls.count("open_orders") == looks  # it was looked at already, within the hour
