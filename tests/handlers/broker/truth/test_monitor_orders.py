"""Orders follow their broker: soon, once at a time, and never back."""

from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest

from handlers.clients.broker.broker import BadCredentials, BrokerStatus, NotSent, OutcomeUnknown, TooFast
from handlers.clients.broker.order_words import seen
from listener import Reject, Snooze
from tests.handlers.broker.truth.conftest import Desk
from tests.handlers.broker.truth.exchange import Exchange


async def test_an_accepted_order_is_looked_at_within_a_second_and_its_fill_is_known(
    desk: Desk, exchange: Exchange
) -> None:
    order = await desk.order()
    (job,) = await desk.jobs()
    assert job["run_in"] <= 1
    exchange.fill(await desk.broker_id(order), "10", "10.5", "0.01")
    await desk.later(seconds=1)
    await desk.work()
    row = await desk.row(order)
    assert (row["status"], row["filled_quantity"], row["filled_avg_price"]) == ("filled", 10, Decimal("10.5"))
    assert row["commission"] == Decimal("0.01")
    assert row["next_check_at"] is None
    (fill,) = await desk.fills()
    assert (fill["order_id"], fill["quantity"], fill["price"]) == (order, 10, Decimal("10.5"))
    assert [one["alert_type"] for one in await desk.told()] == ["order_filled"]
    assert await desk.jobs() == []


async def test_ten_orders_of_a_connection_are_one_job_and_one_look(desk: Desk, exchange: Exchange) -> None:
    for _ in range(10):
        await desk.order()
    assert len(await desk.jobs()) == 1
    assert await desk.jobs(status="cancelled") == []
    await desk.later(seconds=1)
    await desk.work()
    assert exchange.calls == ["open_orders", "fills"]
    assert len(await desk.jobs()) == 1


@pytest.mark.parametrize(
    ("age", "delay"), [(1, 5), (40, 5), (200, 20), (3000, 60), (3700, 300), (90000, 300)], ids=str
)
async def test_an_order_that_rests_is_looked_at_ever_more_slowly(desk: Desk, age: int, delay: int) -> None:
    order = await desk.order(order_type="limit", limit_price=Decimal(9))
    await desk.later(seconds=age)
    await desk.work()
    row = await desk.row(order)
    assert row["next_check_at"] - await desk.owner.fetchval("select clock_now()") == pytest.approx(
        timedelta(seconds=delay), abs=timedelta(seconds=delay / 10 + 1)
    )
    (job,) = await desk.jobs()
    assert job["run_at"] == row["next_check_at"]


async def test_news_of_an_order_are_looked_at_now_in_place_of_the_look_that_waits(
    desk: Desk, exchange: Exchange
) -> None:
    order = await desk.order()
    await desk.later(minutes=30)
    await desk.work()
    exchange.fill(await desk.broker_id(order), "10")
    asked = await desk.ask("monitor_orders", {"orderIds": [str(order), str(uuid4())]})
    assert asked == {"orders": 1, "enqueued": 1}
    assert len(await desk.jobs()) == 1
    await desk.work()
    assert (await desk.row(order))["status"] == "filled"


async def test_news_that_come_while_a_look_is_under_way_are_looked_at_again(
    desk: Desk, exchange: Exchange
) -> None:
    order = await desk.order()

    async def filled() -> None:
        exchange.fill(await desk.broker_id(order), "10")
        exchange.late.add(await desk.broker_id(order))
        await desk.ask("monitor_orders", {"orderIds": [str(order)]})

    exchange.meanwhile["open_orders"] = filled
    await desk.later(seconds=1)
    await desk.work()
    assert exchange.calls.count("open_orders") == 2
    assert (await desk.row(order))["status"] == "filled"


async def test_a_job_that_meets_another_look_leaves_it_to_that_one(desk: Desk, exchange: Exchange) -> None:
    order = await desk.order()
    met: list[Any] = []

    async def overlapping() -> None:
        met.append(await desk.look())
        exchange.fill(await desk.broker_id(order), "10")

    exchange.meanwhile["fills"] = overlapping
    await desk.later(seconds=1)
    await desk.work()
    assert met == [{"outcome": "busy"}]
    assert exchange.calls.count("open_orders") == 2
    assert (await desk.row(order))["status"] == "filled"


async def test_a_look_whose_worker_vanished_is_taken_over_by_its_next_attempt(
    desk: Desk, exchange: Exchange
) -> None:
    await desk.order()
    (job,) = await desk.jobs()
    taken = "select take_orders_to_check($1, $2)"
    await desk.owner.fetchval(taken, desk.connection, job["id"])
    assert await desk.look() == {"outcome": "busy"}
    await desk.later(seconds=1)
    await desk.work()
    assert exchange.calls == ["open_orders", "fills"]  # which serves the one that met it, too


