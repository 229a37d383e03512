"""What is measured stands on this: a throw-away database, a gateway in its own process, a worker in its own process."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import aiohttp

from devstack.gateway import Gateway
from devstack.keys import LOCAL
from devstack.postgres import SUPERUSER, Postgres, bootstrap, throw_away_folder
from listener.migrate import migrate, migrations

ROOT = Path(__file__).resolve().parent.parent
PROJECT = ROOT / "bench" / "project"


@dataclass(frozen=True, slots=True)
class Stack:
    """Where things are."""

    dsn: str
    url: str


@dataclass(frozen=True, slots=True)
class Health:
    """What a worker process says about itself."""

    calls: int
    cpu_seconds: float
    ready: bool


class WorkerProcess:
    """A `pulse worker` with the benchmark's handlers."""

    def __init__(self, door: str, process: Process) -> None:
        self._door = door
        self._process = process

    async def health(self) -> Health:
        """Asks its door."""
        async with aiohttp.ClientSession() as session, session.get(f"{self._door}/health") as response:
            words = cast("dict[str, object]", await response.json())
        realtime = cast("dict[str, object]", words["realtime"])
        ready = words["ready"] is True and realtime["ready"] is True
        return Health(cast("int", words["calls"]), cast("float", words["cpu_seconds"]), ready)

    def resident_megabytes(self) -> float | None:
        """Its memory now, where the system tells."""
        try:
            lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        except OSError:
            return None
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


@asynccontextmanager
async def running_database() -> AsyncIterator[str]:
    """A PostgreSQL with our tables; its address, as the owner."""
    with throw_away_folder() as folder:
        async with Postgres(folder) as server:
            await bootstrap(server.dsn(user=SUPERUSER))
            await migrate(server.dsn(), migrations())
            yield server.dsn()


@asynccontextmanager
async def running_stack(*, at_once: bool = True) -> AsyncIterator[Stack]:
    """Such a database, and a gateway before it that delivers at once, or at the pace of the real Realtime."""
    async with running_database() as dsn:
        gateway = await python("-m", "bench.stack", dsn, *([] if at_once else ["as in production"]), cwd=ROOT)
        try:
            yield Stack(dsn, await first_line(gateway))
        finally:
            await ended(gateway)


@asynccontextmanager
async def running_worker(
    stack: Stack,
    places: int,
    log_level: str = "INFO",
    *,
    queue: str = "maintenance",
    project: Path = PROJECT,
    **settings: str,
) -> AsyncIterator[WorkerProcess]:
    """A worker that is ready and hears."""
    environment = {"SUPABASE_URL": stack.url, "SUPABASE_SERVICE_ROLE_KEY": LOCAL.secret, **settings}
    words = ["--queues", queue, "--concurrency", str(places), "--no-scheduler", "--port", "0"]
    process = await python(
        "-m",
        "listener",
        "worker",
        *words,
        "--log-level",
        log_level,
        cwd=project,
        **environment,
        PYTHONPATH=str(ROOT),
    )
    try:
        async with asyncio.timeout(30):
            opened = cast("dict[str, str]", json.loads(await first_line(process)))
        worker = WorkerProcess(opened["url"], process)
        async with asyncio.TaskGroup() as group:
            swallowing = group.create_task(swallow(process))
            async with asyncio.timeout(30):
                while not (await worker.health()).ready:  # noqa: ASYNC110 - another process is asked
                    await asyncio.sleep(0.02)
            yield worker
            process.terminate()
            await process.wait()
            swallowing.cancel()
    finally:
        await ended(process)


@asynccontextmanager
async def listening(
    *words: str, environment: Mapping[str, str], processes: int = 1
) -> AsyncIterator[list[str]]:
    """Processes of `pulse` with the handlers of this project, such as `worker --queues alerts`; their doors' URLs."""
    begun = [
        await python("-m", "listener", *words, "--port", "0", cwd=ROOT, **environment)
        for _ in range(processes)
    ]
    try:
        async with asyncio.timeout(60):
            urls = [cast("dict[str, str]", json.loads(await first_line(one)))["url"] for one in begun]
            async with aiohttp.ClientSession() as http:
                for url in urls:
                    while not await _is_ready(http, url):  # noqa: ASYNC110 - another process is asked
                        await asyncio.sleep(0.05)
        async with asyncio.TaskGroup() as group:
            swallowing = [group.create_task(swallow(one)) for one in begun]
            yield urls
            for one in begun:
                one.terminate()
            for one in begun:
                await one.wait()
            for task in swallowing:
                task.cancel()
    finally:
        for one in begun:
            await ended(one)


async def _is_ready(http: aiohttp.ClientSession, url: str) -> bool:
    async with http.get(f"{url}/ready") as answer:
        return answer.status == 200


async def swallow(process: Process) -> None:
    """Reads the log as a platform would, and forgets it."""
    if process.stdout is not None:
        while await process.stdout.read(65536):
            pass


async def python(*words: str, cwd: Path, **environment: str) -> Process:
    """Starts a Python whose output is read here."""
    return await asyncio.create_subprocess_exec(
        sys.executable, *words, cwd=cwd, env={**os.environ, **environment}, stdin=DEVNULL, stdout=PIPE
    )


async def first_line(process: Process) -> str:
    """By which a process tells its address."""
    line = await process.stdout.readline() if process.stdout is not None else b""
    if not line:
        raise RuntimeError(
            f"a process of the benchmark ended before it began (exit code {await process.wait()})"
        )
    return line.decode().strip()


async def ended(process: Process) -> None:
    """Ends it, if it has not ended by itself."""
    if process.returncode is None:
        process.terminate()
        await process.wait()


async def _serve(dsn: str, *, at_once: bool) -> None:
    """The gateway process: tells its address and serves until it is stopped."""
    async with Gateway(dsn, deliver_at_once=at_once) as gateway:
        print(gateway.url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], at_once=len(sys.argv) == 2))
