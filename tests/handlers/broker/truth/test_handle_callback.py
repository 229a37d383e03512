"""A callback is a hint: the broker is asked, at once and once, and nothing that was said is believed."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID, uuid4

import pytest

from handlers.broker.handle_callback import receive
from handlers.clients.broker.broker import BrokerStatus
from handlers.clients.broker.callback_signature import HEADER, callback_secret, sign
from listener import Cancel, Delivery, Reject
from tests.handlers.broker.truth.conftest import MASTER, Desk
from tests.handlers.broker.truth.exchange import Exchange
from tests.handlers.conftest import Json


def said(desk: Desk, event: str = "order_filled", event_id: str | None = "e1", **payload: object) -> Json:
    words = {"connection_id": str(desk.connection), "event": event, "event_id": event_id, "payload": payload}
    return {name: word for name, word in words.items() if word is not None}


def signed(
    desk: Desk, body: Json, version: int = 1, master: str = MASTER, age: timedelta = timedelta()
) -> Json:
    """A row that nobody has verified yet."""
    raw, now = json.dumps(body), datetime.now(UTC)
    return {
        "connection_id": str(desk.connection),
        "version": version,
        "raw_body": raw,
        "signature": sign(callback_secret(master, desk.connection, version), raw.encode(), now - age),
        "received_at": now.isoformat(),
    }


async def rotate(desk: Desk, *, drop_others: bool = False) -> Json:
    told = await desk.owner.fetchval("select rotate_callback_secret($1, $2)", desk.connection, drop_others)
    found: Json = json.loads(told)
    return found


async def test_what_the_door_takes_in_has_the_order_looked_at_now(desk: Desk, exchange: Exchange) -> None:
    order = await desk.order()
    await desk.later(minutes=30)
    await desk.work()
    exchange.fill(await desk.broker_id(order), "10")
    body = json.dumps({"event": "order_filled", "payload": {"id": await desk.broker_id(order)}}).encode()
    signature = sign(callback_secret(MASTER, desk.connection, 1), body, datetime.now(UTC))
    parameters = {"connection_id": str(desk.connection), "version": "1"}
    delivery = Delivery(body, {HEADER.lower(): signature}, datetime.now(UTC), parameters)
    job = receive(delivery, {"BROKER_CALLBACK_SECRET": MASTER})
    assert await desk.ask(job.type, dict(job.data)) == {"outcome": "noted", "orders": 1}
    await desk.work()
    assert (await desk.row(order))["status"] == "filled"


@pytest.mark.parametrize("name", ["orderId", "brokerOrderId", "client_order_id", "order_ids", "id"])
async def test_an_order_may_be_named_in_many_ways(desk: Desk, name: str) -> None:
    row = await desk.row(await desk.order())
    ours = {"orderId": str(row["id"]), "client_order_id": row["client_order_id"]}
    value: object = ours.get(name, row["broker_order_id"])
    payload: Json = {"order": {name: [value] if name == "order_ids" else value}}
    assert (await desk.ask("handle_callback", said(desk, **payload)))["orders"] == 1


async def test_nothing_that_it_says_is_believed(desk: Desk, exchange: Exchange) -> None:
    order = await desk.order()
    lie = {"id": await desk.broker_id(order), "status": "filled", "filled_qty": "10"}
    await desk.ask("handle_callback", said(desk, "order_filled", "e1", order=lie))
    await desk.work()
    assert ((await desk.row(order))["status"], await desk.fills()) == ("accepted", [])


async def test_an_event_that_comes_again_is_followed_once(desk: Desk, exchange: Exchange) -> None:
    order = await desk.order()
    callback = said(desk, order_id=str(order))
    assert (await desk.ask("handle_callback", callback))["outcome"] == "noted"
    await desk.later(seconds=1)
    await desk.work()
    assert await desk.ask("handle_callback", callback) == {"outcome": "repeated"}
    assert len(await desk.jobs()) == 1
    assert exchange.calls.count("open_orders") == 1


async def test_the_same_event_id_of_another_account_is_another_event(desk: Desk) -> None:
    await desk.ask("handle_callback", said(desk))
    other = await desk.owner.fetchval(
        "insert into broker_connections (user_id, broker) values ($1, 'test') returning id", uuid4()
    )
    again = said(desk) | {"connection_id": str(other)}
    assert (await desk.ask("handle_callback", again))["outcome"] == "noted"


async def test_callbacks_in_the_wrong_order_change_nothing(desk: Desk, exchange: Exchange) -> None:
    order = await desk.order()
    broker_id = await desk.broker_id(order)
    exchange.fill(broker_id, "4")
    exchange.end(broker_id, BrokerStatus.CANCELED)
    for number, event in enumerate(["order_cancelled", "order_filled", "order_accepted"]):
        await desk.ask("handle_callback", said(desk, event, f"e{number}", id=broker_id))
        await desk.later(seconds=1)
        await desk.work()
    row = await desk.row(order)
    assert (row["status"], row["filled_quantity"]) == ("canceled", 4)


async def test_an_order_that_nobody_knows_is_found_by_a_look_at_the_account(
    desk: Desk, exchange: Exchange
) -> None:
    exchange.fill(exchange.place("TSLA").broker_order_id, "10")
    assert (await desk.ask("handle_callback", said(desk, id="b1")))["orders"] == 0
    await desk.work()
    assert [row["status"] for row in await desk.orders()] == ["filled"]


async def test_changed_positions_are_read_once_however_many_callbacks_come(
    desk: Desk, exchange: Exchange
) -> None:
    exchange.move("AAPL", Decimal(10))
    for number in range(20):
        noted = await desk.ask("handle_callback", said(desk, "position_updated", f"e{number}"))
        assert noted["outcome"] == "noted"
    assert len(await desk.jobs("sync_positions")) <= 2  # it may be the turn of ten seconds just now
    assert len(await desk.jobs()) == 1
    await desk.later(seconds=10)
    await desk.work()
    assert (await desk.positions())["AAPL"]["quantity"] == 10


@pytest.mark.parametrize("event", ["account_updated", "trade.bust", "orderly"])
async def test_an_event_that_says_nothing_to_us_is_noted_as_ignored(desk: Desk, event: str) -> None:
    assert await desk.ask("handle_callback", said(desk, event)) == {"outcome": "ignored"}
    assert await desk.jobs() == []


async def test_the_words_of_the_sketch_are_taken_when_they_name_the_account(desk: Desk) -> None:
    order = await desk.order()
    sketch = {
        "broker": "test",
        "event": "order_filled",
        "payload": {"connectionId": str(desk.connection), "orderId": str(order)},
    }
    assert (await desk.ask("handle_callback", sketch))["outcome"] == "noted"
    with pytest.raises(Reject, match="another broker"):
        await desk.ask("handle_callback", sketch | {"broker": "alpaca"})
    with pytest.raises(Reject, match="connection_id"):
        await desk.ask("handle_callback", sketch | {"payload": {"orderId": str(order)}})
    with pytest.raises(Reject, match="no broker connection"):
        await desk.ask("handle_callback", said(desk) | {"connection_id": str(UUID(int=1))})


async def test_a_delivery_that_nobody_verified_is_verified_in_the_job(desk: Desk) -> None:
    body = {"event": "order_filled", "payload": {"id": await desk.broker_id(await desk.order())}}
    assert (await desk.ask("handle_callback", signed(desk, body)))["orders"] == 1
    forged = signed(desk, body, master="x" * 32)
    with pytest.raises(Reject, match="fits none of our secrets"):
        await desk.ask("handle_callback", forged)
    with pytest.raises(Reject, match="300 seconds"):
        await desk.ask("handle_callback", signed(desk, body, age=timedelta(seconds=302)))
    with pytest.raises(Reject, match="With raw_body go"):
        await desk.ask("handle_callback", {"raw_body": "{}"})


async def test_a_secret_counts_until_it_is_rotated_twice_or_dropped(desk: Desk) -> None:
    async def follow(version: int) -> object:
        return await desk.ask("handle_callback", signed(desk, {"event": "order_new"}, version))

    assert await rotate(desk) == {"version": 2, "versions": [1, 2]}
    for version in (1, 2):
        assert isinstance(await follow(version), dict)
    assert isinstance(await follow(3), Cancel)
    assert await rotate(desk) == {"version": 3, "versions": [2, 3]}
    assert isinstance(await follow(1), Cancel)
    assert await rotate(desk, drop_others=True) == {"version": 4, "versions": [4]}
    assert isinstance(await follow(3), Cancel)


async def test_a_job_that_waited_while_its_secret_was_dropped_does_nothing(desk: Desk) -> None:
    door = said(desk) | {"version": 1, "received_at": datetime.now(UTC).isoformat()}
    await rotate(desk, drop_others=True)
    assert isinstance(await desk.ask("handle_callback", door), Cancel)
    assert await desk.jobs() == []


async def test_callbacks_and_runs_are_forgotten_in_time(desk: Desk) -> None:
    await desk.ask("handle_callback", said(desk))
    await desk.sync()
    await desk.owner.execute("update broker_callbacks set noted_at = noted_at - interval '8 days'")
    await desk.owner.execute("update broker_sync_runs set began_at = began_at - interval '31 days'")
    await desk.owner.execute("select prune()")
    assert await desk.owner.fetchval("select count(*) from broker_callbacks") == 0
    assert await desk.owner.fetchval("select count(*) from broker_sync_runs") == 0
