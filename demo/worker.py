"""A real `pulse worker` process, and what its log tells about each job."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import cast

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Told:
    """One line of the worker's log."""

    at: datetime
    message: str
    facts: Mapping[str, object]

    @property
    def job_id(self) -> int | None:
        """The job that an outcome is about."""
        found = self.facts.get("job_id")
        return found if isinstance(found, int) else None

    @property
    def duration_ms(self) -> float:
        """How long the handler ran."""
        return cast("float", self.facts["duration_seconds"]) * 1000


@asynccontextmanager
async def worker_process(
    environment: Mapping[str, str], tell: Callable[[Told], None], *words: str, project: Path = ROOT
) -> AsyncIterator[Process]:
    """Runs until the block ends, then drains. Every line of its log goes to `tell`.

    `words` are further options of `pulse worker`; `project` is the folder with its `handlers/`.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "listener",
        "worker",
        *words,
        cwd=project,
        env={**os.environ, **environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=PIPE,
        start_new_session=True,  # Ctrl-C is for us; we end it in order
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(_read(process, tell))
        try:
            yield process
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def _read(process: Process, tell: Callable[[Told], None]) -> None:
    if process.stdout is None:
        return
    async for line in process.stdout:
        words = cast("dict[str, object]", json.loads(line))
        at = datetime.fromisoformat(str(words.pop("time")))
        tell(Told(at, str(words.pop("message")), words))
