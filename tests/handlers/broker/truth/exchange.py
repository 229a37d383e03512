"""A broker that a test moves by hand, and its adapter: orders, executions, holdings, and what it fails to show."""

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from handlers.clients.broker.broker import (
    BrokerError,
    BrokerOrder,
    BrokerPosition,
    BrokerStatus,
    Dedupe,
    Fill,
    Hours,
    OrderRequest,
    OutcomeUnknown,
    Refused,
    Traits,
)

OPEN = (BrokerStatus.ACCEPTED, BrokerStatus.PARTIALLY_FILLED)
TRAITS = Traits(Dedupe.ACCOUNT, timedelta(seconds=10), misses=2, shows_closed=True, longest_client_id=48)
Step = Callable[[], Awaitable[Any]]


@dataclass
class Exchange:
    """One account."""

    traits: Traits = TRAITS
    orders: dict[str, BrokerOrder] = field(default_factory=dict[str, BrokerOrder])
    executions: list[Fill] = field(default_factory=list[Fill])
    holdings: dict[str, Decimal] = field(default_factory=dict[str, Decimal])
    hidden: set[str] = field(default_factory=set[str])
    """Orders that it has lost from sight."""
    mute: set[str] = field(default_factory=set[str])
    """Orders about which it never answers."""
    late: set[str] = field(default_factory=set[str])
    """Orders of whose executions it does not tell yet."""
    troubles: deque[BrokerError | None] = field(default_factory=deque[BrokerError | None])
    """What the next calls come to instead of an answer."""
    meanwhile: dict[str, Step] = field(default_factory=dict[str, Step])
    """What happens once, while the answer to this call is under way: the answer is older."""
    calls: list[str] = field(default_factory=list[str])
    names_symbols: bool = True
    """Whether executions say what was traded."""

    # What happens there

    def place(
        self, symbol: str = "AAPL", side: str = "buy", quantity: str = "10", **words: Any
    ) -> BrokerOrder:
        """An order that it has accepted, by hand unless it carries one of our ids."""
        said: dict[str, Any] = {
            "broker_order_id": f"b{len(self.orders) + 1}",
            "client_order_id": None,
            "symbol": symbol,
            "side": side,
            "order_type": "market",
            "time_in_force": "gtc",
            "quantity": Decimal(quantity),
            "status": BrokerStatus.ACCEPTED,
            "filled_quantity": Decimal(),
            "filled_avg_price": None,
            "updated_at": datetime.now(UTC),
        }
        order = BrokerOrder(**said | words)
        self.orders[order.broker_order_id] = order
        return order

    def fill(self, order_id: str, quantity: str, price: str = "10", commission: str | None = None) -> None:
        """One execution more."""
        order, size, now = self.orders[order_id], Decimal(quantity), datetime.now(UTC)
        filled = order.filled_quantity + size
        spent = (order.filled_avg_price or 0) * order.filled_quantity + Decimal(price) * size
        self.orders[order_id] = replace(
            order,
            filled_quantity=filled,
            filled_avg_price=spent / filled,
            status=BrokerStatus.FILLED if filled >= order.quantity else BrokerStatus.PARTIALLY_FILLED,
            updated_at=now,
        )
        self.executions.append(
            Fill(
                f"f{len(self.executions) + 1}",
                order_id,
                size,
                Decimal(price),
                now,
                None if commission is None else Decimal(commission),
                order.symbol if self.names_symbols else None,
            )
        )
        self.move(order.symbol, size if order.side == "buy" else -size)

    def end(self, order_id: str, status: BrokerStatus = BrokerStatus.CANCELED) -> None:
        """It is over, whatever is filled of it."""
        self.orders[order_id] = replace(
            self.orders[order_id], status=status, updated_at=datetime.now(UTC), reason="said_so"
        )

    def move(self, symbol: str, quantity: Decimal) -> None:
        """So much more (or less) is held."""
        self.holdings[symbol] = self.holdings.get(symbol, Decimal()) + quantity

    # What it tells

    async def _answer(self, name: str, answer: Any) -> Any:
        self.calls.append(name)
        if step := self.meanwhile.pop(name, None):
            await step()
        if self.troubles and (trouble := self.troubles.popleft()) is not None:
            raise trouble
        return answer

    def _shown(self, order: BrokerOrder | None) -> BrokerOrder | None:
        return None if order is None or order.broker_order_id in self.hidden else order

    async def open_orders(self) -> Sequence[BrokerOrder]:
        shown = [one for one in self.orders.values() if one.status in OPEN and self._shown(one)]
        found: Sequence[BrokerOrder] = await self._answer("open_orders", shown)
        return found

    async def get(self, broker_order_id: str, symbol: str) -> BrokerOrder | None:
        if broker_order_id in self.mute:
            raise OutcomeUnknown("HTTP 500")
        found: BrokerOrder | None = await self._answer("get", self._shown(self.orders.get(broker_order_id)))
        return found

    async def find(self, client_order_id: str, symbol: str) -> BrokerOrder | None:
        ours = [one for one in self.orders.values() if one.client_order_id == client_order_id]
        found: BrokerOrder | None = await self._answer("find", self._shown(ours[0] if ours else None))
        return found

    async def fills(self, since: datetime) -> Sequence[Fill]:
        told = [
            one for one in self.executions if one.filled_at >= since and one.broker_order_id not in self.late
        ]
        found: Sequence[Fill] = await self._answer("fills", told)
        return found

    async def positions(self) -> Sequence[BrokerPosition]:
        held = [
            BrokerPosition(symbol, quantity, Decimal(9), Decimal(11))
            for symbol, quantity in self.holdings.items()
            if quantity
        ]
        found: Sequence[BrokerPosition] = await self._answer("positions", held)
        return found

    def objection(self, order: OrderRequest) -> Refused | None:
        raise NotImplementedError

    async def submit(self, order: OrderRequest) -> BrokerOrder:
        raise NotImplementedError

    async def cancel(self, broker_order_id: str, symbol: str) -> None:
        raise NotImplementedError

    async def hours(self, symbol: str) -> Hours:
        raise NotImplementedError

    async def close(self) -> None:
        """Nothing is open."""