async def test_an_older_picture_changes_nothing(desk: Desk, exchange: Exchange) -> None:
    order = await desk.order()
    broker_id = await desk.broker_id(order)
    exchange.fill(broker_id, "4")
    old = seen(exchange.orders[broker_id])
    exchange.fill(broker_id, "4")
    exchange.end(broker_id)
    await desk.look()
    before = await desk.row(order)
    await desk.apply(order, old)
    after = await desk.row(order)
    assert (after["status"], after["filled_quantity"]) == ("canceled", 8)
    assert after["updated_at"] == before["updated_at"]


async def test_partial_fills_add_up_and_each_is_booked_once(desk: Desk, exchange: Exchange) -> None:
    order = await desk.order()
    broker_id = await desk.broker_id(order)
    for part in ("1", "2", "3"):
        exchange.fill(broker_id, part)
        await desk.look()
        await desk.look()
    assert (await desk.row(order))["filled_quantity"] == 6
    assert [fill["quantity"] for fill in await desk.fills()] == [1, 2, 3]
    assert [one["alert_type"] for one in await desk.told()] == ["order_partially_filled"]


async def test_executions_that_are_told_late_are_booked_after_the_order_has_ended(
    desk: Desk, exchange: Exchange
) -> None:
    order = await desk.order()
    broker_id = await desk.broker_id(order)
    exchange.fill(broker_id, "10")
    exchange.late.add(broker_id)
    await desk.later(seconds=1)
    await desk.work()
    assert ((await desk.row(order))["status"], await desk.fills()) == ("filled", [])
    exchange.late.clear()
    await desk.later(seconds=1)
    await desk.work()
    assert len(await desk.fills()) == 1
    assert (await desk.row(order))["next_check_at"] is None
    assert exchange.calls.count("get") == 1  # what has ended is not looked at by itself


async def test_an_order_that_is_not_found_is_told_after_five_looks_and_never_ended(
    desk: Desk, exchange: Exchange
) -> None:
    order = await desk.order()
    exchange.hidden.add(await desk.broker_id(order))
    for looks in range(1, 8):
        await desk.later(minutes=6)
        await desk.work()
        assert (await desk.row(order))["missing"] == looks
        assert len(await desk.told("order_missing")) == (2 if looks >= 5 else 0)  # the user, and the desk
    assert (await desk.row(order))["status"] == "accepted"
    exchange.hidden.clear()
    await desk.later(minutes=6)
    await desk.work()
    assert (await desk.row(order))["missing"] == 0


async def test_a_look_that_was_overtaken_counts_no_miss(desk: Desk, exchange: Exchange) -> None:
    order = await desk.order()
    exchange.hidden.add(await desk.broker_id(order))

    async def frozen() -> None:
        await desk.later(minutes=4)
        await desk.work()

    exchange.meanwhile["get"] = frozen
    await desk.later(seconds=1)
    await desk.look()
    assert exchange.calls.count("get") >= 2
    assert (await desk.row(order))["missing"] == exchange.calls.count("get") - 1


async def test_an_order_placed_by_hand_is_shown_as_such_and_followed(desk: Desk, exchange: Exchange) -> None:
    by_hand = exchange.place(
        "TSLA", "sell", "3", order_type="limit", limit_price=Decimal(200), client_order_id="my own"
    )
    await desk.look()
    (row,) = await desk.orders()
    assert (row["symbol"], row["side"], row["quantity"], row["limit_price"]) == ("TSLA", "sell", 3, 200)
    assert (row["status"], row["client_order_id"], row["user_id"]) == ("accepted", "my own", desk.user)
    exchange.fill(by_hand.broker_order_id, "3", "201")
    await desk.later(seconds=6)
    await desk.work()
    (row,) = await desk.orders()
    assert (row["status"], row["filled_quantity"]) == ("filled", 3)
    assert len(await desk.fills()) == 1


@pytest.mark.parametrize("named", [True, False])
async def test_an_order_placed_and_filled_by_hand_between_two_looks_is_found_by_its_executions(
    desk: Desk, exchange: Exchange, named: bool
) -> None:
    exchange.names_symbols = named
    await desk.look()
    exchange.fill(exchange.place("TSLA").broker_order_id, "10")
    found = await desk.look()
    assert found["adopted"] == 1
    (row,) = await desk.orders()
    assert (row["status"], row["filled_quantity"], row["ended_at"] is not None) == ("filled", 10, True)
    assert len(await desk.fills()) == 1
    assert await desk.told() == []  # who placed it knows


async def test_a_second_order_under_our_id_is_told_to_the_desk_and_kept_apart(
    desk: Desk, exchange: Exchange
) -> None:
    order = await desk.order()
    row = await desk.row(order)
    exchange.fill(exchange.place(client_order_id=row["client_order_id"]).broker_order_id, "10")
    await desk.look()
    assert (await desk.row(order))["filled_quantity"] == 0
    (double,) = await desk.orders()
    assert double["filled_quantity"] == 10
    assert [one["audience"] for one in await desk.told("order_twice_at_broker")] == ["operators"]


@pytest.mark.parametrize("status", ["submitting", "unknown", "in_doubt"])
async def test_an_order_of_which_nobody_has_heard_is_found_among_the_open_ones(
    desk: Desk, exchange: Exchange, status: str
) -> None:
    order = await desk.unheard(status=status)
    exchange.place(client_order_id=(await desk.row(order))["client_order_id"])
    await desk.look()
    assert (await desk.row(order))["status"] == "accepted"
    assert await desk.orders() == []


