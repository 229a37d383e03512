"""What the library's errors mean for an order is read from how far its request came, whatever class they are of."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal, Underflow, getcontext
from typing import Any

import pytest
from aiohttp import web

from handlers.clients.broker.broker import (
    BadCredentials,
    BrokerError,
    BrokerStatus,
    DuplicateClientId,
    NotSent,
    OutcomeUnknown,
    Refused,
    TooFast,
)
from handlers.clients.broker.guard import Guarded
from handlers.clients.exchange.ccxt import Words, made
from handlers.clients.exchange.client import ExchangeAccount
from handlers.clients.exchange.errors import Errors
from handlers.clients.exchange.lists import Pages
from handlers.clients.exchange.words import balances_of, fill_of, order_of, positions_of
from tests.doubles.proxy import answering
from tests.handlers.broker.adapters.alpaca_desk import Desk, as_alpaca_shows
from tests.handlers.broker.adapters.house import SYMBOL, an_order

OURS = an_order(client_order_id=as_alpaca_shows()["client_order_id"])
ASSETS = [
    {
        "id": "1", "class": "crypto", "symbol": SYMBOL, "status": "active", "tradable": True,
        "min_order_size": "0.0001", "min_trade_increment": "0.000000001", "price_increment": "0.000000001",
    }
]  # fmt: skip
WORDS = {"code": 42210000, "message": "invalid qty"}
SECRET = "planted-exchange-secret"


async def account_at(ccxt: Any, url: str) -> ExchangeAccount:
    exchange = made(ccxt, "alpaca", {"apiKey": "planted-key", "secret": SECRET})
    exchange.urls["api"] = dict.fromkeys(exchange.urls["api"], url)
    return ExchangeAccount(exchange, Errors(ccxt, "alpaca"), {})


@pytest.fixture
async def account(ccxt: Any, desk: Desk) -> AsyncIterator[ExchangeAccount]:
    async with answering(desk.handle) as url:
        found = await account_at(ccxt, url)
        desk.says(ASSETS)
        await found.begin()
        desk.requests.clear()
        yield found
        await found.close()


SUBMITTED: list[tuple[str, int, object, type[BrokerError] | None]] = [
    ("an order", 200, as_alpaca_shows(symbol=SYMBOL, time_in_force="gtc"), None),
    ("an order with another id of ours", 200, as_alpaca_shows(client_order_id="x"), OutcomeUnknown),
    ("an order without its id", 200, as_alpaca_shows(id=None), OutcomeUnknown),
    ("nothing", 200, "", OutcomeUnknown),
    ("a page", 200, "<html>ok</html>", OutcomeUnknown),
    ("its words: wrong", 422, WORDS, Refused),
    ("its words: no money", 403, {"code": 40310000, "message": "insufficient balance for USD"}, Refused),
    ("its words: no money, in others", 403, {"code": 40310000, "message": "no funds"}, Refused),
    ("its words: taken", 422, {"code": 40010001, "message": "client_order_id must be unique"}, DuplicateClientId),
    ("its words: who?", 401, {"code": 40110000, "message": "request is not authorized"}, BadCredentials),
    ("its words: slowly", 429, {"code": 42910000, "message": "rate limit exceeded"}, TooFast),
    ("a proxy: slowly", 429, "<html>", TooFast),
    ("a proxy: 422", 422, "<html>", OutcomeUnknown),
    ("a proxy: 400", 400, "<html>", OutcomeUnknown),
    ("a proxy: 404", 404, "<html>", OutcomeUnknown),
    ("broken, in words of a refusal", 500, WORDS, OutcomeUnknown),
    ("away, in words of a refusal", 503, {"message": "insufficient balance for USD"}, OutcomeUnknown),
    ("gateway time-out", 504, "", OutcomeUnknown),
]  # fmt: skip


async def test_each_answer_to_a_submission_is_told_as_the_table_says(
    desk: Desk, account: ExchangeAccount
) -> None:
    for name, status, body, error in SUBMITTED:
        desk.says(body, status)
        told: type[BaseException] | None = None
        try:
            await Guarded(account, {SECRET}).submit(OURS)
        except BrokerError as raised:
            told = type(raised)
        assert told is error, name
    assert [request.method for request in desk.requests] == ["POST"] * len(SUBMITTED)
    assert {json.loads(body)["client_order_id"] for body in desk.bodies[1:]} == {OURS.client_order_id}


async def test_an_answer_that_was_cut_is_no_refusal_although_the_library_says_so(
    desk: Desk, account: ExchangeAccount
) -> None:
    """The library raises its class of definite refusals when an answer breaks off; the order may be there."""

    async def half(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Length": "1000"})
        await answer.prepare(request)
        await answer.write(b'{"id": "1",')
        assert request.transport is not None
        request.transport.abort()
        return answer

    async def cut(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    for desk.answer in (half, cut):
        with pytest.raises(OutcomeUnknown):
            await account.submit(OURS)
    assert len(desk.requests) == 2


async def test_an_order_leaves_once_although_the_library_is_told_to_try_again(ccxt: Any, desk: Desk) -> None:
    async with answering(desk.handle) as url:
        eager = made(ccxt, "alpaca", {"apiKey": "k", "secret": SECRET, "options": {"maxRetriesOnFailure": 3}})
        eager.urls["api"] = dict.fromkeys(eager.urls["api"], url)
        other = ExchangeAccount(eager, Errors(ccxt, "alpaca"), {})
        desk.says(ASSETS)
        await other.begin()
        desk.requests.clear()
        desk.says("", 504)
        with pytest.raises(OutcomeUnknown):
            await other.submit(OURS)
        await other.close()
    assert [request.method for request in desk.requests] == ["POST"]


async def test_nobody_there_is_not_sent(ccxt: Any, account: ExchangeAccount) -> None:
    account._exchange.urls["api"] = dict.fromkeys(account._exchange.urls["api"], "http://127.0.0.1:9")
    with pytest.raises(NotSent):
        await account.submit(OURS)
    with pytest.raises(NotSent):
        await account.positions()
    with pytest.raises(NotSent):
        nowhere = await account_at(ccxt, "http://127.0.0.1:9")
        try:
            await nowhere.begin()
        finally:
            await nowhere.close()


async def test_no_error_has_the_address_or_the_keys(desk: Desk, account: ExchangeAccount) -> None:
    for status, body in (
        (500, SECRET),
        (422, {"message": f"no such key {SECRET}"}),
        (504, ""),
        (200, SECRET),
    ):
        desk.says(body, status)
        for call in (Guarded(account, {SECRET}).submit(OURS), Guarded(account, {SECRET}).positions()):
            with pytest.raises(BrokerError) as told:
                await call
            assert SECRET not in str(told.value)
            assert "http" not in str(told.value)
            assert told.value.__suppress_context__


async def test_only_the_exchange_s_own_word_means_that_there_is_no_such_order(
    desk: Desk, account: ExchangeAccount
) -> None:
    desk.says({"code": 40410000, "message": "order is not found."}, 404)
    assert await account.get("1", SYMBOL) is None
    for status, body in ((404, "<html>"), (422, WORDS), (500, {"code": 40410000, "message": "x"}), (200, "")):
        desk.says(body, status)
        with pytest.raises(OutcomeUnknown):
            await account.get("1", SYMBOL)


async def test_an_answer_that_makes_no_sense_is_not_an_empty_one(
    desk: Desk, account: ExchangeAccount
) -> None:
    for status, body in ((200, "<html>"), (200, ""), (502, "<html>")):
        desk.says(body, status)
        for question in (account.positions(), account.open_orders(), account.find("x", SYMBOL)):
            with pytest.raises(OutcomeUnknown):
                await question
    desk.says({})
    with pytest.raises(OutcomeUnknown):
        await account.positions()


async def test_half_of_an_answer_is_no_answer(desk: Desk, account: ExchangeAccount) -> None:
    """Cash is told, and instead of what is held comes the page of a proxy, which the library reads as nothing held."""

    async def half(request: web.Request) -> web.Response:
        cash = {"currency": "USD", "cash": "5", "equity": "5", "position_market_value": "0"}
        return web.json_response(cash) if request.path == "/v2/account" else web.Response(text="<html>")

    desk.answer = half
    with pytest.raises(OutcomeUnknown):
        await account.positions()


async def test_a_list_is_read_to_its_end_or_not_at_all() -> None:
    everything: list[Any] = [{"id": str(n), "timestamp": 1000 + n // 7} for n in range(250)]

    async def ascending(since: int | None, limit: int | None) -> list[Words]:
        return [one for one in everything if one["timestamp"] >= (since or 0)][: limit or 50]

    async def descending(since: int | None, limit: int | None) -> list[Words]:
        later = [one for one in everything if one["timestamp"] >= (since or 0)]
        return later[-(limit or 50) :]

    async def deaf(_: int | None, limit: int | None) -> list[Words]:
        return everything[: limit or 50]

    for pages in (Pages(), Pages(100), Pages(500), Pages(100, ascends=True)):
        assert len(await pages.all(ascending, None)) == 250
    for read in (descending, deaf):
        with pytest.raises(OutcomeUnknown, match="to its end"):
            await Pages(100).all(read, None)
    del everything[30:]
    everything.append({"id": "last", "timestamp": 2000})
    for read in (ascending, descending, deaf):
        assert len(await Pages().all(read, None)) == 31


def test_the_library_s_words_become_ours() -> None:
    shown = {"id": 7, "symbol": SYMBOL, "side": "sell", "type": "limit", "price": 0.1, "amount": 0.30000001}
    for status, filled, ours in (
        ("open", 0, BrokerStatus.ACCEPTED),
        ("open", 0.1, BrokerStatus.PARTIALLY_FILLED),
        ("canceling", 0.1, BrokerStatus.PARTIALLY_FILLED),
        ("closed", 0.30000001, BrokerStatus.FILLED),
        ("closed", 0.1, BrokerStatus.CANCELED),
        ("canceled", 0.1, BrokerStatus.CANCELED),
        ("expired", 0, BrokerStatus.EXPIRED),
        ("rejected", 0, BrokerStatus.REJECTED),
        (None, None, BrokerStatus.ACCEPTED),
    ):
        seen = order_of({**shown, "status": status, "filled": filled, "timestamp": 1764255600123})
        assert seen is not None
        assert (seen.status, seen.quantity, seen.limit_price) == (ours, Decimal("0.30000001"), Decimal("0.1"))
        assert seen.updated_at.microsecond == 123000
    bare = order_of({"id": "7"}, OURS)
    assert bare is not None
    assert (bare.symbol, bare.quantity, bare.limit_price) == (OURS.symbol, OURS.quantity, OURS.limit_price)
    market = order_of({**shown, "type": "market", "triggerPrice": 3})
    assert market is not None
    assert (market.order_type, market.limit_price, market.stop_price) == ("stop", None, Decimal(3))
    assert order_of({**shown, "amount": None}) is None
    with pytest.raises(OutcomeUnknown):
        order_of({**shown, "amount": float("nan")})


def test_coins_and_contracts_are_positions_and_money_is_none() -> None:
    held = balances_of({"total": {"BTC": 0.5, "USD": 10.5, "XYZ": 3, "ETH": 0}}, "USD", [SYMBOL])
    assert [(one.symbol, one.quantity) for one in held] == [(SYMBOL, Decimal("0.5")), ("XYZ", Decimal(3))]
    (short,) = positions_of(
        [{"symbol": "BTC/USD:USD", "contracts": 2, "contractSize": 0.1, "side": "short", "entryPrice": 5}]
    )
    assert (short.quantity, short.avg_entry_price) == (Decimal(-2), Decimal("0.5"))  # as orders count


def test_trades_of_two_orders_or_of_two_symbols_are_two_executions() -> None:
    """Some exchanges count the trades of each symbol by themselves; and one trade may be of two orders of ours."""
    trade = {"id": "7", "order": "1", "symbol": SYMBOL, "amount": 1, "price": 2, "timestamp": 1764255600000}
    fills = [fill_of(trade | words) for words in ({}, {"order": "2"}, {"symbol": "ETH/USD"}, {})]
    assert len({fill.broker_fill_id for fill in fills if fill}) == 3


async def test_what_an_exchange_lists_for_one_symbol_only_is_no_trouble_of_the_broker(
    ccxt: Any, desk: Desk
) -> None:
    """Trouble would hold the account, and its orders would not be sent."""
    exchange = made(ccxt, "binance", {"apiKey": "planted-key", "secret": SECRET})
    account = ExchangeAccount(exchange, Errors(ccxt, "binance"), {})
    async with answering(desk.handle) as url:
        exchange.urls["api"] = dict.fromkeys(exchange.urls["api"], url)
        exchange.markets = {}
        exchange.options["fetchMarkets"] = []
        desk.says([])
        assert await account.fills(datetime.now(UTC)) == []
        assert desk.requests == []
        assert await account.open_orders() == []
        assert [request.path for request in desk.requests] == ["/openOrders"]
        await account.close()


async def test_an_exchange_that_shows_no_single_order_is_asked_for_its_lists(
    desk: Desk, account: ExchangeAccount
) -> None:
    account._exchange.has = {**account._exchange.has, "fetchOrder": None}
    desk.says([as_alpaca_shows(symbol=SYMBOL)])
    found = await account.get(as_alpaca_shows()["id"], SYMBOL)
    assert found is not None
    with pytest.raises(OutcomeUnknown):
        await account.get("another", SYMBOL)


async def test_the_library_does_not_change_how_the_process_rounds(account: ExchangeAccount) -> None:
    assert account.objection(OURS) is None
    assert getcontext().rounding == ROUND_HALF_EVEN
    assert not getcontext().traps[Underflow]
