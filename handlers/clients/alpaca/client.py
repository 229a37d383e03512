"""Alpaca: one account, over its REST API. Credentials: `key_id` and `secret_key`, as its dashboard shows them.

A paper account is asked at the paper address and a live one at the live address, as the connection says; a setting
can put a double in the place of the paper address, and nothing in the place of the live one.

What an answer is taken for:

    2xx, an order with our id                    done
    400, 422 with Alpaca's words                 refused (a client order id that is taken: duplicate)
    403 with Alpaca's words                      refused, if it was to place an order, else bad credentials
    401                                          bad credentials
    429                                          too fast
    404 with Alpaca's words and a code           there is no such order
    no address, no connection                    not sent
    anything else                                unknown: a time-out, a cut, a 5xx, a redirect, a page of a proxy …
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import quote

from handlers.clients.alpaca.http import Line, base_of
from handlers.clients.alpaca.words import (
    LONGEST_CLIENT_ID,
    AlpacaClock,
    AlpacaFill,
    AlpacaOrder,
    AlpacaPosition,
    is_crypto,
    objection,
    to_send,
)
from handlers.clients.broker.account import Account, NotOpened
from handlers.clients.broker.broker import (
    BrokerOrder,
    BrokerPosition,
    Dedupe,
    DuplicateClientId,
    Fill,
    Hours,
    OrderRequest,
    OutcomeUnknown,
    Refused,
    Traits,
)

ORDERS_A_PAGE: Final = 500
FILLS_A_PAGE: Final = 100
"""The most that Alpaca lists at once."""
FRESH: Final = timedelta(minutes=1)
"""How long the market clock is kept: it can close early."""
_FORBIDDEN: Final = range(40_300_000, 40_400_000)
TRAITS: Final = Traits(
    Dedupe.ACCOUNT,
    settle=timedelta(seconds=5),
    misses=1,
    shows_closed=True,
    longest_client_id=LONGEST_CLIENT_ID,
)


async def open_alpaca(account: Account) -> Alpaca:
    """Asks nobody anything yet."""
    found = await account.credentials("key_id", "secret_key")
    if not all(value.isascii() and value.isprintable() for value in found.values.values()):
        raise NotOpened(
            f"The credentials of {account.connection} are none of Alpaca's: these are plain letters."
        )
    return Alpaca(
        base_of(account.connection.environment, account.settings),
        {
            "APCA-API-KEY-ID": found.values["key_id"],
            "APCA-API-SECRET-KEY": found.values["secret_key"],
        },
    )


class Alpaca:
    """One account. Made by `open_alpaca`."""

    traits = TRAITS

    def __init__(self, base: str, headers: Mapping[str, str]) -> None:
        self._line = Line(base, headers)
        self._hours: Hours | None = None
        self._hours_until = 0.0

    def objection(self, order: OrderRequest) -> Refused | None:
        return objection(order)

    async def submit(self, order: OrderRequest) -> BrokerOrder:
        answer = await self._line.ask("POST", "/v2/orders", body=to_send(order))
        error = answer.error
        if error is not None and _is_refusal(answer.status, error.code):
            said = error.message.lower()
            if "client_order_id" in said and "unique" in said:
                raise DuplicateClientId("Alpaca has an order with this client order id.")
            raise Refused(_code(answer.status, said), error.message[:300])
        found = answer.done().read(AlpacaOrder)
        return _whole(found, found.client_order_id == order.client_order_id)

    async def find(self, client_order_id: str, symbol: str) -> BrokerOrder | None:  # noqa: ARG002 - others need it
        found = await self._order("/v2/orders:by_client_order_id", {"client_order_id": client_order_id})
        return None if found is None else _whole(found, found.client_order_id == client_order_id)

    async def get(self, broker_order_id: str, symbol: str) -> BrokerOrder | None:  # noqa: ARG002 - others need it
        found = await self._order(f"/v2/orders/{quote(broker_order_id, safe='')}", {})
        return None if found is None else _whole(found, found.id == broker_order_id)

    async def cancel(self, broker_order_id: str, symbol: str) -> None:  # noqa: ARG002
        answer = await self._line.ask("DELETE", f"/v2/orders/{quote(broker_order_id, safe='')}")
        if answer.error is not None and (answer.status == 422 or answer.is_missing):
            return  # it has ended, or was never here
        answer.done()

    async def open_orders(self) -> Sequence[BrokerOrder]:
        """Page by page from the oldest on. A page begins with what the last one ended with, so that none is missed."""
        found: dict[str, AlpacaOrder] = {}
        after: dict[str, str] = {}
        while True:
            asked = {"status": "open", "direction": "asc", "limit": str(ORDERS_A_PAGE)} | after
            page = (await self._line.ask("GET", "/v2/orders", asked)).done().read_all(AlpacaOrder)
            new = {one.id: one for one in page if one.id not in found}
            found |= new
            if len(page) < ORDERS_A_PAGE:
                return [order for one in found.values() if (order := one.in_our_words()) is not None]
            if not new:
                raise OutcomeUnknown("Alpaca's list of open orders cannot be read to its end.")
            last = max(one.submitted_at or one.created_at for one in page)
            after = {"after": _text(last - timedelta(microseconds=1))}

    async def fills(self, since: datetime) -> Sequence[Fill]:
        found: dict[str, AlpacaFill] = {}
        asked = {"after": _text(since), "direction": "asc", "page_size": str(FILLS_A_PAGE)}
        while True:
            answer = await self._line.ask("GET", "/v2/account/activities/FILL", asked)
            page = answer.done().read_all(AlpacaFill)
            new = {one.id: one for one in page if one.id not in found}
            found |= new
            if len(page) < FILLS_A_PAGE:
                return sorted((one.in_our_words() for one in found.values()), key=lambda fill: fill.filled_at)
            if not new:
                raise OutcomeUnknown("Alpaca's list of fills cannot be read to its end.")
            asked["page_token"] = page[-1].id

    async def positions(self) -> Sequence[BrokerPosition]:
        page = (await self._line.ask("GET", "/v2/positions")).done().read_all(AlpacaPosition)
        return [one.in_our_words() for one in page]

    async def hours(self, symbol: str) -> Hours:
        if is_crypto(symbol):
            return Hours(is_open=True, changes_at=None)
        if self._hours is None or time.monotonic() >= self._hours_until:
            clock = (await self._line.ask("GET", "/v2/clock")).done().read(AlpacaClock)
            self._hours = Hours(clock.is_open, clock.changes_at)
            keep = min(clock.changes_at - clock.timestamp, FRESH)
            self._hours_until = time.monotonic() + keep.total_seconds()
        return self._hours

    async def close(self) -> None:
        await self._line.close()

    async def _order(self, path: str, params: Mapping[str, str]) -> AlpacaOrder | None:
        answer = await self._line.ask("GET", path, params)
        return None if answer.is_missing else answer.done().read(AlpacaOrder)


def _whole(found: AlpacaOrder, is_asked_for: bool) -> BrokerOrder:
    order = found.in_our_words()
    if order is None or not is_asked_for:
        raise OutcomeUnknown("Alpaca answered with another order than the one that was asked for.")
    return order


def _is_refusal(status: int, code: int | None) -> bool:
    """A 403 is about the account's money when its code says so, else about the credentials."""
    return status in {400, 422} or (status == 403 and code in _FORBIDDEN)


def _code(status: int, said: str) -> str:
    if "insufficient" in said:
        return "insufficient_funds"
    return "forbidden" if status == 403 else "invalid_order"


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
