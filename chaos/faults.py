"""Does what the weather says."""

import asyncio
import os
import signal
import time
from collections.abc import Mapping, Sequence

import asyncpg

from chaos.fleet import Fleet, Seat
from chaos.stack import Lane, Stack
from chaos.weather import Deed, Where

_DATABASE_AWAY = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)
_SWITCHES = {"off", "deaf", "false_subscribed"}
_COUNTED = {"lose_events", "double_events", "late_events"}
_ARGUMENTS: Mapping[str, Mapping[str, object]] = {"lose_changes": {"seconds": 0.5}}
_HANDSHAKES = (401, 403, 404, 429, 500)
_CALM: Mapping[str, object] = {
    "rest": {"planned": []},
    "realtime": {
        "off": False,
        "deaf": False,
        "false_subscribed": False,
        "slow_join_seconds": 0,
        "refuse_handshakes": [],
        "lose_events": 0,
        "double_events": 0,
        "late_events": 0,
    },
}


class Faults:
    """Over one stack and one fleet."""

    def __init__(self, stack: Stack, fleet: Fleet) -> None:
        self.done: list[Deed] = []
        """Those that found what they were to hit: another fault may have had it at that moment."""
        self.over = 0
        self._stack = stack
        self._fleet = fleet

    async def run(self, deeds: Sequence[Deed]) -> None:
        """Does each at its time; returns when all are over."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for deed in deeds:
                await asyncio.sleep(max(0.0, began + deed.at - time.monotonic()))
                group.create_task(self._do(deed), name=deed.what)

    async def calm(self) -> None:
        """The end of all faults, whatever state they have left things in."""
        async with asyncio.TaskGroup() as group:
            for lane in self._stack.lanes:
                lane.signal(signal.SIGCONT)
                group.create_task(lane.ask("faults", _CALM))
            for seat in self._fleet.seats:
                if seat.current is not None:
                    seat.current.tell(signal.SIGCONT)
                if seat.is_older:
                    group.create_task(seat.deploy(older=False))

    async def _do(self, deed: Deed) -> None:
        lane = self._stack.lanes[deed.lane]
        hit = False
        match deed.where:
            case Where.WORKER:
                hit = await self._hit_worker(deed, self._fleet.seats[deed.lane])
            case Where.NETWORK:
                hit = await self._hit_network(deed, lane)
            case Where.REST:
                times = 1 if deed.what == "silence" else deed.times
                fault = {"what": deed.what, "at": deed.rest_at, "times": times, "seconds": deed.seconds}
                hit = await lane.ask("faults", {"rest": {"planned": [fault]}})
            case Where.REALTIME:
                hit = await self._hit_realtime(deed, lane)
            case Where.DATABASE:
                hit = await self._hit_database(deed)
        self.over += 1
        if hit:
            self.done.append(deed)

    async def _hit_worker(self, deed: Deed, seat: Seat) -> bool:
        running = seat.current
        if running is None or running.process.returncode is not None:
            return False
        match deed.what:
            case "kill":
                running.tell(signal.SIGKILL)
            case "kill_unheard":
                refused = {"what": "status", "at": "finish", "times": None}
                await seat.lane.ask("faults", {"rest": {"planned": [refused]}})
                await asyncio.sleep(deed.seconds)
                running.tell(signal.SIGKILL)
                await seat.lane.ask("faults", {"rest": {"planned": []}})
            case "freeze" | "nap":
                running.tell(signal.SIGSTOP)
                await asyncio.sleep(deed.seconds)
                running.tell(signal.SIGCONT)
            case "deploy" | "deploy_older":
                await seat.deploy(older=deed.what == "deploy_older")
            case "hurry":
                running.tell(signal.SIGINT)
                await asyncio.sleep(0.3)
                running.tell(signal.SIGINT)
            case "impatient_platform":
                for _ in range(3):
                    running.tell(signal.SIGTERM)
                    await asyncio.sleep(0.3)
                running.tell(signal.SIGKILL)
            case _:
                raise NotImplementedError(deed.what)
        return True

    async def _hit_network(self, deed: Deed, lane: Lane) -> bool:
        if deed.what == "cut_off":
            lane.signal(signal.SIGSTOP)
            await asyncio.sleep(deed.seconds)
            lane.signal(signal.SIGCONT)
        else:
            await lane.close()
            await asyncio.sleep(deed.seconds)
            await lane.open()
        return True

    async def _hit_realtime(self, deed: Deed, lane: Lane) -> bool:
        what = deed.what
        if what in _SWITCHES:
            return await self._switch(lane, what, on=True, off=False, seconds=deed.seconds)
        if what == "slow_join":
            return await self._switch(
                lane, "slow_join_seconds", on=deed.seconds, off=0, seconds=deed.seconds * 2
            )
        if what == "refuse_handshakes":
            statuses = [_HANDSHAKES[deed.times % len(_HANDSHAKES)]] * deed.times
            hit = await lane.ask("faults", {"realtime": {"refuse_handshakes": statuses}})
            return hit and await lane.ask("realtime/drop_sockets", {})
        if what in _COUNTED:
            return await lane.ask("faults", {"realtime": {what: deed.times}})
        return await lane.ask(f"realtime/{what}", _ARGUMENTS.get(what, {}))

    async def _switch(self, lane: Lane, name: str, *, on: object, off: object, seconds: float) -> bool:
        hit = await lane.ask("faults", {"realtime": {name: on}})
        if name in {
            "false_subscribed",
            "slow_join_seconds",
        }:  # what is open has to be opened again to meet it
            await lane.ask("realtime/drop_sockets", {})
        await asyncio.sleep(seconds)
        await lane.ask("faults", {"realtime": {name: off}})
        return hit

    async def _hit_database(self, deed: Deed) -> bool:
        if deed.what == "restart":
            await self._stack.restart(deed.seconds)
            return True
        hit = False
        try:
            async with self._stack.session() as session:
                hit = True
                match deed.what:
                    case "crash":
                        pid = await session.fetchval("select pg_backend_pid()")
                        os.kill(pid, signal.SIGKILL)
                    case "end_sessions":
                        await session.execute(
                            "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'authenticator'"
                        )
                    case "lock_rows":
                        async with session.transaction():
                            await session.execute(
                                "select from jobs where status in ('pending', 'running') limit 20 for update"
                            )
                            await asyncio.sleep(min(deed.seconds, 5.0))
                    case "old_snapshot":
                        async with session.transaction(isolation="repeatable_read"):
                            await session.execute("select count(*) from jobs")
                            await asyncio.sleep(deed.seconds * 2)
                    case _:
                        raise NotImplementedError(deed.what)
        except _DATABASE_AWAY:
            return hit  # ended by the fault itself, or by another one
        return hit
