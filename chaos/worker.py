"""A worker process of the lab: `pulse worker` with its own tempo, a ledger, and as few types as it is told.

`python -m chaos.worker WORDS`, in the folder with the `handlers/` that it is to run. It ends when its standard input
does, so that no worker outlives the lab.
"""

import json
import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path

from chaos.ledger import Ledger
from listener.config import Tempo, process_environment, read_config
from listener.ending import exit_code_of
from listener.process import serve
from listener.registry import load
from listener.service import Plan


@dataclass(frozen=True, slots=True)
class Words:
    """What the lab tells a worker."""

    ledger: str
    """The folder for its ledger."""
    queues: Sequence[str]
    without: Sequence[str]
    """Types that this version does not know yet."""
    lease_seconds: float
    sweep_seconds: float
    grace_seconds: float
    schedules: bool

    def text(self) -> str:
        """For the command line."""
        return json.dumps(asdict(self))


async def work(words: Words) -> int:
    """Is a worker until it is told to stop."""
    registry = load(queues=words.queues)
    ledger = Ledger(Path(words.ledger))
    known = {
        route: ledger.kept_by(handler)
        for route, handler in registry.handlers.items()
        if route[1] not in words.without
    }
    registry = replace(registry, handlers=known)
    config = read_config(process_environment(), registry.handler_settings)
    plan = Plan(queues=registry.queues, schedules=words.schedules)
    tempo = Tempo(
        lease=timedelta(seconds=words.lease_seconds),
        sweep=timedelta(seconds=words.sweep_seconds),
        grace=timedelta(seconds=words.grace_seconds),
    )
    return await serve(config, registry, plan, "INFO", tempo)


def _end_with_the_lab() -> None:
    os.read(0, 1)  # not by way of sys.stdin, whose lock Python wants at its end
    os._exit(1)


def main() -> None:
    """Runs the one that the command line describes."""
    words = Words(**json.loads(sys.argv[1]))
    threading.Thread(target=_end_with_the_lab, daemon=True).start()
    sys.exit(exit_code_of(lambda: work(words)))


if __name__ == "__main__":
    main()
