"""Positions are the broker's, whole or not at all, and what orders do not account for is told once."""

from datetime import UTC, datetime
from decimal import Decimal
from uuid import uuid4

import pytest
from pydantic import ValidationError

from handlers.clients.broker.broker import OutcomeUnknown
from handlers.clients.broker.brokers import Brokers
from listener import Reject, Snooze
from tests.handlers.broker.truth.conftest import Desk
from tests.handlers.broker.truth.exchange import Exchange


async def settled(desk: Desk) -> None:
    """Six seconds of quiet, and a look."""
    await desk.later(seconds=6)
    await desk.work()
    await desk.later(seconds=6)


async def test_positions_are_what_the_broker_shows(desk: Desk, exchange: Exchange) -> None:
    exchange.move("AAPL", Decimal("1.5"))
    exchange.move("TSLA", Decimal(-2))
    synced = await desk.sync()
    assert (synced["outcome"], synced["positions"], synced["closed"]) == ("applied", 2, 0)
    positions = await desk.positions()
    apple, tesla = positions["AAPL"], positions["TSLA"]
    assert (apple["quantity"], apple["avg_entry_price"], apple["current_price"]) == (Decimal("1.5"), 9, 11)
    assert (apple["market_value"], apple["unrealized_pnl"]) == (Decimal("16.5"), Decimal("3.0"))
    assert (tesla["quantity"], tesla["unrealized_pnl"]) == (-2, -4)
    assert apple["sync_run_id"] == tesla["sync_run_id"]
    assert (await desk.account())["synced_at"] is not None


async def test_a_position_that_is_gone_is_closed_and_says_when(desk: Desk, exchange: Exchange) -> None:
    exchange.move("AAPL", Decimal(1))
    await desk.sync()
    exchange.move("AAPL", Decimal(-1))
    assert (await desk.sync(uncounted=12))["closed"] == 1
    closed = (await desk.positions())["AAPL"]
    assert (closed["quantity"], closed["closed_at"] is not None) == (0, True)
    await desk.sync()
    assert (await desk.positions())["AAPL"]["closed_at"] == closed["closed_at"]
    exchange.move("AAPL", Decimal(3))
    await desk.sync()
    opened = (await desk.positions())["AAPL"]
    assert (opened["quantity"], opened["closed_at"]) == (3, None)


async def test_a_list_that_is_not_complete_closes_nothing(desk: Desk, exchange: Exchange) -> None:
    exchange.move("AAPL", Decimal(1))
    await desk.sync()
    run = (
        "insert into broker_sync_runs (id, broker_connection_id) values (gen_random_uuid(), $1) returning id"
    )
    run_id = await desk.owner.fetchval(run, desk.connection)
    await desk.owner.fetchval(
        """select record_positions($1, '{"complete": false, "positions": []}', true)""", run_id
    )
    assert (await desk.positions())["AAPL"]["quantity"] == 1


async def test_a_broker_that_does_not_answer_changes_no_position(desk: Desk, exchange: Exchange) -> None:
    exchange.move("AAPL", Decimal(1))
    await desk.sync()
    exchange.troubles.append(OutcomeUnknown("no answer"))
    assert isinstance(await desk.sync(), Snooze)
    assert (await desk.positions())["AAPL"]["quantity"] == 1


async def test_while_orders_are_moving_a_run_waits_but_not_for_ever(desk: Desk, exchange: Exchange) -> None:
    order = await desk.order()
    exchange.fill(await desk.broker_id(order), "10")
    await desk.look()
    waits = await desk.sync()
    assert isinstance(waits, Snooze)
    assert waits.delay.total_seconds() == 5
    assert exchange.calls.count("positions") == 0
    assert (await desk.sync(uncounted=12))["outcome"] == "applied"
    assert (await desk.positions())["AAPL"]["quantity"] == 10


async def test_a_run_during_which_an_order_changed_is_not_used(desk: Desk, exchange: Exchange) -> None:
    await desk.sync()
    order = await desk.order()
    await settled(desk)

    async def filled() -> None:
        exchange.fill(await desk.broker_id(order), "10")
        await desk.look()

    exchange.meanwhile["positions"] = filled
    assert isinstance(await desk.sync(), Snooze)
    assert await desk.positions() == {}
    assert await desk.told("position_drift") == []


async def test_an_older_run_never_overwrites_a_later_one(desk: Desk, exchange: Exchange) -> None:
    exchange.move("AAPL", Decimal(1))

    async def another() -> None:
        exchange.move("AAPL", Decimal(1))
        await desk.sync()

    exchange.meanwhile["positions"] = another
    assert (await desk.sync(uncounted=12))["outcome"] == "overtaken"
    assert (await desk.positions())["AAPL"]["quantity"] == 2


async def test_a_run_is_applied_once_however_often_it_is_recorded(desk: Desk, exchange: Exchange) -> None:
    exchange.move("AAPL", Decimal(1))
    await desk.sync()
    run_id = (await desk.positions())["AAPL"]["sync_run_id"]
    again = """select record_positions($1, '{"complete": true, "positions": []}', true)"""
    assert '"closed": 0' in await desk.owner.fetchval(again, run_id)
    assert (await desk.positions())["AAPL"]["quantity"] == 1


async def test_what_was_there_before_us_is_shown_and_told_to_nobody(desk: Desk, exchange: Exchange) -> None:
    exchange.move("AAPL", Decimal(7))
    for _ in range(3):
        await desk.sync()
    assert (await desk.positions())["AAPL"]["unexplained"] == 7
    assert await desk.told() == []


