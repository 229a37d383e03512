"""Whatever happens at a broker, and whatever of it we miss: after a last look and sync, we know what it knows.

Orders of ours (heard of or not), orders by hand, partial fills, cancels, corrections, callbacks that are missed,
doubled and late, looks that fail and looks that overlap, in any sequence. `PULSE_EXAMPLES=500` tries more of them;
the same ones each time, until something here changes.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from handlers.clients.broker.broker import OrderRequest
from handlers.clients.broker.brokers import Account, Brokers
from handlers.clients.broker.order_words import seen
from handlers.clients.database import Database
from listener import Snooze
from paper.words import Request
from tests.handlers.broker.truth.books import Books, Line
from tests.handlers.broker.truth.conftest import Desk
from tests.handlers.broker.truth.exchange import Exchange
from tests.handlers.conftest import Json, Owner

EXAMPLES = int(os.environ.get("PULSE_EXAMPLES", "40"))
GROUPS = 4
SYMBOLS = st.sampled_from(["AAPL", "TSLA"])
SIDES = st.sampled_from(["buy", "sell"])
SIZES = st.integers(1, 20)
PRICES = st.integers(9, 11)
LIMITS = st.sampled_from([None, None, 9, 10, 11])
Lines = dict[UUID, Line]


class AnySequence(RuleBasedStateMachine):
    """Each rule is something that happens; the end looks and compares."""

    loop: asyncio.AbstractEventLoop
    lines: Lines
    db: Database
    owner: Owner
    brokers: Brokers

    def __init__(self) -> None:
        super().__init__()
        self.books = Books()
        self.line = Line(self.books)
        self.pictures: list[tuple[UUID, Json]] = []
        self.callbacks = 0
        self.corrected = {"AAPL": 0, "TSLA": 0}
        for symbol in self.corrected:
            self.books.quote(symbol, 10)
        self.desk = self.run(self.open())

    def run(self, what: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(what, self.loop).result(timeout=120)

    async def open(self) -> Desk:
        user = uuid4()
        await self.owner.execute("delete from jobs")
        connection: UUID = await self.owner.fetchval(
            "insert into broker_connections (user_id, broker) values ($1, 'test') returning id", user
        )
        self.lines[connection] = self.line
        desk = Desk(self.db, self.owner, self.brokers, Exchange(), user, connection)
        await desk.sync()
        return desk

    @property
    def at_broker(self) -> list[str]:
        return list(self.books.book.orders)

    # What happens

    @rule(
        symbol=SYMBOLS,
        side=SIDES,
        size=SIZES,
        limit=LIMITS,
        heard=st.sampled_from(["at once", "late", "never"]),
    )
    def an_order_of_ours(
        self, symbol: str, side: Literal["buy", "sell"], size: int, limit: int | None, heard: str
    ) -> None:
        self.run(self.place(symbol, side, size, limit, heard))

    async def place(
        self, symbol: str, side: Literal["buy", "sell"], size: int, limit: int | None, heard: str
    ) -> None:
        order = await self.desk.unheard(
            symbol, side, str(size), "unknown" if heard == "never" else "submitting"
        )
        request = OrderRequest(
            f"pe{order.hex}", symbol, side, "limit" if limit else "market", "gtc", Decimal(size),
            None if limit is None else Decimal(limit),
        )  # fmt: skip
        picture = seen(await self.line.submit(request))
        self.pictures.append((order, picture))
        if heard == "at once":
            await self.desk.apply(order, picture)

    @rule(symbol=SYMBOLS, side=SIDES, size=SIZES, limit=LIMITS)
    def an_order_by_hand(
        self, symbol: str, side: Literal["buy", "sell"], size: int, limit: int | None
    ) -> None:
        kind: Literal["limit", "market"] = "limit" if limit else "market"
        price = None if limit is None else Decimal(limit)
        self.books.by_hand(Request(uuid4().hex, symbol, side, kind, "gtc", Decimal(size), price))

    @rule(symbol=SYMBOLS, price=PRICES, size=st.sampled_from([None, 1, 3, 8]))
    def the_market_moves(self, symbol: str, price: int, size: int | None) -> None:
        self.books.quote(symbol, price, size)

    @precondition(lambda self: self.at_broker)
    @rule(which=st.integers(0, 50))
    def an_order_is_canceled_at_the_broker(self, which: int) -> None:
        self.books.cancel_now(self.at_broker[which % len(self.at_broker)])

    @rule(symbol=SYMBOLS, quantity=st.sampled_from([-3, 2]))
    def the_broker_corrects_a_position(self, symbol: str, quantity: int) -> None:
        self.books.correct(symbol, quantity)
        self.corrected[symbol] += quantity

    # What we hear of it, and do about it

    @precondition(lambda self: self.pictures)
    @rule(which=st.integers(0, 50))
    def an_old_picture_arrives(self, which: int) -> None:
        self.run(self.desk.apply(*self.pictures[which % len(self.pictures)]))

    @precondition(lambda self: self.at_broker)
    @rule(
        which=st.integers(0, 50),
        event=st.sampled_from(["order_filled", "order_cancelled", "position_updated", "tea_is_ready"]),
        again=st.booleans(),
    )
    def a_callback(self, which: int, event: str, again: bool) -> None:
        self.callbacks += not again
        words = {
            "connection_id": str(self.desk.connection),
            "event": event,
            "event_id": f"e{self.callbacks}",
            "payload": {"order_id": self.at_broker[which % len(self.at_broker)]},
        }
        self.run(self.desk.ask("handle_callback", words))

    @rule(seconds=st.sampled_from([1, 6, 70]))
    def jobs_run(self, seconds: int) -> None:
        self.run(self.desk.later(seconds=seconds))
        self.run(self.desk.work())

    @rule(which=st.sampled_from(["look", "sync"]))
    def somebody_asks(self, which: str) -> None:
        self.run(self.desk.look() if which == "look" else self.desk.sync())

    @rule(answered=st.integers(0, 3))
    def a_call_will_bring_no_answer(self, answered: int) -> None:
        self.line.failing[:] = [False] * answered + [True]

    @rule(symbol=SYMBOLS, price=PRICES, size=st.sampled_from([None, 2]), takes_over=st.booleans())
    def a_look_is_overtaken(self, symbol: str, price: int, size: int | None, takes_over: bool) -> None:
        async def meanwhile() -> None:
            self.books.quote(symbol, price, size)
            if takes_over:  # its worker was frozen for longer than it holds the connection
                await self.desk.later(minutes=4)
            await self.desk.look()

        self.line.meanwhile.append(meanwhile)
        self.run(self.desk.look())

    # The end

    def teardown(self) -> None:
        self.line.failing.clear()
        self.line.meanwhile.clear()
        self.run(self.end())

    async def end(self) -> None:
        desk = self.desk
        await self.owner.execute(
            "update broker_connections set held_until = null, failures = 0 where id = $1", desk.connection
        )
        unheard = (
            "select id from orders where broker_connection_id = $1 and status in ('submitting', 'unknown')"
        )
        for row in await self.owner.fetch(unheard, desk.connection):  # as their own jobs do
            order = await desk.row(row["id"])
            found = await self.line.find(order["client_order_id"], order["symbol"])
            assert found is not None
            await desk.apply(row["id"], seen(found))
        await desk.ask("monitor_orders", {})
        for _ in range(2):
            await desk.later(minutes=6)
            await desk.work()
        assert "orders" in await desk.look()
        await desk.later(seconds=6)
        for _ in range(2):
            await desk.sync()
        assert not isinstance(await desk.sync(), Snooze)
        await self.assert_same()

    async def assert_same(self) -> None:
        mine = self.desk.connection
        theirs = {one.id: one for one in self.books.book.orders.values()}
        rows = await self.owner.fetch("select * from orders where broker_connection_id = $1", mine)
        known = {row["broker_order_id"]: row for row in rows}
        assert len(known) == len(rows)
        # What was placed and canceled by hand between two looks, and never executed, leaves no trace.
        traceless = {
            key for key, one in theirs.items() if not one.is_open and not one.fills and key not in known
        }
        assert all(not one.client_order_id.startswith("pe") for k, one in theirs.items() if k in traceless)
        assert {
            key: (row["status"], row["filled_quantity"], row["filled_avg_price"], row["source"])
            for key, row in known.items()
        } == {
            key: (
                one.status,
                one.filled_quantity,
                one.filled_avg_price,
                "platform" if one.client_order_id.startswith("pe") else "broker",
            )
            for key, one in theirs.items()
            if key not in traceless
        }
        fills = await self.owner.fetch("select * from order_fills where broker_connection_id = $1", mine)
        assert {(row["broker_fill_id"], row["quantity"], row["price"]) for row in fills} == {
            (one.id, one.quantity, one.price) for one in self.books.book.fills
        }
        held = {one.symbol: one.quantity for one in self.books.book.positions.values() if one.quantity}
        positions = await self.owner.fetch("select * from positions where broker_connection_id = $1", mine)
        assert {row["symbol"]: row["quantity"] for row in positions if row["quantity"]} == held
        unexplained = {row["symbol"]: row["unexplained"] for row in positions}
        assert {s: unexplained.get(s, 0) for s in self.corrected} == self.corrected
        told = {row["symbol"]: row["unexplained_told"] for row in positions}
        assert told == unexplained


@pytest.fixture
async def lines() -> Lines:
    return {}


@pytest.fixture
async def paper_brokers(lines: Lines, db: Database) -> AsyncIterator[Brokers]:
    async def open_(account: Account) -> Any:
        return lines[account.connection.id]

    async with Brokers.open({"test": open_}, {}, db) as opened:
        yield opened


@pytest.mark.timeout(600)
@pytest.mark.parametrize("group", range(GROUPS))
async def test_after_any_sequence_we_know_what_the_broker_knows(
    lines: Lines, paper_brokers: Brokers, db: Database, owner: Owner, group: int
) -> None:
    await owner.execute("insert into broker_limits values ('test', 1000, 1)")

    @seed(group)
    class Here(AnySequence):
        pass

    Here.loop, Here.lines, Here.db, Here.owner = asyncio.get_running_loop(), lines, db, owner
    Here.brokers = paper_brokers
    await asyncio.to_thread(
        run_state_machine_as_test,
        Here,
        settings=settings(
            max_examples=EXAMPLES // GROUPS,
            database=None,
            stateful_step_count=15,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
