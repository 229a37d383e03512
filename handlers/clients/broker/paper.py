"""Our own paper broker as an adapter: money that is none, books in our own database, and no credentials.

A connection's account has the connection's id, and is opened with it. Settings of the connection, all optional:

    cash        what the account begins with, as text: "100000"
    feed        whose quotes it trades on
    rules       what its broker is like: paper/words.py (Settings) has them, {"market": "always"} for instance
    account_id  another account that is there already
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import httpx

import paper
from handlers.clients.broker.account import Account, NotOpened
from handlers.clients.broker.broker import (
    BadCredentials,
    BrokerOrder,
    BrokerPosition,
    BrokerStatus,
    Dedupe,
    DuplicateClientId,
    Fill,
    Hours,
    NotSent,
    OrderRequest,
    OutcomeUnknown,
    Refused,
    TooFast,
    Traits,
)
from handlers.clients.database import CallFailed, call
from paper.store import Store

if TYPE_CHECKING:
    from handlers.clients.database import Database

SETTLE: Final = timedelta(seconds=5)
"""A request that lands late does so within this."""
LONGEST_CLIENT_ID: Final = 128


async def open_paper(account: Account) -> PaperAccount:
    """Opens the account in the books, if it is not there yet."""
    connection = account.connection
    if connection.environment != "paper":
        raise NotOpened(f"Paper money is not live: {connection} has to be one of the environment paper.")
    settings = connection.settings
    account_id = str(settings.get("account_id") or connection.id)
    call_paper = _calls(account.db)
    with_defaults = {name: settings[name] for name in ("cash", "feed") if name in settings}
    async with _told():
        if "account_id" not in settings:
            rules_asked: object = settings.get("rules", {})
            await call_paper(
                "open_paper_account", {"opened": {"id": account_id, "settings": rules_asked, **with_defaults}}
            )
        try:
            rules = (await Store(call_paper).load(account_id, {})).book.settings
        except paper.Unusable as unusable:
            raise NotOpened(f"{connection} cannot be used: {unusable}.") from None
    return PaperAccount(paper.PaperBroker(call_paper, account_id), Dedupe(rules.dedupe))


def _calls(db: Database) -> paper.Call:
    async def one(function: str, arguments: Mapping[str, object]) -> Mapping[str, object]:
        return await call(db, function, **arguments)

    return one


@dataclass(frozen=True, slots=True)
class PaperAccount:
    """One account. Made by `open_paper`."""

    _broker: paper.PaperBroker
    _dedupe: Dedupe

    @property
    def traits(self) -> Traits:
        return Traits(self._dedupe, SETTLE, misses=2, shows_closed=True, longest_client_id=LONGEST_CLIENT_ID)

    def objection(self, order: OrderRequest) -> Refused | None:
        if len(order.client_order_id) > LONGEST_CLIENT_ID:
            return Refused(
                "invalid_order", f"A client order id has at most {LONGEST_CLIENT_ID} letters here."
            )
        return None  # the broker itself is near, and knows

    async def submit(self, order: OrderRequest) -> BrokerOrder:
        request = paper.Request(
            client_order_id=order.client_order_id,
            symbol=order.symbol,
            side=order.side,
            order_type=order.order_type,
            time_in_force=order.time_in_force,
            quantity=order.quantity,
            limit_price=order.limit_price,
            stop_price=order.stop_price,
        )
        async with _told():
            return _order(await self._broker.submit(request))

    async def find(self, client_order_id: str, symbol: str) -> BrokerOrder | None:  # noqa: ARG002 - others need it
        async with _told():
            found = await self._broker.find(client_order_id)
            return None if found is None else _order(found)

    async def get(self, broker_order_id: str, symbol: str) -> BrokerOrder | None:  # noqa: ARG002 - others need it
        async with _told():
            found = await self._broker.get(broker_order_id)
            return None if found is None else _order(found)

    async def cancel(self, broker_order_id: str, symbol: str) -> None:  # noqa: ARG002 - others need it
        async with _told():
            await self._broker.cancel(broker_order_id)

    async def open_orders(self) -> Sequence[BrokerOrder]:
        async with _told():
            return [_order(one) for one in await self._broker.open_orders()]

    async def fills(self, since: datetime) -> Sequence[Fill]:
        async with _told():
            return [
                Fill(
                    broker_fill_id=one.id,
                    broker_order_id=one.order_id,
                    quantity=one.quantity,
                    price=one.price,
                    filled_at=one.filled_at,
                    commission=one.fee,
                    symbol=one.symbol,
                )
                for one in await self._broker.fills(since)
            ]

    async def positions(self) -> Sequence[BrokerPosition]:
        async with _told():
            return [
                BrokerPosition(one.symbol, one.quantity, one.avg_entry_price, one.current_price)
                for one in await self._broker.positions()
            ]

    async def hours(self, symbol: str) -> Hours:  # noqa: ARG002 - one market an account
        async with _told():
            found = await self._broker.hours()
            return Hours(found.is_open, found.changes_at)

    async def close(self) -> None:
        """Nothing of it is open."""


@asynccontextmanager
async def _told() -> AsyncIterator[None]:
    """In the words of an adapter. The database may have done what it did not say."""
    try:
        yield
    except paper.Refused as refused:
        raise Refused(refused.code, str(refused)) from None
    except paper.DuplicateClientId as duplicate:
        raise DuplicateClientId(str(duplicate)) from None
    except paper.Fault as fault:
        match fault.status:
            case 429:
                raise TooFast(timedelta(seconds=fault.after)) from None
            case 401:
                raise BadCredentials("The paper broker was asked not to let anybody in.") from None
            case _:
                raise OutcomeUnknown(f"The paper broker did not answer: {fault}.") from None
    except paper.Unusable as unusable:
        raise NotSent(f"The paper broker does not serve: {unusable}.") from None
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise NotSent(f"The paper broker's books cannot be reached ({type(error).__name__}).") from None
    except (CallFailed, httpx.HTTPError) as error:
        raise OutcomeUnknown(f"The paper broker's books did not answer ({type(error).__name__}).") from None


def _order(found: paper.Order) -> BrokerOrder:
    return BrokerOrder(
        broker_order_id=found.id,
        client_order_id=found.client_order_id,
        symbol=found.symbol,
        side=found.side,
        order_type=found.order_type,
        time_in_force=found.time_in_force,
        quantity=found.quantity,
        status=BrokerStatus(found.status),
        filled_quantity=found.filled_quantity,
        filled_avg_price=found.filled_avg_price,
        updated_at=found.updated_at,
        limit_price=found.limit_price,
        stop_price=found.stop_price,
        reason=found.reason,
    )
