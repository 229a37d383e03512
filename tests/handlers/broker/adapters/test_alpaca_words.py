"""Alpaca's orders in our words and ours in Alpaca's; its lists, its clock, its rules, and where it is asked."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import web

from handlers.clients.alpaca import client
from handlers.clients.alpaca.client import Alpaca, open_alpaca
from handlers.clients.alpaca.http import ALPACA_PAPER_API_BASE, base_of
from handlers.clients.broker.broker import (
    BrokerStatus,
    Hours,
    OutcomeUnknown,
)
from handlers.clients.broker.brokers import Account, Connection, NotOpened
from tests.doubles.proxy import answering
from tests.handlers.broker.adapters.alpaca_desk import NO_DATABASE, OURS, Desk, as_alpaca_shows
from tests.handlers.broker.adapters.house import an_order


async def test_numbers_are_exact_in_both_directions_however_they_are_written(
    desk: Desk, adapter: Alpaca
) -> None:
    long = Decimal("123456789012.123456789")
    shown = json.dumps(as_alpaca_shows(qty="@", filled_qty="@", filled_avg_price="@"))
    desk.says(shown.replace('"@"', f"{long}"))  # as JSON numbers
    order = an_order(client_order_id=OURS.client_order_id, quantity=long, limit_price=Decimal("1E+3"))
    seen = await adapter.submit(order)
    assert (seen.quantity, seen.filled_quantity, seen.filled_avg_price) == (long, long, long)
    sent = json.loads(desk.bodies[-1])
    assert (sent["qty"], sent["limit_price"]) == (str(long), "1000")
    assert seen.updated_at == datetime(2026, 11, 27, 15, 0, 0, 123456, tzinfo=UTC)


STATUSES = {
    "new": BrokerStatus.ACCEPTED, "accepted": BrokerStatus.ACCEPTED, "pending_new": BrokerStatus.ACCEPTED,
    "held": BrokerStatus.ACCEPTED, "pending_cancel": BrokerStatus.ACCEPTED, "stopped": BrokerStatus.ACCEPTED,
    "done_for_day": BrokerStatus.ACCEPTED, "filled": BrokerStatus.FILLED, "canceled": BrokerStatus.CANCELED,
    "expired": BrokerStatus.EXPIRED, "rejected": BrokerStatus.REJECTED, "replaced": BrokerStatus.CANCELED,
}  # fmt: skip


async def test_each_status_is_one_of_ours(desk: Desk, adapter: Alpaca) -> None:
    for word, ours in STATUSES.items():
        desk.says(as_alpaca_shows(status=word))
        seen = await adapter.submit(OURS)
        assert seen.status is ours, word
        assert seen.reason == ("replaced" if word == "replaced" else None)
    for word in ("partially_filled", "pending_cancel", "done_for_day"):
        desk.says(as_alpaca_shows(status=word, filled_qty="0.2"))
        assert (await adapter.submit(OURS)).status is BrokerStatus.PARTIALLY_FILLED


async def test_orders_placed_by_hand_are_listed_in_the_nearest_words(desk: Desk, adapter: Alpaca) -> None:
    desk.says(
        [
            as_alpaca_shows(id="1", type="trailing_stop", limit_price=None, stop_price="14.5"),
            as_alpaca_shows(id="2", type="market", limit_price=None, time_in_force="opg"),
            as_alpaca_shows(id="3", qty=None, notional="500"),
            as_alpaca_shows(id="4", qty=None, notional="500", filled_qty="0.7"),
            as_alpaca_shows(id="5", symbol=None, side=None, order_class="mleg"),
        ]
    )
    seen = {one.broker_order_id: one for one in await adapter.open_orders()}
    assert seen.keys() == {"1", "2", "4"}
    assert (seen["1"].order_type, seen["1"].stop_price) == ("stop", Decimal("14.5"))
    assert (seen["2"].order_type, seen["2"].time_in_force) == ("market", "day")
    assert (seen["4"].quantity, seen["4"].status) == (Decimal("0.7"), BrokerStatus.PARTIALLY_FILLED)


async def test_a_coin_is_held_under_the_symbol_of_its_orders(desk: Desk, adapter: Alpaca) -> None:
    """Alpaca lists what is held of BTC/USD as BTCUSD."""
    shown = [("BTCUSD", "crypto"), ("ETH/USD", "crypto"), ("AAPL", "us_equity"), ("BUSD", "us_equity")]
    desk.says([{"symbol": one, "asset_class": kind, "qty": "1", "side": "long"} for one, kind in shown])
    assert [one.symbol for one in await adapter.positions()] == ["BTC/USD", "ETH/USD", "AAPL", "BUSD"]


async def test_a_page_that_ends_within_one_moment_loses_nothing(
    desk: Desk, adapter: Alpaca, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of the second page were submitted in the moment in which the first one ended."""
    monkeypatch.setattr(client, "ORDERS_A_PAGE", 3)
    moments = ["2026-11-27T15:00:00Z", *["2026-11-27T15:00:01Z"] * 2, "2026-11-27T15:00:02Z"]
    everything = [as_alpaca_shows(id=str(n), submitted_at=at) for n, at in enumerate(moments)]

    async def page(request: web.Request) -> web.Response:
        after = datetime.fromisoformat(request.query.get("after", "2000-01-01T00:00:00Z"))
        later = [one for one in everything if datetime.fromisoformat(one["submitted_at"]) > after]
        return web.json_response(later[: int(request.query["limit"])])

    desk.answer = page
    assert [one.broker_order_id for one in await adapter.open_orders()] == ["0", "1", "2", "3"]
    everything += [as_alpaca_shows(id=f"more {n}", submitted_at=moments[-1]) for n in range(3)]
    with pytest.raises(OutcomeUnknown, match="to its end"):  # four in one moment do not fit on a page
        await adapter.open_orders()


