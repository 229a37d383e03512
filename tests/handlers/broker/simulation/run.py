"""One run: one order, its job as the queue would run it, and what became of it here and at the broker."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, cast
from uuid import UUID

from handlers.broker.cancel_order import CancelOrder, cancel_order
from handlers.broker.execute_order import ExecuteOrder, execute_order
from handlers.clients.broker.broker import Dedupe, Traits
from handlers.clients.broker.brokers import Account, Brokers
from handlers.clients.database import Database
from listener import Snooze
from tests.handlers.broker.simulation.exchange import SETTLE, Exchange
from tests.handlers.broker.simulation.faults import Faults
from tests.handlers.broker.simulation.virtual_time import TIME, Time
from tests.handlers.broker.simulation.wire import WORKER, Died, Functions, Wire, Worker
from tests.handlers.conftest import a_job

LEASE: Final = 30.0
RETRIES: Final = (5, 10, 15)
RESUMED: Final = 300
"""After a dead letter, the sweep finds the order without a job (resume_orders)."""
LOOKS_IN_DOUBT: Final = 4
CANCEL_ATTEMPTS: Final = 12
SECOND_ATTEMPTS: Final = 12
MOST_ATTEMPTS: Final = 200
"""Of a job that goes round in circles, which no order here needs."""
LOOKS_TOO: Final = "slow, then late, while another looks"
WhoseAccount = tuple[UUID, UUID]
"""A user, and the user's account."""
TWICE: Final = "placed more than once"
LEFT: Final = "left without a state"
ENDED: Final = frozenset({"rejected", "expired", "canceled"})


@dataclass
class Table:
    """What all runs came to."""

    runs: int = 0
    submissions: int = 0
    resubmitted: int = 0
    attempts: int = 0
    calls: int = 0
    faults: Counter[str] = field(default_factory=Counter[str])
    statuses: Counter[str] = field(default_factory=Counter[str])
    wrong: Counter[str] = field(default_factory=Counter[str])
    seeds: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    """Of what went wrong."""

    def __str__(self) -> str:
        faults = ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items()))
        statuses = ", ".join(f"{name} {count}" for name, count in self.statuses.most_common())
        return (
            f"{self.runs} runs, {self.faults.total()} faults, {self.attempts} attempts, {self.calls} calls\n"
            f"  requests at the broker: {self.submissions}; orders resubmitted: {self.resubmitted};"
            f" placed more than once: {self.wrong[TWICE]}; left without a state: {self.wrong[LEFT]}\n"
            f"  in the end: {statuses}\n"
            f"  wrong: {dict(self.wrong) or 'nothing'}\n"
            f"  faults: {faults}"
        )

    def judge(self, seed: int, row: Any, exchange: Exchange, *, canceled: bool) -> None:
        """Counts a run, and holds our row against the broker's truth."""
        self.runs += 1
        self.statuses[row["status"]] += 1
        self.submissions += exchange.submissions
        self.resubmitted += exchange.submissions > 1
        wrong = set(faults_of(row, exchange))
        if canceled and row["ended_at"] is None and row["status"] != "in_doubt":
            wrong.add("it was canceled, and is open")
        for name in wrong:
            self.wrong[name] += 1
            self.seeds.setdefault(name, []).append(seed)


def faults_of(row: Any, exchange: Exchange) -> Iterable[str]:
    """What must never be."""
    status = row["status"]
    there = exchange.orders
    if len(there) > 1:
        yield TWICE
    if status in {"new", "submitting", "unknown"}:
        yield LEFT
    if status in ENDED and row["broker_order_id"] is None and there:
        yield "we say that it is not there, and it is"
    if status in {"accepted", "filled"} and [one.broker_order_id for one in there] != [
        row["broker_order_id"]
    ]:
        yield "we say that it is there, and it is not"
    if status == "filled" and not any(one.ended(exchange.time.now) for one in there):
        yield "we say that it is filled, and it is not"
    if status == "canceled" and any(one.canceled_at is None for one in there):
        yield "we say that it is canceled, and it is not"
    if status == "in_doubt" and exchange.traits.dedupe != Dedupe.NONE and exchange.traits.shows_closed:
        yield "a person was called who is not needed"
    if status == "in_doubt" and there and exchange.traits.shows_closed:
        yield "in doubt, and it is there to be found"
    if exchange.stale:
        yield "a stale market order was sent"


