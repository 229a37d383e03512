"""What a storm is to be."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

OWN_PROJECT = Path(__file__).resolve().parent / "project"


@dataclass(frozen=True, slots=True)
class Plan:
    """The words of the command line. The same plan has the same weather and the same jobs."""

    minutes: float = 2.0
    jobs: int = 12_000
    workers: int = 3
    seed: int = 1
    lease: float = 10.0
    sweep: float = 2.0
    patience: float = 100.0
    """Seconds after the storm in which everything has to come to rest."""
    faults: Sequence[str] = ()
    """Only these; empty: all."""
    project: Path = OWN_PROJECT
    """The folder with `handlers/` and chaos_jobs.py."""
    sabotage: Path | None = None
    """SQL for the lab's own database: who takes out a protection should see the lab find it."""

    @property
    def seconds(self) -> float:
        """How long the storm lasts."""
        return self.minutes * 60

    @property
    def longest_wait(self) -> float:
        """How long a due job may wait at the worst: leases and sweeps after faults that overlap."""
        return 45 + 4 * self.lease
