"""The way from a handler to the SQL functions, without HTTP: `.rpc(name, arguments).execute()` on a direct connection.

Each call runs at its run's own time: the functions ask public.clock_now(), which reads a setting of the session.
"""

import asyncio
import json
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn

import asyncpg

from tests.handlers.broker.simulation.faults import RPC, Faults
from tests.handlers.broker.simulation.virtual_time import Time

SESSION_CLOCK = """
    create or replace function public.clock_now() returns timestamptz language sql stable parallel safe return
    coalesce(nullif(pg_catalog.current_setting('pulse.now', true), '')::timestamptz, pg_catalog.now());
"""


class Died(BaseException):
    """The worker is no more: nothing after this happens in it."""


@dataclass(eq=False)
class Worker:
    """A process that runs one attempt."""

    is_dead: bool = False


WORKER: ContextVar[Worker] = ContextVar("WORKER")


def die() -> NoReturn:
    WORKER.get().is_dead = True
    raise Died


class Functions:
    """The functions of a database by name, over a few connections."""

    def __init__(self, connections: list["asyncpg.Connection[asyncpg.Record]"], start: Any) -> None:
        self._free: asyncio.LifoQueue[asyncpg.Connection[asyncpg.Record]] = asyncio.LifoQueue()
        for one in connections:
            self._free.put_nowait(one)
        self._start = start
        self._types: dict[str, dict[str, str]] = {}
        self.calls = 0

    async def learn(self) -> None:
        """Reads what the functions take."""
        one = await self._free.get()
        rows = await one.fetch(
            "select p.proname, p.proargnames, array(select t::regtype::text from unnest(p.proargtypes) as t) as types"
            " from pg_proc as p where p.pronamespace = 'public'::regnamespace and p.proargnames is not null"
        )
        self._types = {
            row["proname"]: dict(zip(row["proargnames"], row["types"], strict=False)) for row in rows
        }
        await one.execute("set role service_role")
        self._free.put_nowait(one)

    async def call(self, name: str, arguments: dict[str, Any], now: float) -> Any:
        """Runs one at a time of its run."""
        types = self._types[name]
        places = ", ".join(f"{key} => ${n}::text::{types[key]}" for n, key in enumerate(arguments, start=2))
        statement = (
            "with clock as materialized (select set_config('pulse.now', $1, false) as now)"
            f" select public.{name}({places})::text from clock where clock.now <> ''"
        )
        texts = [
            value if value is None or isinstance(value, str) else json.dumps(value)
            for value in arguments.values()
        ]
        moment = (self._start + timedelta(seconds=now)).isoformat()
        self.calls += 1
        connection = await self._free.get()
        try:
            return json.loads(await connection.fetchval(statement, moment, *texts))
        finally:
            self._free.put_nowait(connection)

    async def row(self, statement: str, *arguments: object) -> asyncpg.Record:
        connection = await self._free.get()
        try:
            found = await connection.fetchrow(statement, *arguments)
            assert found is not None
            return found
        finally:
            self._free.put_nowait(connection)


class CallLost(Exception):
    """A call that failed, or whose answer was lost."""


@dataclass
class Answer:
    data: Any


@dataclass
class Call:
    wire: "Wire"
    name: str
    arguments: dict[str, Any]

    async def execute(self) -> Answer:
        return Answer(await self.wire.run(self.name, self.arguments))


@dataclass
class Wire:
    """What a handler of the run takes for its database."""

    functions: Functions
    time: Time
    faults: Faults

    def rpc(self, name: str, arguments: dict[str, Any]) -> Call:
        return Call(self, name, arguments)

    async def run(self, name: str, arguments: dict[str, Any]) -> Any:
        if WORKER.get().is_dead:
            raise Died
        fault = self.faults.draw("rpc", RPC)
        if fault == "crash_before":
            die()
        if fault == "refused":
            raise CallLost
        if fault == "freeze_before":
            await self.time.sleep(self.faults.freeze(fault))
        await self.time.sleep(self.faults.dice.uniform(0.001, 0.05))
        answer = await self.functions.call(name, arguments, self.time.now)
        await self.time.sleep(self.faults.dice.uniform(0.001, 0.05))
        if fault == "freeze_after":
            await self.time.sleep(self.faults.freeze(fault))
        if fault == "crash_after":
            die()
        if fault == "answer_lost":
            raise CallLost
        return answer
