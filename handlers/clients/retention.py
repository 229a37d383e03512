"""How long finished jobs and dead letters are kept: the policy of this project, from its settings."""

from dataclasses import dataclass
from typing import Final, Self

from listener import ConfigError, Setting, Settings

KEEP_COMPLETED_DAYS: Final = Setting(
    "PULSE_KEEP_COMPLETED_DAYS",
    "how many days completed and cancelled jobs are kept, 7 by default",
    required=False,
    secret=False,
)
KEEP_FAILED_DAYS: Final = Setting(
    "PULSE_KEEP_FAILED_DAYS",
    "how many days failed jobs, dead letters and stale outcomes are kept, 90 by default",
    required=False,
    secret=False,
)
_MOST_DAYS: Final = 36500.0


@dataclass(frozen=True, slots=True)
class Retention:
    """In days after the end."""

    completed_days: float = 7
    failed_days: float = 90

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Raises ConfigError for what is no number of days."""
        usual = cls()
        return cls(
            _days(settings, KEEP_COMPLETED_DAYS, usual.completed_days),
            _days(settings, KEEP_FAILED_DAYS, usual.failed_days),
        )


def _days(settings: Settings, setting: Setting, usual: float) -> float:
    text = settings.get(setting.name)
    if not text:
        return usual
    try:
        days = float(text)
    except ValueError:
        days = -1
    if not 0 <= days <= _MOST_DAYS:
        raise ConfigError([f"{setting.name} must be a number of days from 0 to {_MOST_DAYS:.0f}."])
    return days
