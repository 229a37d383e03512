"""What jobs the storm is made of: kinds, how many of each, what each must end as."""

import importlib.util
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from listener.errors import ConfigError
from listener.jobs import NewJob

FILE = "chaos_jobs.py"
COMPLETED = frozenset({"completed"})


def _no_data(_: random.Random) -> Mapping[str, object]:
    return {}


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of job. Its handler is `handlers/<queue>/<type>.py` of the same project."""

    queue: str
    type: str
    data: Callable[[random.Random], Mapping[str, object]] = _no_data
    """Draws the payload of one job."""
    share: float = 1.0
    """How many of them there are, compared with the other kinds; 0: none but those of `most`."""
    most: int | None = None
    """A number of them that does not grow with the storm, spread over its length, instead of a share."""
    ends: frozenset[str] = COMPLETED
    """How a job of this kind may end: completed, cancelled, failed."""
    max_attempts: int = 100
    """High, so that the storm itself uses up no job's attempts: what a kind must end as, it must end as."""
    cancel: bool = False
    """Whether somebody asks to cancel it a while after it was enqueued."""
    replay: bool = False
    """Whether somebody replays it when it has become a dead letter."""


def load_kinds(project: Path) -> Sequence[Kind]:
    """Reads KINDS from the project's chaos_jobs.py. Raises ConfigError."""
    file = project / FILE
    spec = importlib.util.spec_from_file_location("chaos_jobs", file)
    if not file.is_file() or spec is None or spec.loader is None:
        raise ConfigError([f"{project} has no {FILE}: it lists the jobs of the storm (docs/chaos.md)."])
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(project))  # it may import what its handlers import
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(project))
    kinds = cast("object", getattr(module, "KINDS", None))
    if not isinstance(kinds, list | tuple) or not kinds:
        raise ConfigError([f"{file} must define KINDS, a list of chaos.jobs.Kind."])
    found = cast("Sequence[object]", kinds)
    if strangers := [one for one in found if not isinstance(one, Kind)]:
        raise ConfigError([f"{file}: KINDS holds chaos.jobs.Kind only, not {type(strangers[0]).__name__}."])
    return cast("Sequence[Kind]", found)


def draw(kinds: Sequence[Kind], count: int, seed: int) -> list[NewJob]:
    """The jobs of a storm in the order in which they are enqueued: a pure function of its arguments."""
    chance = random.Random(f"jobs {seed}")
    rare = [kind for kind in kinds if kind.most is not None for _ in range(min(kind.most, count))]
    common = [kind for kind in kinds if kind.most is None]
    shares = [kind.share for kind in common]
    drawn = chance.choices(common, shares, k=max(0, count - len(rare))) if common else []
    for kind in rare:  # not in the last quarter: some of them take a while
        drawn.insert(chance.randrange(max(1, len(drawn) * 3 // 4)), kind)
    return [
        NewJob(
            kind.queue,
            kind.type,
            kind.data(chance),
            priority=chance.choice((0, 0, 0, 0, 1, 5)),
            max_attempts=kind.max_attempts,
            idempotency_key=f"storm-{seed}-{number}",
        )
        for number, kind in enumerate(drawn)
    ]
