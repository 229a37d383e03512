"""A broker with every fault, in virtual time: what really arrived, whatever anybody was told."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

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
from tests.handlers.broker.simulation.faults import FIND, HOURS, SUBMIT, Faults
from tests.handlers.broker.simulation.virtual_time import Time
from tests.handlers.broker.simulation.wire import die

EPOCH: Final = datetime(2026, 1, 5, 15, tzinfo=UTC)
SETTLE: Final = 10.0
LATEST: Final = 8.0
"""Seconds after which the latest request has landed; less than SETTLE, as a broker's traits promise."""


@dataclass
class Placed:
    """An order that arrived."""

    request: OrderRequest
    number: int
    at: float
    fills_at: float
    canceled_at: float | None = None

    def ended(self, now: float) -> bool:
        return self.fills_at <= now or self.canceled_at is not None

    @property
    def broker_order_id(self) -> str:
        return f"{self.request.client_order_id}-{self.number}"


@dataclass
class Exchange:
    """One account. Only its owner's one order is ever sent to it, so two of them are one too many."""

    time: Time
    faults: Faults
    traits: Traits
    breaks_its_word: bool
    """Requests may land after the settle time."""
    refuses: bool
    """It refuses the order, for certain, when it is asked in peace."""
    funds_first: bool
    """It looks at the money first, which the same order may have bound already, and at the id afterwards."""
    orders: list[Placed] = field(default_factory=list[Placed])
    submissions: int = 0
    stale: int = 0
    """Market orders that left more than two minutes, and what a submission lasts, after they were placed."""
    _under_way: list[tuple[float, OrderRequest]] = field(default_factory=list[tuple[float, OrderRequest]])

    def land(self, until: float) -> None:
        """What is under way arrives."""
        due = sorted((one for one in self._under_way if one[0] <= until), key=lambda one: one[0])
        self._under_way = [one for one in self._under_way if one[0] > until]
        for at, request in due:
            if not self._is_taken(request, at):
                self._place(request, at)

    def _is_taken(self, request: OrderRequest, at: float) -> bool:
        same = [one for one in self.orders if one.request.client_order_id == request.client_order_id]
        match self.traits.dedupe:
            case Dedupe.ACCOUNT:
                return bool(same)
            case Dedupe.OPEN_ORDERS:
                return not all(one.ended(at) for one in same)
            case Dedupe.NONE:
                return False

    def _place(self, request: OrderRequest, at: float) -> Placed:
        wait = self.faults.dice.choice((0.0, 1.0, 30.0, 10_000_000.0))
        placed = Placed(request, len(self.orders), at, at + wait)
        self.orders.append(placed)
        return placed

    def objection(self, order: OrderRequest) -> Refused | None:
        return None

    async def submit(self, order: OrderRequest) -> BrokerOrder:
        dice = self.faults.dice
        fault = self.faults.draw("submit", SUBMIT)
        if fault == "crash_before":
            die()
        await self.time.sleep(dice.uniform(0.01, 0.2))
        match fault:
            case "not_sent":
                raise NotSent("no connection")
            case "too_fast":
                raise TooFast(timedelta(seconds=dice.choice((1, 3, 30))))
            case "bad_credentials":
                raise BadCredentials("no")
            case "lost_before" | "503":
                self.submissions += 1
                await self.time.sleep(10 if fault == "lost_before" else 0.1)
                raise OutcomeUnknown(fault)
            case "lands_late":
                self.submissions += 1
                late = self.faults.lasts("lands_late", 0, LATEST)
                if self.breaks_its_word and dice.random() < 0.5:
                    late = dice.uniform(0, 120)
                self._leave(order, late)
                await self.time.sleep(dice.choice((0.1, 10)))
                raise OutcomeUnknown("time-out")
            case _:
                return await self._answer(order, fault)

    async def _answer(self, order: OrderRequest, fault: str | None) -> BrokerOrder:
        dice = self.faults.dice
        self.submissions += 1
        self.land(self.time.now)
        self._note_age(order)
        poor = self.refuses or (self.funds_first and bool(self.orders))
        if poor and fault is None:
            raise Refused("insufficient_funds", "There is too little money.")
        if self._is_taken(order, self.time.now):
            raise DuplicateClientId("taken")
        if poor:
            raise OutcomeUnknown("nobody heard that it was refused")
        placed = self._place(order, self.time.now)
        match fault:
            case "lost_answer":
                await self.time.sleep(10)
            case "freeze_in_call":
                await self.time.sleep(self.faults.freeze("freeze_in_call"))
            case "slow":
                await self.time.sleep(dice.uniform(1, 9))
            case _:
                await self.time.sleep(dice.uniform(0.01, 0.2))
        if fault == "crash_after":
            die()
        if fault in {"lost_answer", "accepted_and_504"}:
            raise OutcomeUnknown(fault)
        return self.shown(placed)

    def _leave(self, order: OrderRequest, late: float) -> None:
        self._note_age(order)
        if not self.refuses:
            self._under_way.append((self.time.now + late, order))

    def _note_age(self, order: OrderRequest) -> None:
        self.stale += order.order_type == "market" and self.time.now > 120 + 20

    def shown(self, placed: Placed) -> BrokerOrder:
        now = self.time.now
        order = placed.request
        filled = placed.canceled_at is None and placed.fills_at <= now
        status = BrokerStatus.FILLED if filled else BrokerStatus.ACCEPTED
        if placed.canceled_at is not None:
            status = BrokerStatus.CANCELED
        return BrokerOrder(
            broker_order_id=placed.broker_order_id,
            client_order_id=order.client_order_id,
            symbol=order.symbol,
            side=order.side,
            order_type=order.order_type,
            time_in_force=order.time_in_force,
            quantity=order.quantity,
            status=status,
            filled_quantity=order.quantity if filled else Decimal(),
            filled_avg_price=Decimal(10) if filled else None,
            updated_at=EPOCH
            + timedelta(seconds=placed.fills_at if filled else placed.canceled_at or placed.at),
        )

    async def find(self, client_order_id: str, symbol: str) -> BrokerOrder | None:
        lagged = self.faults.drawn("lags") >= self.traits.misses - 1
        fault = self.faults.draw("find", FIND, frozenset({"lags"} if lagged else ()))
        await self.time.sleep(self.faults.dice.uniform(0.01, 0.2))
        if fault == "crash":
            die()
        if fault == "not_sent":
            raise NotSent("no connection")
        if fault == "fails":
            await self.time.sleep(10)
            raise OutcomeUnknown("no answer")
        found = None if fault == "lags" else self._look(client_order_id)
        if fault == "freeze_with_answer":
            await self.time.sleep(self.faults.freeze(fault))
        return found

    def _look(self, client_order_id: str) -> BrokerOrder | None:
        now = self.time.now
        self.land(now)
        shown = [
            one
            for one in self.orders
            if one.request.client_order_id == client_order_id
            and (self.traits.shows_closed or not one.ended(now))
        ]
        return self.shown(shown[0]) if shown else None

    async def get(self, broker_order_id: str, symbol: str) -> BrokerOrder | None:
        await self.time.sleep(0.1)
        self.land(self.time.now)
        return next((self.shown(one) for one in self.orders if one.broker_order_id == broker_order_id), None)

    async def cancel(self, broker_order_id: str, symbol: str) -> None:
        fault = self.faults.draw("find", {"fails": 8, "lost": 8})
        await self.time.sleep(0.1)
        self.land(self.time.now)
        for one in self.orders:
            if one.broker_order_id == broker_order_id and not one.ended(self.time.now) and fault != "fails":
                one.canceled_at = self.time.now
        if fault is not None:
            raise OutcomeUnknown("no answer")

    async def open_orders(self) -> Sequence[BrokerOrder]:
        raise NotImplementedError

    async def fills(self, since: datetime) -> Sequence[Fill]:
        raise NotImplementedError

    async def positions(self) -> Sequence[BrokerPosition]:
        raise NotImplementedError

    async def hours(self, symbol: str) -> Hours:
        match self.faults.draw("hours", HOURS):
            case "freeze":
                await self.time.sleep(self.faults.freeze("freeze"))
            case "slow":
                await self.time.sleep(self.faults.lasts("slow", 2, 8))
            case "not_sent":
                raise NotSent("no connection")
            case "crash":
                die()
            case _:
                pass
        return Hours(is_open=True, changes_at=None)

    async def close(self) -> None:
        pass
