"""The whole stack over one data folder: database, migrations and gateway, until a signal ends it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

from devstack.gateway import Gateway
from devstack.migrations import apply
from devstack.postgres import SUPERUSER, Postgres, bootstrap
from devstack.running import table, write_note


async def serve(project: Path, data: Path, port: int, db_port: int, say: Callable[[str], None]) -> None:
    """Starts everything, says where it listens and stays until SIGINT or SIGTERM; stops in order."""
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with Postgres(data / "postgres", port=db_port, durable=True) as server:
        await bootstrap(server.dsn(user=SUPERUSER))
        applied, changed = await apply(server.dsn(), project)
        async with Gateway(server.dsn(), port=port, deliver_at_once=False):
            _tell(applied, changed, say)
            say(table(port, db_port))
            await asyncio.to_thread(write_note, data, port, db_port)
            await stopped.wait()


def _tell(applied: list[str], changed: list[str], say: Callable[[str], None]) -> None:
    if applied:
        say(f"Applied {len(applied)} migrations, {applied[0]} to {applied[-1]}.")
    if changed:
        say(
            f"Changed since they were applied: {', '.join(changed)}. `start --fresh` begins with an empty database."
        )
