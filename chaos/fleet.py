"""The workers of the storm: a seat for each, in which one process follows the other, whatever ended the last one."""

import asyncio
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from chaos.evidence import Exit
from chaos.processes import ended, python, send
from chaos.stack import Lane
from chaos.worker import Words
from devstack.keys import LOCAL

_AGAIN_SECONDS = 0.5  # until a platform starts what has ended
_LOOK_SECONDS = 0.1
_START_SECONDS = 20.0
_PLATFORM_SECONDS = 30.0  # from SIGTERM to SIGKILL


@dataclass(frozen=True, slots=True)
class Orders:
    """What every worker of the storm is."""

    project: Path
    folder: Path
    """For logs, ledgers and journals."""
    queues: Sequence[str]
    types: Sequence[str]
    lease: float
    sweep: float
    grace: float
    schedules: bool


@dataclass(eq=False)
class Running:
    """One process in a seat."""

    process: Process
    log: Path
    told: set[signal.Signals] = field(default_factory=set[signal.Signals])

    def tell(self, number: signal.Signals) -> None:
        """Sends a signal and remembers that we did."""
        if self.process.returncode is None:
            self.told.add(number)
            send(self.process, number)

    async def started(self) -> None:
        """Returns when it says that it has, or has ended, or has taken too long."""
        for _ in range(int(_START_SECONDS / _LOOK_SECONDS)):
            said = await asyncio.to_thread(self.log.read_bytes)
            if b'"message": "started' in said or self.process.returncode is not None:
                return
            await asyncio.sleep(_LOOK_SECONDS)


class Seat:
    """One worker's place: its lane, and the process that is in charge now."""

    def __init__(self, number: int, lane: Lane, orders: Orders, exits: list[Exit]) -> None:
        self.number = number
        self.lane = lane
        self.current: Running | None = None
        self._orders = orders
        self._exits = exits
        self._count = 0
        self._closing = False
        self._older = False
        self._changing = asyncio.Lock()
        self._group: asyncio.TaskGroup | None = None

    async def open(self, group: asyncio.TaskGroup) -> None:
        """Starts the first process; its followers live in the group too."""
        self._group = group
        self.current = await self._start()

    @property
    def is_older(self) -> bool:
        """Whether its version knows fewer types than the others."""
        return self._older

    async def deploy(self, *, older: bool) -> None:
        """A new process starts beside the old one, which is then told to drain."""
        async with self._changing:
            if self._closing:
                return
            before, self._older = self.current, older
            self.current = new = await self._start()
        await new.started()
        if before is not None:
            before.tell(signal.SIGTERM)
            await self._leave(before, _PLATFORM_SECONDS)

    async def _leave(self, running: Running, seconds: float) -> None:
        """Waits for its end as a platform does: not for ever."""
        try:
            async with asyncio.timeout(seconds):
                await running.process.wait()
        except TimeoutError:
            running.tell(signal.SIGKILL)
            await running.process.wait()

    async def close(self) -> None:
        """The last drain."""
        self._closing = True
        async with self._changing:
            if self.current is not None:
                self.current.tell(signal.SIGTERM)
                await self._leave(self.current, _PLATFORM_SECONDS)

    async def _start(self) -> Running:
        orders, number = self._orders, self.number
        self._count += 1
        log = orders.folder / "logs" / f"worker-{number}-{self._count}.log"
        words = Words(
            ledger=str(orders.folder / "ledger"),
            queues=orders.queues,
            without=orders.types[number :: len(orders.types) // 2 + 1] if self._older else (),
            lease_seconds=orders.lease,
            sweep_seconds=orders.sweep,
            grace_seconds=orders.grace,
            schedules=orders.schedules,
        )
        variables = {
            "SUPABASE_URL": self.lane.url,
            "SUPABASE_SERVICE_ROLE_KEY": LOCAL.secret,
            "CHAOS_LEASE_SECONDS": str(orders.lease),
        }
        if number % 2:  # some have a disk, and some another way to listen
            variables |= {"PULSE_JOURNAL": str(orders.folder / f"journal-{number}")}
        if number % 3 == 2:
            variables |= {"PULSE_LISTEN": "broadcast"}
        process = await python("chaos.worker", words.text(), folder=orders.project, log=log, **variables)
        running = Running(process, log)
        if self._group is not None:
            self._group.create_task(self._watch(running), name=f"worker {number}")
        return running

    async def _watch(self, running: Running) -> None:
        """Waits for the end of a process, and puts another one into its seat if it was in charge."""
        try:
            code = await running.process.wait()
        except asyncio.CancelledError:
            await ended(running.process)
            raise
        self._exits.append(
            Exit(
                self.number,
                running.process.pid,
                code,
                frozenset(one.name for one in running.told),
                running.log.name,
            )
        )
        if self.current is running and not self._closing:
            await asyncio.sleep(_AGAIN_SECONDS)
            async with self._changing:
                if self.current is running and not self._closing:
                    self.current = await self._start()


class Fleet:
    """All seats."""

    def __init__(self, seats: Sequence[Seat], exits: list[Exit]) -> None:
        self.seats = seats
        self.exits = exits

    async def close(self) -> None:
        """Drains all workers at once."""
        async with asyncio.TaskGroup() as group:
            for seat in self.seats:
                group.create_task(seat.close())


@asynccontextmanager
async def running_fleet(lanes: Sequence[Lane], orders: Orders) -> AsyncIterator[Fleet]:
    """A worker for each lane, all of them started; drained at the end."""
    for name in ("logs", "ledger"):
        (orders.folder / name).mkdir(exist_ok=True)
    exits: list[Exit] = []
    fleet = Fleet([Seat(number, lane, orders, exits) for number, lane in enumerate(lanes)], exits)
    async with asyncio.TaskGroup() as group:
        for seat in fleet.seats:
            await seat.open(group)
        for seat in fleet.seats:
            if seat.current is not None:
                await seat.current.started()
        yield fleet
        await fleet.close()
