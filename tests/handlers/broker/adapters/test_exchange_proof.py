"""No order goes to an exchange before it is proven that our id goes with it: tried with the library's own classes."""

import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from handlers.clients.broker.broker import Dedupe, NotSent, OutcomeUnknown, Refused
from handlers.clients.broker.brokers import NotOpened
from handlers.clients.exchange.ccxt import Exchange, Stopped, made, passage
from handlers.clients.exchange.client import ExchangeAccount
from handlers.clients.exchange.errors import Errors
from handlers.clients.exchange.proof import Ways, prove
from tests.handlers.broker.adapters.house import SYMBOL, an_order

KEYS = {
    "apiKey": "k" * 16, "secret": base64.b64encode(b"s" * 32).decode(), "password": "p", "uid": "1", "login": "l",
    "privateKey": "0x" + "1" * 64, "walletAddress": "0x" + "2" * 40, "token": "t",
}  # fmt: skip
ORDER = an_order(quantity=Decimal(1000), limit_price=Decimal(1000))
FOUND: dict[str, Ways | None] = {
    # sent, and asked for by it
    "bitget": Ways("clientOrderId", "clientOrderId"),
    "bithumb": Ways("clientOrderId", "clientOrderId"),
    "coinbaseexchange": Ways("clientOrderId", "clientOrderId"),
    "coinsph": Ways("clientOrderId", "clientOrderId"),
    "hitbtc": Ways("client_order_id", "client_order_id"),
    "mexc": Ways("clientOrderId", "clientOrderId"),
    "okx": Ways("clientOrderId", "clientOrderId"),
    "phemex": Ways("clientOrderId", "clientOrderId"),
    "woo": Ways("clientOrderId", "clientOrderId"),
    # sent; the question would go astray
    "alpaca": Ways("clientOrderId", None),
    "bigone": Ways("clientOrderId", None),
    "cryptocom": Ways("client_oid", None),
    "kraken": Ways("clientOrderId", None),
    "poloniex": Ways("clientOrderId", None),
    "upbit": Ways("clientOrderId", None),
    "whitebit": Ways("clientOrderId", None),
    # in the request, and ignored by the exchange, or not in it at all
    "bit2c": None,
    "bitflyer": None,
    "bitfinex": None,
    "bitso": None,
    "deribit": None,
    "gate": None,
    "hyperliquid": None,
    "independentreserve": None,
    "luno": None,
    "zaif": None,
}
"""As the library stands in the lock. What is new here is looked at by a person."""
Makes = Callable[..., Awaitable[Exchange]]


async def no_network(_: object, url: str, method: str = "GET", *others: object) -> None:
    assert method == "GET", f"{url} went out"
    raise RuntimeError("nobody answers questions here")


@pytest.fixture
async def make(ccxt: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Makes]:
    """An exchange of the library with one market, and nothing behind it."""
    opened: list[Exchange] = []

    async def makes(name: str, **keys: str) -> Exchange:
        monkeypatch.setattr(getattr(ccxt, name), "fetch", no_network)
        exchange: Any = made(ccxt, name, KEYS | keys)
        opened.append(exchange)
        step = 1e-8 if exchange.precisionMode == 4 else 8
        market = exchange.safe_market_structure(
            {
                "id": "BTCUSD",
                "lowercaseId": "btcusd",
                "symbol": SYMBOL,
                "base": "BTC",
                "quote": "USD",
                "baseId": "BTC",
                "quoteId": "USD",
                "spot": True,
                "type": "spot",
                "active": True,
                "contract": False,
                "precision": {"amount": step, "price": step},
                "taker": 0.001,
                "maker": 0.001,
                "info": {},
            }
        )
        exchange.set_markets({SYMBOL: market})
        return cast("Exchange", exchange)

    yield makes
    for exchange in opened:
        await exchange.close()


async def ways(exchange: Exchange) -> Ways | None:
    async def send(name: str) -> object:
        params = {name: ORDER.client_order_id, "timeInForce": "GTC"}
        return await exchange.create_order(SYMBOL, "limit", "buy", 1000.0, 1000.0, params)

    return await prove(exchange, ORDER, send)


async def test_each_exchange_that_was_tried_is_as_it_was_found(make: Makes) -> None:
    assert {name: await ways(await make(name)) for name in FOUND} == FOUND


