"""Any exchange that ccxt knows: a connection's broker is `ccxt:` and its name there, `ccxt:kraken`.

Credentials: the names that the exchange needs, in small letters: `api_key`, `secret`, for some `password`, `uid` and
others. A paper account is one in the exchange's own sandbox, and cannot be opened where there is none. Settings of the
connection, none of them secret:

    quote         the currency that counts as money and not as a position: USD, if nothing is said
    options       what the library calls the exchange's options, such as {"defaultType": "swap"}
    dedupe        account or open_orders, and
    shows_closed  true: what you know of an exchange and we do not; believed where orders are looked up by our id

Some exchanges list orders or trades only of one symbol, or not at all. There our orders are looked at one by one, and
what was placed by hand, or single executions, are not seen; positions are. Contracts are counted, at the price of one.

Before the first order of a kind it is proven that our id would be sent (proof.py); otherwise it is refused.
What a submission's error means is read from how far its request came (ccxt.py).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from handlers.clients.broker.account import Account, NotOpened
from handlers.clients.broker.broker import (
    BrokerOrder,
    BrokerPosition,
    BrokerStatus,
    Dedupe,
    Fill,
    Hours,
    NotSent,
    OrderRequest,
    OutcomeUnknown,
    Refused,
    Traits,
)
from handlers.clients.exchange.ccxt import Exchange, Words, library, made, passage
from handlers.clients.exchange.errors import Declined, Errors, Missing, Unlisted
from handlers.clients.exchange.lists import Pages
from handlers.clients.exchange.proof import Ways, prove
from handlers.clients.exchange.words import balances_of, fill_of, inner, order_of, positions_of
from listener import Setting

CCXT_PAPER_API_BASE = Setting(
    "CCXT_PAPER_API_BASE",
    'set it only to use doubles of exchanges: {"alpaca": "http://…"}; live accounts are never asked there',
    required=False,
    secret=False,
)
TRIAL: Final = timedelta(seconds=3)
"""For the proof before the first order of a kind; some exchanges are asked for the kind of account."""
LOOK_BACK: Final = timedelta(days=2)
"""How far lists are read for an order of ours: it is looked for soon after it was sent."""
FOR_EVER: Final = frozenset({"alpaca"})
"""Exchanges that refuse a client order id for ever, and list what is closed with it."""
ASCENDING: Final = frozenset({"alpaca"})
"""Exchanges whose lists begin with the oldest, when they are asked for it."""
PROBE: Final = "pe0123456789abcdef0123456789abcdef"
_OURS: Final = {"apiKey": "api_key", "privateKey": "private_key", "walletAddress": "wallet_address"}


async def open_exchange(account: Account) -> ExchangeAccount:
    """Reads the exchange's markets, and tries what an order would send. Places none."""
    connection = account.connection
    name = connection.broker.partition(":")[2]
    ccxt = await library()
    if name not in ccxt.exchanges:
        raise NotOpened(f"ccxt knows no exchange {name!r}, which {connection} names.")
    exchange = made(ccxt, name, await _credentials(account, ccxt, name))
    opened = ExchangeAccount(exchange, Errors(ccxt, name), connection.settings)
    try:
        if connection.environment == "paper":
            _to_sandbox(exchange, account, ccxt)
        await opened.begin()
    except BaseException:
        await exchange.close()
        raise
    return opened


async def _credentials(account: Account, ccxt: Any, name: str) -> Words:
    needed: dict[str, bool] = getattr(ccxt, name)().requiredCredentials
    theirs = {_OURS.get(one, one): one for one, is_needed in needed.items() if is_needed}
    found = await account.credentials(*theirs)
    options = account.connection.settings.get("options")
    return {theirs[one]: value for one, value in found.values.items()} | (
        {"options": options} if isinstance(options, dict) else {}
    )


def _to_sandbox(exchange: Exchange, account: Account, ccxt: Any) -> None:
    try:
        exchange.set_sandbox_mode(True)
    except ccxt.NotSupported:
        raise NotOpened(
            f"{exchange.id} has no sandbox, so {account.connection} cannot be a paper account. Use our paper broker."
        ) from None
    if not (said := account.settings.get(CCXT_PAPER_API_BASE.name)):
        return
    try:
        base = dict(json.loads(said)).get(exchange.id)
    except (ValueError, TypeError):
        raise NotOpened(
            f"{CCXT_PAPER_API_BASE.name} is not as it should be: {CCXT_PAPER_API_BASE.where}."
        ) from None
    if base is not None:
        exchange.urls["api"] = {one: str(base).rstrip("/") for one in exchange.urls["api"]}


