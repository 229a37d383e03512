"""Questions to one account, each after a call of its limit was taken; and what a job does when there is no answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from random import uniform
from typing import TypeVar

from handlers.clients.broker.account import Connection
from handlers.clients.broker.broker import BrokerAdapter, BrokerError, TooFast
from handlers.clients.broker.brokers import Brokers
from handlers.clients.broker.order_words import Told, no_answer
from handlers.clients.database import Database, call
from listener import Snooze

Answer = TypeVar("Answer")


class Limited(TooFast):
    """Our own limit of this connection was reached, or it is held: nobody was asked."""


@dataclass(frozen=True, slots=True)
class Questions:
    """To one account. Other jobs may ask it as well: nothing is kept between two questions."""

    connection: Connection
    brokers: Brokers
    db: Database

    async def ask(self, what: Callable[[BrokerAdapter], Awaitable[Answer]]) -> Answer:
        """Raises what the adapter raises, and Limited."""
        taken = await call(self.db, "take_broker_calls", connection_id=self.connection.id)
        wait = timedelta(seconds=float(str(taken["wait_seconds"])))
        if wait:
            raise Limited(wait)
        async with self.brokers.at(self.connection) as adapter:
            return await what(adapter)

    async def trouble(self, error: BrokerError, look: int | None = None) -> Told | Snooze:
        """Writes down why there was no answer. The job comes back when there may be one; no attempt of it counts."""
        told = await call(
            self.db,
            "record_broker_trouble",
            broker_connection_id=self.connection.id,
            told=no_answer(error, self.connection)
            | ({"code": "limited"} if isinstance(error, Limited) else {}),
            look=look,
        )
        again = told["again_seconds"]
        if again is None:
            return {"outcome": "locked_out"}
        # A little later, so that those who wait for the same moment do not all come at it.
        return Snooze(timedelta(seconds=float(str(again))) * uniform(1, 1.25), str(error))
