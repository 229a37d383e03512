"""A month of a thousand schedules: five schedulers that are killed, a clock that jumps, each slot by policy."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from random import Random
from typing import Self
from zoneinfo import ZoneInfo

import asyncpg
import pytest
from cronsim import CronSim

from listener.slots import look, reckon, run
from listener.timetable import LATE
from tests.listener.working import Connection

SCHEDULES = 1000
SCHEDULERS = 5
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
BEGIN = datetime(2027, 3, 10, tzinfo=UTC)
"""Clocks are set on 14 March in New York, on 28 March in Berlin and London, on 4 April in Adelaide."""
END = BEGIN + timedelta(days=31)
ZONES = "UTC America/New_York Europe/Berlin Europe/London Australia/Adelaide Asia/Tokyo Asia/Kolkata".split()


@dataclass
class Planned:
    """A schedule, and what is to become of its slots by a second opinion: cronsim's own walk, or plain counting."""

    name: str
    cron: str | None
    every_seconds: int | None
    timezone: str
    missed: str
    wanted: list[datetime] = field(default_factory=list[datetime])
    left_out: int = 0

    def __post_init__(self) -> None:
        self._walk = self._counted() if self.cron is None else self._read(self.cron)
        self._next = next(self._walk)

    def _counted(self) -> Iterator[datetime]:
        seconds = self.every_seconds or 1
        for number in count(int(BEGIN.timestamp()) // seconds + 1):
            yield datetime.fromtimestamp(number * seconds, UTC)

    def _read(self, cron: str) -> Iterator[datetime]:
        last = BEGIN
        for local in CronSim(cron, BEGIN.astimezone(ZoneInfo(self.timezone))):
            slot = local.astimezone(UTC)
            if slot > last:
                yield slot
                last = slot

    def slots(self, until: datetime) -> list[datetime]:
        """Those that have come since the last time."""
        found: list[datetime] = []
        while self._next <= until:
            found.append(self._next)
            self._next = next(self._walk)
        return found

    def is_served(self, now: datetime) -> None:
        come = self.slots(now)
        if not come:
            return
        match self.missed:
            case "all":
                runs = come
            case "once":
                runs = come[-1:]
            case _:
                runs = [slot for slot in come[-1:] if now - slot <= LATE]
        self.wanted += runs
        self.left_out += len(come) - len(runs)


def a_schedule(number: int, chance: Random) -> Planned:
    missed = chance.choice(["skip", "once", "all"])
    if chance.random() < 0.1:
        seconds = chance.choice([4 * 3600, 86400, 5 * 86400])
        return Planned(f"s{number}", None, seconds, "UTC", missed)
    minute, hour = chance.randrange(0, 60, 5), chance.randrange(24)
    days = chance.choice(
        ["* * *", "* * sun", "1,15 * *", "L * *", "*/5 * *", "* * 5#2", "13 * fri", "* * mon,thu"]
    )
    hours = chance.choice([*[f"{hour}"] * 6, f"{hour},{(hour + 9) % 24}", "*/6", "1-3"])
    return Planned(f"s{number}", f"{minute} {hours} {days}", None, chance.choice(ZONES), missed)


@dataclass
class Direct:
    """A scheduler's way to the database, without a gateway between: whoever holds it can be killed."""

    connection: Connection
    pid: int

    async def ask(self, function: str, arguments: Mapping[str, object]) -> object:
        (value,) = arguments.values()
        words = value if isinstance(value, int) else json.dumps(value, default=datetime.isoformat)
        return json.loads(await self.connection.fetchval(f"select {function}($1)", words))


class Fleet:
    """The five: who is killed is started anew."""

    def __init__(self, dsn: str, owner: Connection) -> None:
        self._dsn = dsn
        self._owner = owner
        self._living: dict[int, Direct] = {}
        self._one_by_one = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for one in self._living.values():
            one.connection.terminate()

    async def one(self, number: int) -> Direct:
        if number not in self._living:
            connection = await asyncpg.connect(self._dsn)
            self._living[number] = Direct(connection, connection.get_server_pid())
        return self._living[number]

    async def serve(self, number: int, chance: Random) -> None:
        """It serves what is due, or is late and dies with what it has seen, or is killed in the middle of it."""
        store = await self.one(number)
        most = chance.choice([10, 50])
        match chance.randrange(6):
            case 0:
                await look(store, most)
            case 1:
                serving = asyncio.create_task(serve(store, most))
                for _ in range(chance.randrange(20)):
                    await asyncio.wait({serving}, timeout=0.001)
                async with self._one_by_one:
                    await self._owner.execute("select pg_terminate_backend($1)", store.pid)
                with suppress(
                    asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError
                ):
                    await serving
                self._living.pop(number).connection.terminate()
            case _:
                await serve(store, most)


async def serve(store: Direct, most: int) -> None:
    """Looks and runs until nothing is due any more."""
    while (found := await look(store, most)).due:
        await run(store, reckon(found.due, found.now))


def moments(chance: Random) -> list[datetime]:
    """When somebody serves, by the clock of the database: it goes on, stands still for days, is set ahead and back."""
    now, found = BEGIN, [BEGIN]
    while now < END:
        match chance.randrange(12):
            case 0:
                now -= chance.randint(1, 360) * MINUTE
            case 1:
                now += chance.randint(20, 50) * HOUR
            case 2 | 3 | 4 | 5 | 6:
                now += chance.randint(1, 200) * 5 * MINUTE
                now -= (now - BEGIN) % (5 * MINUTE) - timedelta(seconds=chance.randint(0, 90))
            case _:
                now += chance.randint(1, 1200) * MINUTE
        found.append(now)
    return found


CLOCK = """
    create table moment as select '2027-03-10 00:00+00'::timestamptz as at;
    create or replace function clock_now() returns timestamptz language sql stable
        return (select at from public.moment);
"""


@pytest.mark.timeout(180)  # about 8 s of two quiet cores
async def test_each_slot_of_a_month_is_dealt_with_by_policy_whoever_dies_and_whatever_clocks_do(
    database: str, owner: Connection
) -> None:
    chance = Random(20270310)
    planned = [a_schedule(number, chance) for number in range(SCHEDULES)]
    await owner.execute(CLOCK)
    await owner.executemany(
        "insert into schedules (name, queue, type, cron, every_seconds, timezone, missed)"
        " values ($1, 'maintenance', 'a', $2, $3, $4, $5)",
        [(one.name, one.cron, one.every_seconds, one.timezone, one.missed) for one in planned],
    )
    made: Counter[str] = Counter()
    async with Fleet(database, owner) as fleet:
        for now in moments(chance):
            await owner.execute("update moment set at = $1", now)
            async with asyncio.TaskGroup() as group:
                for number in range(1, SCHEDULERS):
                    group.create_task(fleet.serve(number, Random(chance.random())))
            await serve(await fleet.one(0), 100)
            # As `prune` does, only sooner: what guards a slot is not the job that it became.
            made.update(
                row["key"] for row in await owner.fetch("delete from jobs returning idempotency_key as key")
            )
            for one in planned:
                one.is_served(now)
    wanted = Counter(f"{one.name}@{slot:%Y-%m-%dT%H:%MZ}" for one in planned for slot in one.wanted)
    assert made == wanted
    assert set(made.values()) == {1}
    assert len(made) > 5 * SCHEDULES
    told = {row["name"]: row["left_out"] for row in await owner.fetch("select name, left_out from schedules")}
    assert told == {one.name: one.left_out for one in planned}
    assert await owner.fetchval("select count(*) from schedules where problem is not null") == 0
