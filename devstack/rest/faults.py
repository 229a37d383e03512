"""What the REST side is asked to do wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge

Counts = dict[str, Annotated[int, Ge(0)]]


@dataclass(slots=True)
class RestFaults:
    """Counts name a function or table, or a path prefix where that is said; they count down to 0.

    `lose_answers`: how many next writes are committed and then cut off without an answer. `refuse` (also by
    path prefix): how many next requests answer 503 before anything is done.
    """

    lose_answers: Counts = field(default_factory=dict[str, int])
    refuse: Counts = field(default_factory=dict[str, int])

    def lose_answer(self, name: str) -> bool:
        """Whether the answer of this committed call is to be lost; counts down."""
        return _taken(self.lose_answers, name)

    def refuse_now(self, path: str, name: str) -> bool:
        """Whether this request is to be answered 503; counts down."""
        return _taken(self.refuse, name) or any(
            _taken(self.refuse, key) for key in tuple(self.refuse) if path.startswith(key)
        )


def _taken(counts: dict[str, int], key: str) -> bool:
    left = counts.get(key, 0)
    if left <= 0:
        return False
    counts[key] = left - 1
    return True