async def test_an_unknown_order_is_looked_for_by_our_id(desk: Desk, exchange: Exchange) -> None:
    order = await desk.unheard(status="unknown")
    placed = exchange.place(client_order_id=(await desk.row(order))["client_order_id"])
    exchange.fill(placed.broker_order_id, "10")
    exchange.late.add(placed.broker_order_id)
    await desk.ask("monitor_orders", {"orderIds": [str(order)]})
    await desk.work()
    assert "find" in exchange.calls
    assert (await desk.row(order))["status"] == "filled"


async def test_a_look_goes_on_in_the_next_job(desk: Desk, exchange: Exchange) -> None:
    orders = [await desk.order() for _ in range(25)]
    for order in orders:
        exchange.fill(await desk.broker_id(order), "10")
    await desk.later(seconds=2)
    await desk.work()
    assert {(await desk.row(order))["status"] for order in orders} == {"filled"}
    assert (exchange.calls.count("open_orders"), exchange.calls.count("get")) == (3, 25)
    assert len(await desk.fills()) == 25


@pytest.mark.parametrize(
    ("trouble", "calls"),
    [
        (NotSent("no address"), 0),
        (NotSent("no address"), 1),
        (OutcomeUnknown("504"), 0),
        (OutcomeUnknown("504"), 2),
    ],
)
async def test_a_broker_that_does_not_answer_puts_the_look_off_and_costs_no_attempt(
    desk: Desk, exchange: Exchange, trouble: NotSent | OutcomeUnknown, calls: int
) -> None:
    order = await desk.order()
    exchange.fill(await desk.broker_id(order), "10")
    exchange.troubles.extend([None] * calls + [trouble])
    await desk.later(seconds=1)
    (ended,) = await desk.work()
    assert isinstance(ended, Snooze)
    assert timedelta(seconds=5) <= ended.delay <= timedelta(seconds=7)
    assert (await desk.row(order))["missing"] == 0
    assert (await desk.account())["failures"] == 1
    (job,) = await desk.jobs()
    assert job["attempt"] == job["uncounted"] == 1
    await desk.later(seconds=10)
    await desk.work()
    assert (await desk.row(order))["status"] == "filled"
    assert (await desk.account())["failures"] == 0


async def test_a_broker_that_is_asked_too_fast_is_left_alone_for_as_long_as_it_says(
    desk: Desk, exchange: Exchange
) -> None:
    await desk.order()
    exchange.troubles.append(TooFast(timedelta(seconds=30)))
    await desk.later(seconds=1)
    (ended,) = await desk.work()
    assert isinstance(ended, Snooze)
    assert ended.delay >= timedelta(seconds=29)
    again = await desk.look()
    assert isinstance(again, Snooze)
    assert exchange.calls == ["open_orders"]


async def test_a_look_beyond_our_own_limit_waits_and_holds_nobody(desk: Desk, exchange: Exchange) -> None:
    await desk.owner.execute("insert into broker_limits values ('test', 2, 60)")
    await desk.order()
    await desk.later(seconds=1)
    await desk.work()
    asked = await desk.look()
    assert isinstance(asked, Snooze)
    assert asked.delay > timedelta(seconds=30)
    account = await desk.account()
    assert (account["held_until"], account["failures"]) == (None, 0)
    assert exchange.calls == ["open_orders", "fills"]


async def test_credentials_that_are_no_good_lock_the_account_and_its_user_is_told(
    desk: Desk, exchange: Exchange
) -> None:
    await desk.order()
    exchange.troubles.extend(BadCredentials("401") for _ in range(3))
    ended: list[Any] = []
    for _ in range(3):
        await desk.later(minutes=10)
        ended += await desk.work()
    assert ended[2:] == [{"outcome": "locked_out"}]
    assert (await desk.account())["status"] == "locked_out"
    assert [one["user_id"] for one in await desk.told("broker_locked_out") if "user_id" in one] == [
        str(desk.user)
    ]
    assert await desk.look() == {"outcome": "inactive"}
    assert await desk.jobs() == []


async def test_a_connection_that_nobody_knows_is_refused(desk: Desk) -> None:
    with pytest.raises(Reject, match="no broker connection"):
        await desk.ask("monitor_orders", {"brokerConnectionId": str(uuid4())})


async def test_pictures_in_any_order_are_one_truth(desk: Desk, exchange: Exchange) -> None:
    order = await desk.order()
    broker_id = await desk.broker_id(order)
    pictures = [seen(exchange.orders[broker_id])]
    for _ in range(3):
        exchange.fill(broker_id, "2")
        pictures.append(seen(exchange.orders[broker_id]))
    exchange.end(broker_id, BrokerStatus.EXPIRED)
    pictures.append(seen(exchange.orders[broker_id]))
    for picture in reversed(pictures):
        await desk.apply(order, picture)
    row = await desk.row(order)
    assert (row["status"], row["filled_quantity"]) == ("expired", 6)
