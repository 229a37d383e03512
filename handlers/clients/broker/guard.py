"""Holds every adapter to its word: a hard time-out, nothing raised but BrokerError, and no secret in its text.

What an adapter did not foresee is unknown, never a refusal; and its text, which is a stranger's, is left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Final

from handlers.clients.broker.broker import (
    BrokerAdapter,
    BrokerError,
    BrokerOrder,
    BrokerPosition,
    DuplicateClientId,
    Fill,
    Hours,
    NotSent,
    OrderRequest,
    OutcomeUnknown,
    Refused,
    Traits,
)

CALL: Final = timedelta(seconds=15)
"""For one order. An adapter's own time-outs are shorter, and say more."""
LIST: Final = timedelta(seconds=60)
"""For all pages of a list."""


class Guarded:
    """An adapter around another one."""

    def __init__(self, adapter: BrokerAdapter, secrets: Collection[str]) -> None:
        self._adapter = adapter
        self._secrets = secrets

    @property
    def traits(self) -> Traits:
        return self._adapter.traits

    def objection(self, order: OrderRequest) -> Refused | None:
        longest = self.traits.longest_client_id
        if len(order.client_order_id) > longest:
            return Refused("invalid_order", f"A client order id has at most {longest} letters here.")
        try:
            return self._adapter.objection(order)
        except Exception as error:  # noqa: BLE001 - of any kind
            raise NotSent(f"the order could not be weighed ({type(error).__name__})") from None

    async def submit(self, order: OrderRequest) -> BrokerOrder:
        with self._told("submit"):
            async with _at_most(CALL):
                return self._ours(await self._adapter.submit(order), order.client_order_id)

    async def find(self, client_order_id: str, symbol: str) -> BrokerOrder | None:
        with self._told("find", reads=True):
            async with _at_most(CALL):
                found = await self._adapter.find(client_order_id, symbol)
                return found and self._ours(found, client_order_id)

    async def get(self, broker_order_id: str, symbol: str) -> BrokerOrder | None:
        with self._told("get", reads=True):
            async with _at_most(CALL):
                return await self._adapter.get(broker_order_id, symbol)

    async def cancel(self, broker_order_id: str, symbol: str) -> None:
        with self._told("cancel"):
            async with _at_most(CALL):
                await self._adapter.cancel(broker_order_id, symbol)

    async def open_orders(self) -> Sequence[BrokerOrder]:
        with self._told("open_orders", reads=True):
            async with _at_most(LIST):
                return await self._adapter.open_orders()

    async def fills(self, since: datetime) -> Sequence[Fill]:
        with self._told("fills", reads=True):
            async with _at_most(LIST):
                return await self._adapter.fills(since)

    async def positions(self) -> Sequence[BrokerPosition]:
        with self._told("positions", reads=True):
            async with _at_most(LIST):
                return await self._adapter.positions()

    async def hours(self, symbol: str) -> Hours:
        with self._told("hours", reads=True):
            async with _at_most(CALL):
                return await self._adapter.hours(symbol)

    async def close(self) -> None:
        await self._adapter.close()

    @contextmanager
    def _told(self, what: str, *, reads: bool = False) -> Iterator[None]:
        try:
            yield
        except (Refused, DuplicateClientId) as error:
            if reads:
                raise OutcomeUnknown(f"{what}: {type(error).__name__} is no answer to a question") from None
            raise self._clean(error) from None
        except BrokerError as error:
            raise self._clean(error) from None
        except TimeoutError:
            raise OutcomeUnknown(f"{what}: no answer in time") from None
        except Exception as error:  # noqa: BLE001 - of any kind
            raise OutcomeUnknown(f"{what}: {type(error).__name__}") from None

    def _ours(self, order: BrokerOrder, client_order_id: str) -> BrokerOrder:
        """Some brokers do not repeat our id; another one is no answer to what was asked."""
        if order.client_order_id not in {None, client_order_id}:
            raise OutcomeUnknown("the broker answered with another order than the one that was asked for")
        return order

    def _clean(self, error: BrokerError) -> BrokerError:
        """Brokers quote in errors what they were sent."""
        error.args = tuple(self._without_secrets(str(one)) for one in error.args)
        return error

    def _without_secrets(self, text: str) -> str:
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, "‹secret›")
        return text


def _at_most(limit: timedelta) -> asyncio.Timeout:
    return asyncio.timeout(limit.total_seconds())
