"""What the workers stand on: one PostgreSQL with our tables, and a gateway process for each of them."""

import asyncio
import signal
import socket
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TypeAlias, cast

import aiohttp
import asyncpg

from chaos.processes import ended, python, send
from devstack.postgres import SUPERUSER, Postgres, bootstrap
from listener.migrate import migrate, migrations

HISTORY = Path(__file__).with_name("history.sql")
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


class Lane:
    """The way of one worker to the database: a gateway of its own, on a port that stays the same."""

    def __init__(self, dsn: str, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._dsn = dsn
        self._port = port
        self._process: Process | None = None
        self._changing = asyncio.Lock()

    async def open(self) -> None:
        """Starts the gateway; returns when it serves. Waits for a database that is away."""
        async with self._changing:
            while True:
                self._process = process = await python("chaos.gateway", self._dsn, str(self._port))
                if process.stdout is not None and await process.stdout.readline():
                    return
                await ended(process)
                await asyncio.sleep(0.2)

    async def close(self) -> None:
        """Kills the gateway."""
        async with self._changing:
            if self._process is not None:
                await ended(self._process)

    def signal(self, number: signal.Signals) -> None:
        """Stops the gateway in mid-air, or lets it go on."""
        if self._process is not None:
            send(self._process, number)

    async def ask(self, path: str, words: object) -> bool:
        """Sets faults or performs an act; answers whether it was there to be asked."""
        timeout = aiohttp.ClientTimeout(total=2)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.post(f"{self.url}/_devstack/{path}", json=words) as response,
            ):
                if response.status != 200:
                    raise RuntimeError(f"{path}: {await response.text()}")
                return True
        except (aiohttp.ClientError, TimeoutError):
            return False


class Stack:
    """The database and the lanes: one for each worker, and the last for the producers."""

    def __init__(self, server: Postgres, lanes: Sequence[Lane]) -> None:
        self.server = server
        self.lanes = lanes
        self._changing = asyncio.Lock()

    @property
    def dsn(self) -> str:
        """As the owner of the tables."""
        return self.server.dsn()

    async def apply(self, file: Path) -> None:
        """Runs a file of SQL as the owner of the tables."""
        text = await asyncio.to_thread(file.read_text)
        connection = await asyncpg.connect(self.dsn)
        try:
            await connection.execute(text)
        finally:
            await connection.close()

    async def restart(self, seconds: float) -> None:
        """The database is away for so long, after an orderly end."""
        async with self._changing:
            await self.server.stop()
            await asyncio.sleep(seconds)
            await self.server.start()

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Connection]:
        """A connection of the superuser."""
        connection = await asyncpg.connect(self.server.dsn(user=SUPERUSER), timeout=5)
        try:
            yield connection
        finally:
            connection.terminate()


@asynccontextmanager
async def running_stack(folder: Path, queues: Sequence[str], workers: int) -> AsyncIterator[Stack]:
    """All of it, with the history switched on; `queues` are made where they are missing."""
    ports = _free_ports(workers + 2)
    async with AsyncExitStack() as exits:
        server = await exits.enter_async_context(Postgres(folder, port=ports.pop()))
        await bootstrap(server.dsn(user=SUPERUSER))
        await migrate(server.dsn(), migrations())
        await _prepare(server.dsn(), queues)
        lanes = [Lane(server.dsn(), port) for port in ports]
        for lane in lanes:
            exits.push_async_callback(lane.close)
        async with asyncio.TaskGroup() as group:
            for lane in lanes:
                group.create_task(lane.open())
        yield Stack(server, lanes)


async def _prepare(dsn: str, queues: Sequence[str]) -> None:
    history = await asyncio.to_thread(HISTORY.read_text)
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(history)
        await connection.execute("select announce_by_broadcast()")  # one of the workers listens to that
        rows = await connection.fetch(
            "select unnest($1::text[]) except select substr(relname, 6) from pg_class where relname like 'jobs\\_%'",
            queues,
        )
        for (queue,) in (cast("tuple[str]", tuple(row)) for row in rows):
            await connection.execute("select create_queue($1)", queue)
    finally:
        await connection.close()


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [cast("int", probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()
