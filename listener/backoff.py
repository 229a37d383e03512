"""How long to wait before a retry: pure functions from the number of failed attempts to a delay.

Without a policy of its own a type follows the table in `sql/`: 5 s, 10 s, 15 s.
"""

import random
from collections.abc import Callable
from datetime import timedelta

Backoff = Callable[[int], timedelta]
"""Given how many counted attempts have failed (from 1), how long to wait before the next."""


def exponential(
    base: timedelta = timedelta(seconds=5),
    *,
    cap: timedelta = timedelta(minutes=15),
    jitter: float = 0.2,
    draw: Callable[[], float] = random.random,
) -> Backoff:
    """Doubles from `base` up to `cap`, then spreads by up to `jitter` (a fraction of the delay) either way.

    `draw` gives numbers in [0, 1); tests hand in their own.
    """

    def delay(failed: int) -> timedelta:
        # Bounded before it is a duration: 2.0 ** 2000 is an error, and so is a timedelta of ten million years.
        plain = base * min(cap / base, 2.0 ** min(failed - 1, 1000))
        return plain * (1 + jitter * (2 * draw() - 1))

    return delay