async def test_what_orders_account_for_is_no_drift(desk: Desk, exchange: Exchange) -> None:
    await desk.sync()
    exchange.fill(await desk.broker_id(await desk.order(quantity="10")), "10")
    exchange.fill(await desk.broker_id(await desk.order(side="sell", quantity="4")), "4")
    exchange.fill(exchange.place("TSLA", "sell").broker_order_id, "5")  # by hand
    await settled(desk)
    for _ in range(2):
        await desk.sync()
    positions = await desk.positions()
    assert {s: (p["quantity"], p["unexplained"]) for s, p in positions.items()} == {
        "AAPL": (6, 0),
        "TSLA": (-5, 0),
    }
    assert await desk.told("position_drift") == []


async def test_a_drift_is_told_once_to_the_user_and_the_desk_when_two_runs_agree_on_it(
    desk: Desk, exchange: Exchange
) -> None:
    await desk.sync()
    exchange.move("AAPL", Decimal(3))
    assert isinstance(await desk.sync(), Snooze)
    assert await desk.told("position_drift") == []
    assert len(await desk.jobs()) == 1  # the orders are looked at first
    await desk.work()
    assert (await desk.sync())["drifted"] == 1
    for _ in range(2):
        assert (await desk.sync())["drifted"] == 0
    user, desk_ = sorted(await desk.told("position_drift"), key=lambda one: "audience" in one)
    assert (user["user_id"], desk_["audience"]) == (str(desk.user), "operators")
    assert "shows a position of 3 AAPL; your orders account for 0" in user["message"]
    assert (await desk.positions())["AAPL"]["quantity"] == 3  # shown, not corrected


async def test_a_fill_that_we_had_not_heard_of_is_no_drift(desk: Desk, exchange: Exchange) -> None:
    await desk.sync()
    order = await desk.order()
    await settled(desk)
    exchange.fill(await desk.broker_id(order), "10")
    assert isinstance(await desk.sync(), Snooze)
    await settled(desk)
    synced = await desk.sync()
    assert (synced["outcome"], synced["drifted"], synced["unsure"]) == ("applied", 0, 0)
    assert await desk.told("position_drift") == []


async def test_what_orders_bought_and_the_broker_does_not_show_is_a_drift(
    desk: Desk, exchange: Exchange
) -> None:
    await desk.sync()
    exchange.fill(await desk.broker_id(await desk.order()), "10")
    exchange.move("AAPL", Decimal(-10))
    await settled(desk)
    await desk.sync()
    assert (await desk.sync())["drifted"] == 1
    assert (await desk.positions())["AAPL"]["unexplained"] == -10


@pytest.mark.parametrize(("fee", "told"), [("0.01", 0), ("0.2", 2)])
async def test_fees_that_an_exchange_takes_in_kind_are_no_drift(
    desk: Desk, exchange: Exchange, fee: str, told: int
) -> None:
    await desk.owner.execute("""update broker_connections set settings = '{"drift_tolerated": "0.002"}'""")
    await desk.sync()
    exchange.fill(await desk.broker_id(await desk.order()), "10")
    exchange.move("AAPL", -Decimal(fee))
    await settled(desk)
    for _ in range(2):
        await desk.sync()
    assert len(await desk.told("position_drift")) == told
    assert (await desk.positions())["AAPL"]["unexplained"] == -Decimal(fee)


@pytest.mark.parametrize(
    ("broker", "symbol", "told"), [("alpaca", "BTC/USD", 0), ("alpaca", "AAPL", 2), ("paper", "BTC/USD", 2)]
)
async def test_alpaca_takes_its_fees_for_coins_in_kind(
    desk: Desk, exchange: Exchange, brokers: Brokers, broker: str, symbol: str, told: int
) -> None:
    brokers._adapters = {broker: brokers._adapters["test"]}
    await desk.owner.execute("update broker_connections set broker = $1", broker)
    await desk.sync()
    exchange.fill(await desk.broker_id(await desk.order(symbol)), "10")
    exchange.move(symbol, Decimal("-0.025"))
    await settled(desk)
    for _ in range(2):
        await desk.sync()
    assert len(await desk.told("position_drift")) == told


async def test_the_hourly_job_is_one_for_each_active_account_and_a_users_only_for_theirs(desk: Desk) -> None:
    others = "insert into broker_connections (user_id, broker, status) values ($1, 'test', $2)"
    await desk.owner.execute(others, uuid4(), "active")
    await desk.owner.execute(others, uuid4(), "disabled")
    await desk.owner.execute(others, desk.user, "active")
    assert await desk.ask("sync_positions", {}) == {"connections": 3}
    assert len(await desk.jobs("sync_positions")) == 3
    now = datetime.now(UTC)
    assert await desk.ask("sync_positions", {"userId": str(desk.user)}, id_=now.microsecond) == {
        "connections": 2
    }
    assert len(await desk.jobs("sync_positions")) == 5
    await desk.work()
    assert await desk.jobs("sync_positions") == []


async def test_the_account_of_another_user_is_refused(desk: Desk) -> None:
    with pytest.raises(Reject, match="not this user's"):
        await desk.ask("sync_positions", {"userId": str(uuid4()), "brokerConnectionId": str(desk.connection)})


async def test_a_user_id_that_is_none_is_refused_in_clear_words(desk: Desk) -> None:
    with pytest.raises(ValidationError, match=r"userId\n  Input should be a valid UUID"):
        await desk.ask("sync_positions", {"userId": "123"})