@dataclass
class Run:
    """The job of an order: attempts, leases, retries."""

    time: Time
    exchange: Exchange
    wire: Wire
    table: Table
    order: UUID
    current: int = 0
    """Which attempt is live; one that has ended is none."""
    failures: int = 0
    doubts: int = 0
    canceled: bool = False

    def start_attempt(self, delay: float) -> None:
        self.current += 1
        if self.current > MOST_ATTEMPTS:
            return
        self.time.start(self._attempt(self.current, delay))

    async def _attempt(self, number: int, delay: float) -> None:
        await self.time.sleep(delay)
        if self.current != number:
            return
        self.time.start(self._lease(number))
        outcome = await self.work()
        if self.current != number or outcome == "died":
            return
        self.current += 1
        match outcome:
            case Snooze(after, reason):
                self.failures = 0
                self.doubts += "in_doubt" in reason
                if self.doubts < LOOKS_IN_DOUBT:
                    self.start_attempt(after.total_seconds())
            case "failed":
                self.failures += 1
                if self.failures <= len(RETRIES):
                    self.start_attempt(RETRIES[self.failures - 1])
                else:
                    self.failures = 0
                    self.start_attempt(RESUMED)
            case _:
                pass

    async def _lease(self, number: int) -> None:
        await self.time.sleep(LEASE)
        if self.current == number:
            self.start_attempt(0)

    async def second(self, delay: float) -> None:
        """A second worker at the same order, whatever the queue says."""
        for _ in range(SECOND_ATTEMPTS):
            await self.time.sleep(delay)
            outcome = await self.work()
            if not isinstance(outcome, Snooze):
                return
            delay = outcome.delay.total_seconds()

    async def cancel(self, delay: float) -> None:
        """Somebody wants the order canceled: the job's attempts, one after the other."""
        failures = doubts = attempts = 0
        while doubts < LOOKS_IN_DOUBT and failures < CANCEL_ATTEMPTS and attempts < MOST_ATTEMPTS:
            attempts += 1
            await self.time.sleep(delay)
            match await self.work(cancel=True):
                case Snooze(after, reason):
                    delay = after.total_seconds()
                    doubts += "in_doubt" in reason
                case "failed" | "died":
                    delay = LEASE
                    failures += 1
                case _:
                    self.canceled = True
                    return

    async def work(self, *, cancel: bool = False) -> Any:
        """One attempt in a process of its own: what the handler answers, `failed` or `died`."""
        WORKER.set(Worker())
        self.table.attempts += 1

        async def open_(_: Account) -> Any:
            return self.exchange

        db = cast("Database", self.wire)
        try:
            async with Brokers.open({"sim": open_}, {}, db) as brokers:
                if cancel:
                    job = a_job({}, "broker", "cancel_order")
                    return await cancel_order(
                        CancelOrder(order_id=self.order), job=job, brokers=brokers, db=db
                    )
                return await execute_order(ExecuteOrder(order_id=self.order), brokers=brokers, db=db)
        except Exception:
            return "died" if WORKER.get().is_dead else "failed"
        except BaseExceptionGroup as group:
            if group.subgroup(Died) is None:
                raise
            return "died"
        except Died:
            return "died"


async def run(
    seed: int, dedupe: Dedupe, functions: Functions, table: Table, whose: WhoseAccount, script: str | None
) -> None:
    """The whole life of one order, until nothing moves any more."""
    dice = random.Random(f"{dedupe} {script} {seed}")
    wants_out = script is None and dice.random() < 0.15
    breaks_its_word = not wants_out and dedupe != Dedupe.OPEN_ORDERS and dice.random() < 0.2
    market = not breaks_its_word and dice.random() < 0.3
    async with asyncio.TaskGroup() as group:
        time = Time(group)
        TIME.set(time)
        faults = Faults(dice, table.faults, script)
        exchange = Exchange(
            time,
            faults,
            Traits(
                dedupe,
                timedelta(seconds=SETTLE),
                misses=dice.choice((1, 2, 3)),
                shows_closed=dice.random() < 0.8,
                longest_client_id=48,
            ),
            breaks_its_word,
            refuses=not breaks_its_word and script is None and dice.random() < 0.1,
            funds_first=dice.random() < 0.3,
        )
        order = await _place(functions, whose, market=market)
        one = Run(time, exchange, Wire(functions, time, faults), table, order)
        time.start(_begin(one, dice, wants_out=wants_out))
    exchange.land(10_000_000)
    row = await functions.row("select * from orders where id = $1", order)
    table.judge(seed, row, exchange, canceled=one.canceled)


async def _place(functions: Functions, whose: WhoseAccount, *, market: bool) -> UUID:
    user, connection = whose
    wish = {
        "user_id": str(user),
        "broker_connection_id": str(connection),
        "symbol": "AAPL",
        "side": "buy",
        "order_type": "market" if market else "limit",
        "quantity": "5",
    } | ({} if market else {"limit_price": "10"})
    placed = await functions.call("place_order", {"placed": wish}, 0)
    return UUID(placed["order_id"])


async def _begin(one: Run, dice: random.Random, *, wants_out: bool) -> None:
    one.start_attempt(0)
    if wants_out:
        one.time.start(one.cancel(dice.choice((0.0, dice.uniform(0, 1), dice.uniform(0, 60)))))
    if one.exchange.faults.script == LOOKS_TOO:
        one.time.start(one.second(dice.uniform(0.2, 1)))
    elif dice.random() < 0.2:
        one.time.start(one.second(dice.choice((0.0, dice.uniform(0, 2), dice.uniform(0, 30)))))
