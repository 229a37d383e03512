"""How far an attempt is, in words for the user whose job it is: what a handler says with its `progress`.

    async def import_trades(payload: ImportTrades, *, progress: Progress) -> None:
        await progress(0, of=len(days))
        ...
        await progress(n, of=len(days), note="September")

It costs the handler nothing: what was said last is sent with that of the others, at most once per second
(`reporter.py`), and the last word of all before the outcome. It never makes a job fail.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from listener.jobs import AttemptRef

_LONGEST_NOTE = 500


@dataclass(frozen=True, slots=True)
class Report:
    """What one attempt has said last."""

    ref: AttemptRef
    progress: dict[str, object]


class Progress:
    """Says how far its attempt is; a handler asks for it by this type."""

    def __init__(self, ref: AttemptRef, tell: Callable[[Report], None], clean: Callable[[str], str]) -> None:
        self._ref = ref
        self._tell = tell
        self._clean = clean

    async def __call__(
        self, done: float | Decimal, of: float | Decimal | None = None, note: str | None = None
    ) -> None:
        """`done` of so many, and a note, which the user reads. What is no number is left out."""
        words: dict[str, object] = {"done": _number(done), "of": _number(of)}
        if isinstance(note, str):
            words["note"] = self._clean(note[: 4 * _LONGEST_NOTE])[:_LONGEST_NOTE]
        self._tell(Report(self._ref, {name: value for name, value in words.items() if value is not None}))


def _number(value: object) -> float | None:
    """As JSON has numbers, for a bar on a screen: not for money."""
    match value:
        case bool():
            return None
        case int():
            return value if abs(value) < 10**15 else None
        case float() | Decimal() if math.isfinite(value):
            return float(value)
        case _:
            return None