async def test_the_market_clock_is_kept_for_a_while_and_crypto_never_closes(
    desk: Desk, adapter: Alpaca
) -> None:
    clock = {
        "timestamp": "2026-11-27T10:00:00-05:00", "is_open": True,
        "next_open": "2026-11-30T09:30:00-05:00", "next_close": "2026-11-27T13:00:00-05:00",
    }  # fmt: skip
    desk.says(clock)
    for _ in range(2):
        hours = await adapter.hours("AAPL")
        assert hours == Hours(is_open=True, changes_at=datetime(2026, 11, 27, 18, tzinfo=UTC))
    assert len(desk.requests) == 1
    assert await adapter.hours("BTC/USD") == Hours(is_open=True, changes_at=None)
    assert len(desk.requests) == 1


async def test_a_clock_that_is_about_to_change_is_asked_again(desk: Desk, adapter: Alpaca) -> None:
    desk.says({
        "timestamp": "2026-11-27T18:00:00Z", "is_open": True,
        "next_open": "2026-11-30T09:30:00-05:00", "next_close": "2026-11-27T18:00:00Z",
    })  # fmt: skip
    for _ in range(2):
        await adapter.hours("AAPL")
    assert len(desk.requests) == 2


def a_share(**words: Any) -> Any:
    return an_order(**({"symbol": "AAPL", "time_in_force": "day", "limit_price": Decimal("15.25")} | words))


@pytest.mark.parametrize(
    ("order", "code"),
    [
        (a_share(), None),
        (a_share(limit_price=Decimal("15.250")), None),
        (a_share(limit_price=Decimal("15.255")), "precision"),
        (a_share(limit_price=Decimal("0.1234")), None),
        (a_share(limit_price=Decimal("0.12345")), "precision"),
        (a_share(quantity=Decimal("0.1234567891")), "precision"),
        (a_share(quantity=Decimal("0.5"), time_in_force="gtc"), "time_in_force"),
        (a_share(quantity=Decimal(5), time_in_force="gtc"), None),
        (an_order(time_in_force="day"), "time_in_force"),
        (an_order(order_type="stop", limit_price=None, stop_price=Decimal(1)), "order_type"),
        (an_order(limit_price=Decimal("15000.12345")), None),
    ],
)
async def test_what_alpaca_would_refuse_anyway_is_not_asked(
    adapter: Alpaca, order: Any, code: str | None
) -> None:
    found = adapter.objection(order)
    assert (found and found.code) == code


async def test_only_the_connection_says_whether_real_money_is_asked() -> None:
    override = {ALPACA_PAPER_API_BASE.name: "http://127.0.0.1:8430"}
    assert base_of("paper", {}) == "https://paper-api.alpaca.markets"
    assert base_of("paper", override) == "http://127.0.0.1:8430"
    for settings in ({}, override, {"ALPACA_API_BASE": "http://127.0.0.1:1"}):
        assert base_of("live", settings) == "https://api.alpaca.markets"
    for said in (
        "https://api.alpaca.markets",
        "https://API.alpaca.markets./",
        "https://x.alpaca.markets",
        "nonsense",
        "file:///x",
    ):
        with pytest.raises(NotOpened, match="ALPACA_PAPER_API_BASE"):
            base_of("paper", {ALPACA_PAPER_API_BASE.name: said})


async def test_the_environment_of_the_connection_reaches_the_address_and_its_keys_the_headers(
    desk: Desk,
) -> None:
    desk.says([])
    keys = {"BROKER_A_KEY_ID": "PK1", "BROKER_A_SECRET_KEY": "s1"}
    paper = Connection(uuid4(), uuid4(), "alpaca", "paper", 1, {}, "BROKER_A")
    async with answering(desk.handle) as url:
        settings = keys | {ALPACA_PAPER_API_BASE.name: url}
        for connection, base in (
            (paper, url),
            (replace(paper, environment="live"), "https://api.alpaca.markets"),
        ):
            adapter = await open_alpaca(Account(connection, settings, NO_DATABASE))
            assert adapter._line._base == base
            if base == url:
                assert await adapter.positions() == []
            await adapter.close()
    (request,) = desk.requests
    assert (request.headers["APCA-API-KEY-ID"], request.headers["APCA-API-SECRET-KEY"]) == ("PK1", "s1")
    with pytest.raises(NotOpened, match="plain letters"):
        await open_alpaca(Account(paper, keys | {"BROKER_A_KEY_ID": "a\nb"}, NO_DATABASE))


async def test_ids_cannot_reach_another_address(desk: Desk, adapter: Alpaca) -> None:
    desk.says({"code": 40410000, "message": "order not found"}, 404)
    for strange in ("../positions", "a?b=c", "a/b", "a%2Fb", "#"):
        await adapter.get(strange, "AAPL")
        await adapter.find(strange, "AAPL")
    for request in desk.requests[::2]:
        assert request.raw_path.startswith("/v2/orders/")
        assert request.raw_path.count("/") == 3
        assert not request.query_string
    assert [request.query["client_order_id"] for request in desk.requests[1::2]] == [
        "../positions", "a?b=c", "a/b", "a%2Fb", "#",
    ]  # fmt: skip


async def test_fills_are_read_from_the_moment_that_is_asked_for(desk: Desk, adapter: Alpaca) -> None:
    desk.says([])
    since = datetime(2026, 11, 27, 15, tzinfo=UTC) + timedelta(microseconds=5)
    assert await adapter.fills(since) == []
    assert desk.requests[0].query["after"] == "2026-11-27T15:00:00.000005Z"
