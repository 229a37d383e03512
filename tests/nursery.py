"""Real worker processes in a tenth of the time: one that has imported everything forks them, at a test's own pace.

`python -m tests.nursery` takes orders from the socket that is its standard input, each with one end of a stream. It
forks a keeper, which forks the worker, tells the stream its process number, and at the end its exit code. In between
the stream carries what the worker prints. The worker is `pulse` as it is, but for its tempo and its wall clock.
"""

import asyncio
import functools
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, tzinfo
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
_LARGEST_ORDER = 100_000


@dataclass(frozen=True, slots=True)
class Order:
    """What process is wanted."""

    words: Sequence[str]
    folder: str
    environment: Mapping[str, str]
    tempo: Mapping[str, float]
    """Seconds, by their names in Tempo; what is left out is as in production."""
    wall_clock: str | None = None
    """A file with the seconds by which this machine's wall clock is wrong, read whenever somebody looks at it."""


class Nursery:
    """The test's side."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "tests.nursery"]
            self._process = subprocess.Popen(command, cwd=ROOT, stdin=theirs.fileno())

    async def start(self, order: Order) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The stream of a new process: its number, what it prints, and `exit` with its code."""
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self._socket, [json.dumps(asdict(order)).encode()], [theirs.fileno()])
        return await asyncio.open_unix_connection(sock=ours)

    def close(self) -> None:
        self._socket.close()
        self._process.wait()


def main() -> None:
    for room in (
        "console.program",
        "console.worker",
        "console.web",
        "supabase",
    ):  # before the fork, and not after each
        import_module(room)
    orders = socket.socket(fileno=0)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers are not waited for
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests
    while words := socket.recv_fds(orders, _LARGEST_ORDER, 1):
        text, streams, _, _ = words
        if not text:
            return
        if os.fork() == 0:
            orders.close()
            _keep(Order(**json.loads(text)), streams[0])
        os.close(streams[0])


def _keep(order: Order, stream: int) -> None:
    """The keeper, and below it the worker."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        _live(order, stream)
    os.write(stream, b"%d\n" % pid)
    _, status = os.waitpid(pid, 0)
    os.write(stream, b"\nexit %d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _live(order: Order, stream: int) -> None:
    from console.program import run
    from listener import process
    from listener.config import Tempo

    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number in (1, 2):
        os.dup2(stream, number)
    os.close(stream)
    os.chdir(order.folder)
    os.environ.clear()
    os.environ.update(order.environment)
    sys.path.insert(0, order.folder)
    tempo: dict[str, Any] = {name: timedelta(seconds=seconds) for name, seconds in order.tempo.items()}
    process.__dict__["serve"] = functools.partial(process.serve, tempo=Tempo(**tempo))
    if order.wall_clock is not None:
        _be_wrong_by(Path(order.wall_clock))
    sys.exit(run(order.words))


def _be_wrong_by(file: Path) -> None:
    """The rooms that ask this machine what time it is get a wrong answer."""

    class Wrong(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            return datetime.now(tz) + timedelta(seconds=float(file.read_text()))

    rooms = [module for name, module in sys.modules.items() if name.startswith("listener.")]
    for room in rooms:
        if room.__file__ is not None and "datetime.now(" in Path(room.__file__).read_text():
            room.__dict__["datetime"] = Wrong


if __name__ == "__main__":
    main()