class ExchangeAccount:
    """One account. Made by `open_exchange`."""

    def __init__(self, exchange: Exchange, errors: Errors, settings: Words) -> None:
        self._exchange = exchange
        self._errors = errors
        self._settings = settings
        self._proven: dict[tuple[str, ...], Ways | None] = {}
        self._asks: str | None = None

    async def begin(self) -> None:
        """Raises NotOpened for an exchange that would not carry our id."""
        with self._errors.of_reading("its markets"):
            await self._exchange.load_markets()
        markets = self._exchange.markets or {}
        active = [one for one in markets.values() if one.get("active") is not False]
        first = min(active, key=lambda one: (not one.get("spot"), str(one["symbol"])), default=None)
        if first is None:
            raise NotOpened(f"{self._exchange.id} shows no market that is open.")
        probe = OrderRequest(PROBE, str(first["symbol"]), "buy", "limit", "gtc", Decimal(1000), Decimal(1000))
        ways = await self._ways(probe)
        if ways is None:
            raise NotOpened(
                f"{self._exchange.id} cannot be used: ccxt would send an order there without our id in it, or "
                "not so that it can be told, and then an order could be placed twice."
            )
        self._asks = ways.asks

    @property
    def traits(self) -> Traits:
        dedupe, shows_closed = Dedupe.NONE, False
        if self._exchange.id in FOR_EVER:
            dedupe, shows_closed = Dedupe.ACCOUNT, True
        elif self._asks is not None and self._settings.get("dedupe") in set(Dedupe):
            dedupe = Dedupe(str(self._settings["dedupe"]))
            shows_closed = self._settings.get("shows_closed") is True
        return Traits(
            dedupe, timedelta(seconds=60), misses=3, shows_closed=shows_closed, longest_client_id=36
        )

    def objection(self, order: OrderRequest) -> Refused | None:
        market = (self._exchange.markets or {}).get(order.symbol)
        if market is None:
            return Refused("unknown_symbol", f"{self._exchange.id} has no market {order.symbol}.")
        if order.time_in_force == "day" and order.order_type != "market":
            return Refused("time_in_force", f"{self._exchange.id} never closes: use gtc, ioc or fok.")
        to_precision = self._exchange.amount_to_precision, self._exchange.price_to_precision
        for what, value, exact in (
            ("quantity", order.quantity, to_precision[0]),
            ("price", order.limit_price, to_precision[1]),
            ("price", order.stop_price, to_precision[1]),
        ):
            if value is not None and not self._is_exact(order.symbol, value, exact):
                return Refused("precision", f"This {what} would be rounded by {self._exchange.id}.")
        return _size(inner(inner(market, "limits"), "amount"), order)

    def _is_exact(self, symbol: str, value: Decimal, exact: Any) -> bool:
        try:
            return Decimal(str(float(value))) == value == Decimal(exact(symbol, float(value)))
        except Exception:  # noqa: BLE001 - the library refuses what it would round to nothing
            return False

    async def submit(self, order: OrderRequest) -> BrokerOrder:
        if (objection := self.objection(order)) is not None:
            raise objection
        try:
            async with asyncio.timeout(TRIAL.total_seconds()):
                ways = await self._ways(order)
        except (OutcomeUnknown, TimeoutError):
            raise NotSent(f"{self._exchange.id} cannot be tried before such an order is sent.") from None
        if ways is None:
            raise Refused("unproven", f"{self._exchange.id} would not carry our id for such an order.")
        with passage(order.client_order_id) as passed, self._errors.of_submitting(passed):
            found = order_of(await self._send(order, ways.sends), order)
        if found is None:
            raise OutcomeUnknown(f"{self._exchange.id} answered with something that is no order.")
        return found

    async def _ways(self, order: OrderRequest) -> Ways | None:
        market = (self._exchange.markets or {}).get(order.symbol) or {}
        kind = (str(market.get("type")), order.order_type, order.time_in_force)
        if kind not in self._proven:
            with self._errors.of_reading("what an order would send"):
                self._proven[kind] = await prove(self._exchange, order, lambda name: self._send(order, name))
        return self._proven[kind]

    async def _send(self, order: OrderRequest, carries_id: str) -> Words:
        params: dict[str, object] = {carries_id: order.client_order_id}
        if order.time_in_force != "day":
            params["timeInForce"] = order.time_in_force.upper()
        if order.stop_price is not None:
            params["triggerPrice"] = float(order.stop_price)
        type_ = "limit" if order.limit_price is not None else "market"
        price = None if order.limit_price is None else float(order.limit_price)
        return await self._exchange.create_order(
            order.symbol, type_, order.side, float(order.quantity), price, params
        )

    async def find(self, client_order_id: str, symbol: str) -> BrokerOrder | None:
        if self._asks is not None:
            found = await self._look("", symbol, {self._asks: client_order_id})
            if found is not None and found.client_order_id != client_order_id:
                raise OutcomeUnknown(f"{self._exchange.id} answered with another order than ours.")
            return found
        return await self._listed(symbol, lambda order: order.client_order_id == client_order_id)

    async def _listed(self, symbol: str, is_it: Callable[[BrokerOrder], bool]) -> BrokerOrder | None:
        since = datetime.now(UTC) - LOOK_BACK
        lists = [
            "fetchOpenOrders",
            "fetchOrders" if self._exchange.has.get("fetchOrders") else "fetchClosedOrders",
        ]
        for name in lists:
            if self._exchange.has.get(name):
                for order in await self._orders(name, symbol, None if name == "fetchOpenOrders" else since):
                    if is_it(order):
                        return order
        return None

    async def get(self, broker_order_id: str, symbol: str) -> BrokerOrder | None:
        if self._exchange.has.get("fetchOrder"):
            return await self._look(broker_order_id, symbol, {})
        found = await self._listed(symbol, lambda order: order.broker_order_id == broker_order_id)
        if found is None:  # perhaps older than what was listed
            raise OutcomeUnknown(f"{self._exchange.id} does not list this order.")
        return found

    async def _look(self, id_: str, symbol: str, params: Words) -> BrokerOrder | None:
        try:
            with passage() as passed, self._errors.of_looking(passed):
                found = order_of(await self._exchange.fetch_order(id_, symbol, params))
        except Missing:
            return None
        if found is None:
            raise OutcomeUnknown(f"{self._exchange.id} answered with something that is no order.")
        return found

    async def cancel(self, broker_order_id: str, symbol: str) -> None:
        try:
            with passage() as passed, self._errors.of_canceling(passed):
                await self._exchange.cancel_order(broker_order_id, symbol)
        except Missing:
            return
        except Declined:
            found = await self.get(broker_order_id, symbol)
            if found is not None and found.status in {BrokerStatus.ACCEPTED, BrokerStatus.PARTIALLY_FILLED}:
                raise OutcomeUnknown(f"{self._exchange.id} did not cancel it.") from None

    async def open_orders(self) -> Sequence[BrokerOrder]:
        try:
            return await self._orders("fetchOpenOrders", None, None)
        except Unlisted:
            return []

    async def _orders(self, name: str, symbol: str | None, since: datetime | None) -> list[BrokerOrder]:
        read = {
            "fetchOpenOrders": self._exchange.fetch_open_orders,
            "fetchOrders": self._exchange.fetch_orders,
            "fetchClosedOrders": self._exchange.fetch_closed_orders,
        }[name]
        with passage() as passed, self._errors.of_reading("its orders", passed):
            found = await self._pages(name).all(lambda since, limit: read(symbol, since, limit), since)
            return [order for one in found if (order := order_of(one)) is not None]

    async def fills(self, since: datetime) -> Sequence[Fill]:
        try:
            return await self._fills(since)
        except Unlisted:
            return []

    async def _fills(self, since: datetime) -> list[Fill]:
        with passage() as passed, self._errors.of_reading("its trades", passed):
            read = self._exchange.fetch_my_trades
            asked: Words = {"direction": "asc"} if self._exchange.id in ASCENDING else {}
            pages = self._pages("fetchMyTrades")
            found = await pages.all(lambda since, limit: read(None, since, limit, asked), since)
            fills = [fill for one in found if (fill := fill_of(one)) is not None]
        return sorted(fills, key=lambda fill: fill.filled_at)

    def _pages(self, name: str) -> Pages:
        kind = str(self._exchange.options.get("defaultType") or "spot")
        largest = inner(inner(self._exchange.features or {}, kind), name).get("limit")
        return Pages(int(largest) if largest else None, self._exchange.id in ASCENDING)

    async def positions(self) -> Sequence[BrokerPosition]:
        with passage() as passed, self._errors.of_reading("what it holds", passed):
            if self._exchange.has.get("fetchPositions") is True and self._holds_contracts():
                return list(positions_of(await self._exchange.fetch_positions()))
            balance = await self._exchange.fetch_balance()
            if not inner(balance, "total"):
                raise OutcomeUnknown(f"{self._exchange.id} answered with something that is no balance.")
            quote = str(self._settings.get("quote") or "USD")
            return list(balances_of(balance, quote, self._exchange.markets or {}))

    def _holds_contracts(self) -> bool:
        return self._exchange.options.get("defaultType") not in {None, "spot", "margin"}

    async def hours(self, symbol: str) -> Hours:  # noqa: ARG002 - other brokers close
        return Hours(is_open=True, changes_at=None)

    async def close(self) -> None:
        await self._exchange.close()


def _size(amount: Words, order: OrderRequest) -> Refused | None:
    for word, is_beyond in (("min", order.quantity.__lt__), ("max", order.quantity.__gt__)):
        if amount.get(word) is not None and is_beyond(Decimal(str(amount[word]))) is True:
            return Refused("size", f"The exchange's {word}imum for {order.symbol} is {amount[word]}.")
    return None
