"""Every error that this project raises on purpose.

PulseError
├── ConfigError            the process cannot start; names each problem and its mend (exit code 2)
├── StoreError             the REST API did not do what we asked
│   ├── StoreUnavailable   no answer, or one that says "later": the call is safe to repeat
│   └── StoreRefused       the API understood and said no: repeating will not help
├── Reject                 raised by a handler: this job can never succeed (dead letter now)
├── RetryAfter             raised by a handler: try again, but not before this long
└── DeliveryRefused        raised by a webhook: answer the sender with this status and sentence
"""

from collections.abc import Sequence
from datetime import timedelta


class PulseError(Exception):
    """The root: catch it to catch all that this project raises on purpose."""


class ConfigError(PulseError):
    """The process cannot start as it is configured. Carries every problem found, not only the first."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class StoreError(PulseError):
    """A call to the REST API did not succeed."""


class StoreUnavailable(StoreError):
    """No answer, or a 5xx: whether the call took effect is unknown. Every call of `store.py` may be repeated."""

    def __init__(self, message: str, *, was_sent: bool = True) -> None:
        super().__init__(message)
        self.was_sent = was_sent
        """False when there was not even a connection: then it had no effect."""


class StoreRefused(StoreError):
    """The API understood the call and refused it.

    `status` is the HTTP status, `code` the SQLSTATE or PGRST code, and the text what the database said.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{message} (HTTP {status}, {code})")
        self.status = status
        self.code = code
        self.message = message


class Reject(PulseError):
    """Raise in a handler when no retry can help; the text goes to the dead letter, so keep payload values out of it."""


class RetryAfter(PulseError):
    """Raise in a handler when a provider names the time to come back; counts as an attempt, like any failure."""

    def __init__(self, delay: timedelta, message: str) -> None:
        super().__init__(message)
        self.delay = delay


class DeliveryRefused(PulseError):
    """Raise in a webhook: the sender gets this HTTP status and sentence, and no job is made."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
