"""Python processes of the lab: started with their log in a file, signalled, awaited."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


async def python(
    module: str, *words: str, folder: Path = ROOT, log: Path | None = None, **environment: str
) -> Process:
    """Runs a module of this project in `folder`. It ends when the lab does; without a log, its output is a pipe."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    inherited: Mapping[str, str] = {**os.environ, **environment, "PYTHONPATH": os.pathsep.join(paths)}
    output = None if log is None else log.open("ab")
    try:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            *words,
            cwd=folder,
            env=inherited,
            stdin=PIPE,
            stdout=PIPE if output is None else output,
            stderr=DEVNULL if output is None else output,
            start_new_session=True,  # Ctrl-C is for the lab
        )
    finally:
        if output is not None:
            output.close()


def send(process: Process, number: signal.Signals) -> None:
    """A signal, if it still runs."""
    if process.returncode is None:
        process.send_signal(number)


async def ended(process: Process) -> int:
    """Ends it at once, whatever state it is in, and answers its exit code."""
    send(process, signal.SIGKILL)
    return await process.wait()
