"""Follows orders at their brokers, until each has ended and its executions are known.

    {}                          asks for a look at every connection that has an order to be looked at
    {"orderIds": ["…"]}         there is news of these: asks for a look at their connections, now
    {"brokerConnectionId": "…"} takes that look

A look is one call for all open orders, one for each due order that is not among them, and one for the executions. What
it sees is written by functions that let nothing go back (`sql/320_order_truth.sql`); who looks and when, one at a time
and never a pile, is in `sql/318_order_looks.sql`. A broker that does not answer puts off the looks at that connection;
one order that it does not answer for is looked at again later, and keeps nobody from seeing the others.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import sample
from typing import Final, Literal
from uuid import UUID

from pydantic import Field, TypeAdapter

from handlers.clients.broker.account import Connection
from handlers.clients.broker.broker import BrokerAdapter, BrokerError, BrokerOrder, Fill, OutcomeUnknown
from handlers.clients.broker.brokers import Brokers
from handlers.clients.broker.order_words import Told, seen, traits
from handlers.clients.broker.questions import Questions
from handlers.clients.database import Database, call
from listener import Job, Payload, Queue, Reject, Snooze, every, handler

SINGLE_LOOKS: Final = 10
"""In one look; what is left is due still, and looked at by the next one."""
UNANSWERED: Final = 3
"""So many orders of a look may bring no answer, each by itself: the others are looked at all the same."""
AT_ONCE: Final = 500
"""So many orders are written down in one transaction: a statement has its time limit."""
LAST_CALL: Final = timedelta(seconds=60)
"""From then on no single order is looked for any more: the connection is not held for ever."""


class MonitorOrders(Payload):
    """What there is news of; nothing to look whether something is due."""

    order_ids: list[UUID] | None = Field(default=None, max_length=1000)
    broker_connection_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class DueOrder:
    """An order that is to be looked at."""

    id: UUID
    client_order_id: str
    broker_order_id: str | None
    symbol: str
    status: str
    submission: int
    alone: bool
    """Whether it is looked at by itself when it is not among the open ones; else its executions say what is new."""


@dataclass(frozen=True, slots=True)
class Look:
    """A look that has begun."""

    look: int
    began_at: datetime
    connection: Connection
    orders: list[DueOrder]
    fills_since: datetime


@dataclass(slots=True)
class Sight:
    """What a look has seen so far."""

    orders: list[BrokerOrder] = field(default_factory=list[BrokerOrder])
    missing: list[UUID] = field(default_factory=list[UUID])
    unread: list[UUID] = field(default_factory=list[UUID])
    """Asked for, and nothing that could be read was answered: missing, if all else was."""
    looked_for: list[UUID] = field(default_factory=list[UUID])
    fills: Sequence[Fill] = ()
    unasked: bool = False
    """Whether there are more strangers than were looked for."""

    def told(self, ends: Literal["yes", "no", "unless_strangers"]) -> Told:
        """What record_orders_seen takes."""
        return {
            "orders": [seen(order) for order in self.orders],
            "missing": self.missing,
            "looked_for": self.looked_for,
            "fills": [
                {
                    "broker_fill_id": fill.broker_fill_id,
                    "broker_order_id": fill.broker_order_id,
                    "symbol": fill.symbol,
                    "quantity": fill.quantity,
                    "price": fill.price,
                    "commission": fill.commission,
                    "filled_at": fill.filled_at,
                }
                for fill in self.fills
            ],
            "unasked": self.unasked,
            "ends": ends,
        }


_LOOK: Final = TypeAdapter(Look)


@every(timedelta(minutes=5))
@handler(Queue.BROKER, timeout=timedelta(seconds=170))
async def monitor_orders(
    payload: MonitorOrders, *, job: Job, brokers: Brokers, db: Database
) -> dict[str, object] | Snooze:
    """The result says what was asked for, or what the look has brought."""
    if payload.order_ids is not None:
        return dict(await call(db, "hint_orders", order_ids=payload.order_ids))
    if payload.broker_connection_id is None:
        return await _sweep(db)
    begun = await call(
        db, "take_orders_to_check", broker_connection_id=payload.broker_connection_id, job_id=job.id
    )
    if begun["outcome"] == "unknown":
        raise Reject("There is no broker connection with this id.")
    if begun["outcome"] != "look":
        return dict(begun)
    look = _LOOK.validate_python(begun)
    return await _look(look, Questions(look.connection, brokers, db))


async def _sweep(db: Database) -> dict[str, object]:
    page: dict[str, object] = {}
    connections = enqueued = 0
    while True:
        swept = await call(db, "sweep_orders_to_check", **page)
        connections += int(str(swept["connections"]))
        enqueued += int(str(swept["enqueued"]))
        if swept["last"] is None:
            return {"connections": connections, "enqueued": enqueued}
        page = {"after": swept["last"]}


async def _look(look: Look, questions: Questions) -> dict[str, object] | Snooze:
    """All of one look. What was seen before a trouble is written down, too."""
    sight = Sight()

    async def record(ends: Literal["yes", "no", "unless_strangers"]) -> dict[str, object]:
        numbered = {"broker_connection_id": look.connection.id, "look": look.look}
        while len(sight.orders) > AT_ONCE:
            page = Sight(sight.orders[:AT_ONCE])
            await call(questions.db, "record_orders_seen", **numbered, told=page.told("no"))
            del sight.orders[:AT_ONCE]
        return dict(await call(questions.db, "record_orders_seen", **numbered, told=sight.told(ends)))

    try:
        sight.orders += await questions.ask(lambda adapter: adapter.open_orders())
    except BrokerError as error:
        return await questions.trouble(error, look.look)
    try:
        await _look_for_each(look, sight, questions)
        sight.fills = await questions.ask(lambda adapter: adapter.fills(look.fills_since))
    except BrokerError as error:
        await record("no")
        return await questions.trouble(error, look.look)
    sight.missing += sight.unread
    recorded = await record("unless_strangers")
    strangers = _STRANGERS.validate_python(recorded.pop("strangers"))
    if strangers:
        sight.orders, sight.missing, sight.looked_for = [], [], []
        try:
            await _look_for_strangers(strangers, sight, questions)
        except BrokerError as error:
            await record("no")
            return await questions.trouble(error, look.look)
        recorded = await record("yes")
        del recorded["strangers"]
    return recorded


async def _look_for_strangers(strangers: list["_Stranger"], sight: Sight, questions: Questions) -> None:
    """Any of them: one that is never told must not stand in the way of the others for ever."""
    sight.unasked = len(strangers) > SINGLE_LOOKS
    unanswered = 0
    for one in sample(strangers, min(len(strangers), SINGLE_LOOKS)):
        try:
            found = await questions.ask(one.get)
        except OutcomeUnknown:
            unanswered += 1
            if unanswered > UNANSWERED:
                raise
        else:
            sight.orders += [found] if found else []


async def _look_for_each(look: Look, sight: Sight, questions: Questions) -> None:
    """Those that are due and not among the open ones."""
    open_now = {order.broker_order_id for order in sight.orders}
    ours = {order.client_order_id for order in sight.orders}
    unseen = [
        one
        for one in look.orders
        if one.alone and one.broker_order_id not in open_now and one.client_order_id not in ours
    ]
    started = time.monotonic()
    for one in unseen[:SINGLE_LOOKS]:
        if time.monotonic() - started > LAST_CALL.total_seconds() or len(sight.unread) >= UNANSWERED:
            return
        try:
            await _look_for(one, look, sight, questions)
        except OutcomeUnknown:  # perhaps of this one alone, for which the others need not wait
            sight.unread.append(one.id)


async def _look_for(one: DueOrder, look: Look, sight: Sight, questions: Questions) -> None:
    """One order, by the broker's id; or by ours, when nobody knows whether the broker has it."""

    async def get(adapter: BrokerAdapter) -> tuple[BrokerOrder | None, Told]:
        if one.broker_order_id is not None:
            return await adapter.get(one.broker_order_id, one.symbol), {}
        return await adapter.find(one.client_order_id, one.symbol), traits(adapter.traits)

    found, told = await questions.ask(get)
    if one.broker_order_id is None:
        sight.looked_for.append(one.id)
        told |= {"found": seen(found) if found else None, "begun_at": look.began_at}
        await call(questions.db, "record_lookup", order_id=one.id, submission=one.submission, told=told)
    elif found is None:
        sight.missing.append(one.id)
    else:
        sight.orders.append(found)


@dataclass(frozen=True, slots=True)
class _Stranger:
    """An order of which only executions tell."""

    broker_order_id: str
    symbol: str | None

    async def get(self, adapter: BrokerAdapter) -> BrokerOrder | None:
        return await adapter.get(self.broker_order_id, self.symbol or "")


_STRANGERS: Final = TypeAdapter(list[_Stranger])
