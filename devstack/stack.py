"""The whole stack over one data folder: database, migrations, seeds and gateway, until a signal ends it.

SIGINT and SIGTERM stop it in order. SIGUSR1 empties the database: everything goes down, the cluster is
removed, and everything comes up again on the same ports, as after a first start.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from devstack.config import Config
from devstack.gateway import Gateway
from devstack.keys import Keys
from devstack.migrations import Applied, apply
from devstack.postgres import SUPERUSER, Postgres, bootstrap
from devstack.running import Note, remove_note, write_note

LOG: Final = logging.getLogger("devstack")
RESET: Final = signal.SIGUSR1


@dataclass(frozen=True, slots=True)
class Plan:
    """What to serve. `data` is the folder of the note, `cluster` that of the database server."""

    project: Path
    data: Path
    cluster: Path
    config: Config
    port: int
    db_port: int
    binaries: Path | None
    durable: bool


async def serve(plan: Plan, say: Callable[[str], None]) -> None:
    """Starts everything, says where it listens and stays until a signal; stops in order.

    Raises Refused for a migration or seed that PostgreSQL refuses, PostgresError, and OSError for a port.
    """
    asked: asyncio.Queue[signal.Signals] = asyncio.Queue()
    for number in (signal.SIGINT, signal.SIGTERM, RESET):
        asyncio.get_running_loop().add_signal_handler(number, asked.put_nowait, number)
    while await _serve_once(plan, asked, say) == RESET:
        await asyncio.to_thread(shutil.rmtree, plan.cluster)
        say("The database was emptied.")


async def _serve_once(
    plan: Plan, asked: asyncio.Queue[signal.Signals], say: Callable[[str], None]
) -> signal.Signals:
    server = Postgres(plan.cluster, port=plan.db_port, binaries=plan.binaries, durable=plan.durable)
    keys = Keys(jwt_secret=plan.config.jwt_secret)
    async with server:
        await bootstrap(server.dsn(user=SUPERUSER))
        _tell(await apply(server.dsn(), plan.project, plan.config.seeds), say)
        async with Gateway(
            server.dsn(), port=plan.port, deliver_at_once=False, keys=keys, config=plan.config
        ):
            note = Note(
                os.getpid(),
                time.time(),
                plan.port,
                plan.db_port,
                plan.config.jwt_secret,
                str(plan.cluster),
            )
            say(note.table())
            await asyncio.to_thread(write_note, plan.data, note)
            LOG.info("serving %s", note.url)
            try:
                return await asked.get()
            finally:
                await asyncio.to_thread(remove_note, plan.data)
                LOG.info("stopping")


def _tell(done: Applied, say: Callable[[str], None]) -> None:
    if done.migrations:
        say(f"Applied {_several(done.migrations)}.")
    if done.seeds:
        say(f"Seeded from {', '.join(done.seeds)}.")
    if done.changed:
        say(
            f"Changed since they were applied: {', '.join(done.changed)}. "
            "`reset` begins again with an empty database."
        )


def _several(names: list[str]) -> str:
    if len(names) == 1:
        return names[0]
    return f"{len(names)} migrations, {names[0]} to {names[-1]}"