async def test_coinbase_drops_the_name_that_all_should_take_and_sends_one_of_its_own(make: Makes) -> None:
    """Its own is made up for each try: two tries would be two orders. Under another name ours is sent."""
    exchange = await make("coinbase", secret=a_key())
    with passage(ORDER.client_order_id, is_trial=True) as seen, pytest.raises(Stopped):
        await exchange.create_order(
            SYMBOL, "limit", "buy", 1000.0, 1000.0, {"clientOrderId": ORDER.client_order_id}
        )
    assert seen.asked == []
    assert await ways(exchange) == Ways("client_order_id", None)


async def test_kraken_sends_our_id_under_one_name_and_asks_for_it_under_another(make: Makes) -> None:
    exchange = await make("kraken")
    with passage(ORDER.client_order_id, is_trial=True) as seen, pytest.raises(Stopped):
        await exchange.fetch_order("", SYMBOL, {"clientOrderId": ORDER.client_order_id})
    assert "userref=" + ORDER.client_order_id in seen.asked[0].body
    assert await ways(exchange) == Ways("clientOrderId", None)


async def test_no_answer_to_what_an_exchange_asks_first_proves_nothing(
    make: Makes, ccxt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some look first what kind of account it is; when that fails, the next try may well do."""

    async def away(*_: object) -> None:
        raise ccxt.RequestTimeout("away")

    exchange = await make("bybit")
    monkeypatch.setattr(ccxt.bybit, "fetch", away)
    account = ExchangeAccount(exchange, Errors(ccxt, "bybit"), {})
    with pytest.raises(OutcomeUnknown, match="what an order would send"):
        await account.begin()
    with pytest.raises(NotSent):
        await account.submit(ORDER)


async def test_a_question_that_names_our_id_as_something_else_is_not_relied_upon(
    make: Makes, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange: Any = await make("okx")

    async def astray(_: str, __: str, params: dict[str, str]) -> None:
        await exchange.fetch(f"https://exchange.invalid/order?userref={next(iter(params.values()))}")

    monkeypatch.setattr(exchange, "fetch_order", astray)
    assert await ways(exchange) == Ways("clientOrderId", None)


async def test_where_our_id_would_not_arrive_no_account_is_opened(make: Makes, ccxt: Any) -> None:
    for name in ("bit2c", "gate", "luno"):
        account = ExchangeAccount(await make(name), Errors(ccxt, name), {})
        with pytest.raises(NotOpened, match="without our id in it"):
            await account.begin()


async def test_an_exchange_promises_no_more_than_is_known_of_it(make: Makes, ccxt: Any) -> None:
    said = {"dedupe": "open_orders", "shows_closed": True}
    for name, settings, dedupe, shows_closed in (
        ("kraken", {}, Dedupe.NONE, False),
        ("kraken", said, Dedupe.NONE, False),  # it cannot be asked for our id, whatever is said
        ("okx", {}, Dedupe.NONE, False),
        ("okx", said, Dedupe.OPEN_ORDERS, True),
        ("okx", {"dedupe": "often"}, Dedupe.NONE, False),
        ("alpaca", {}, Dedupe.ACCOUNT, True),
    ):
        account = ExchangeAccount(await make(name), Errors(ccxt, name), settings)
        await account.begin()
        assert (account.traits.dedupe, account.traits.shows_closed) == (dedupe, shows_closed), name


async def test_what_an_exchange_would_round_is_not_sent(make: Makes, ccxt: Any) -> None:
    account = ExchangeAccount(await make("kraken"), Errors(ccxt, "kraken"), {})
    await account.begin()
    for words, code in (
        ({}, None),
        ({"quantity": Decimal("0.12345678")}, None),
        ({"quantity": Decimal("0.123456789")}, "precision"),
        ({"limit_price": Decimal("1.123456789")}, "precision"),
        ({"quantity": Decimal("12345678901.12345678")}, "precision"),  # more than a float holds
        ({"time_in_force": "day"}, "time_in_force"),
        ({"symbol": "NOBODY/USD"}, "unknown_symbol"),
    ):
        order = an_order(**words)
        found = account.objection(order)
        assert (found and found.code) == code, words
        if found is not None:
            with pytest.raises(Refused):
                await account.submit(order)


def a_key() -> str:
    made_now = ec.generate_private_key(ec.SECP256R1())
    return made_now.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
