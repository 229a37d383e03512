"""What goes wrong in a run, drawn from its seed: a handful of faults, each at the next occasion that fits."""

import random
from collections import Counter
from typing import Final

Rates = dict[str, int]

SUBMIT: Rates = {
    "lost_before": 6,  # the request never arrives, and nobody says so
    "lost_answer": 6,  # it has, and nobody says so
    "lands_late": 8,  # it will, some seconds after everybody has given up
    "accepted_and_504": 4,
    "503": 4,
    "crash_before": 4,
    "crash_after": 4,
    "freeze_in_call": 4,
    "slow": 4,
    "not_sent": 2,
    "too_fast": 2,
    "bad_credentials": 1,
}
HOURS: Rates = {"freeze": 6, "slow": 2, "not_sent": 1, "crash": 2}
FIND: Rates = {"fails": 8, "lags": 5, "freeze_with_answer": 5, "crash": 2, "not_sent": 1}
RPC: Rates = {
    "refused": 2,
    "answer_lost": 3,
    "crash_before": 2,
    "crash_after": 3,
    "freeze_before": 3,
    "freeze_after": 3,
}
QUIET: Final = {"submit": 3, "hours": 60, "find": 20, "rpc": 90}
"""The weight of nothing going wrong, per place: submissions are where it matters."""

Step = tuple[str, str, tuple[float, float] | None]
SCRIPTS: Final[dict[str, tuple[Step, ...]]] = {
    # Unlucky coincidences, which chance alone brings about too seldom: place, fault, and how long it lasts.
    "slow, then late, while another looks": (
        ("hours", "slow", (4, 4.8)),
        ("submit", "lands_late", (7, 8)),
    ),
    "frozen before the call, thawed in the next one": (
        ("hours", "freeze", (32, 42)),
        ("submit", "lost_answer", None),
    ),
    "frozen before the call, thawed long after": (("hours", "freeze", (45, 90)),),
    "frozen with an old look": (
        ("submit", "lands_late", (2, 8)),
        ("find", "freeze_with_answer", (10, 29)),
    ),
    "lands late": (("submit", "lands_late", (2, 8)),),
    "frozen in the call": (("submit", "freeze_in_call", (31, 60)),),
}


class Faults:
    """Draws them. After so many, nothing goes wrong any more, so that each run ends."""

    def __init__(self, dice: random.Random, counted: Counter[str], script: str | None = None) -> None:
        self.dice = dice
        if script is None and dice.random() < 0.15:
            script = dice.choice(list(SCRIPTS))
        self.script = script
        self._steps = list(SCRIPTS[script] if script else ())
        self._left = dice.choice((0, 1, 1, 2, 2, 3, 4, 6))
        self._counted = counted
        self._drawn: Counter[str] = Counter()
        self._lasts: dict[str, tuple[float, float]] = {}

    def draw(self, place: str, rates: Rates, without: frozenset[str] = frozenset()) -> str | None:
        if self._steps:
            at, what, lasts = self._steps[0]
            if at != place:
                return None
            self._steps.pop(0)
            if lasts is not None:
                self._lasts[what] = lasts
            return self._count(place, what)
        if not self._left:
            return None
        names = [name for name in rates if name not in without]
        weights = [rates[name] for name in names]
        (name,) = self.dice.choices([None, *names], [QUIET[place], *weights])
        if name is None:
            return None
        self._left -= 1
        return self._count(place, name)

    def _count(self, place: str, name: str) -> str:
        self._counted[f"{place}: {name}"] += 1
        self._drawn[name] += 1
        return name

    def drawn(self, name: str) -> int:
        return self._drawn[name]

    def lasts(self, fault: str, shortest: float, longest: float) -> float:
        """How long a fault lasts that was drawn: as the script says, else by chance."""
        return self.dice.uniform(*self._lasts.pop(fault, (shortest, longest)))

    def freeze(self, fault: str) -> float:
        """How long a process stands still: mostly past its lease, often until others have sent the order again."""
        return self.lasts(fault, *self.dice.choice(((9, 30), (31, 60), (50, 90), (60, 400))))
