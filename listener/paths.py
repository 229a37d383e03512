"""The paths of webhooks: `/webhooks/mail`, or with parts that the sender fills in, `/webhooks/broker/{connection_id}`.

A part is filled with one word of letters, digits, `-` and `_`, long enough for a mail address in Base64 with a seal. It
is taken as it was sent: nothing is decoded, so a path keeps having one spelling (docs/decisions/011_doorkeeper.md).
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import combinations
from typing import Final

_FIXED: Final = re.compile(r"[A-Za-z0-9._~-]+")
_FILLED_IN: Final = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_WORD: Final = "[A-Za-z0-9_-]{1,400}"


def filled_in(pattern: str, path: str) -> Mapping[str, str] | None:
    """What the path fills into the pattern's parts; None if it does not fit."""
    found = _expression(pattern).fullmatch(path)
    return None if found is None else found.groupdict()


def path_problems(patterns: list[str]) -> list[str]:
    """What is wrong with the paths of all webhooks, in sentences: of one alone, or of two that meet."""
    problems: list[str] = []
    for pattern in patterns:
        names = _FILLED_IN.findall(pattern)
        parts = pattern.split("/")
        fits = all(_FIXED.fullmatch(part) or _FILLED_IN.fullmatch(part) for part in parts[1:])
        if parts[0] or not fits or len(set(names)) < len(names):
            problems.append(
                f"The webhook path {pattern!r} cannot be: it begins with /, and each part is a word or {{a_name}}, "
                "no name twice."
            )
    for one, other in combinations(patterns, 2):
        if _meet(one, other):
            both = one if one == other else f"{one} and {other}, which one request could mean"
            problems.append(f"Two webhooks answer on {both}: keep one.")
    return problems


def _meet(one: str, other: str) -> bool:
    parts, others = one.split("/"), other.split("/")
    return len(parts) == len(others) and all(
        part == with_it or _FILLED_IN.fullmatch(part) or _FILLED_IN.fullmatch(with_it)
        for part, with_it in zip(parts, others, strict=True)
    )


@lru_cache
def _expression(pattern: str) -> re.Pattern[str]:
    pieces = _FILLED_IN.split(pattern)  # fixed, name, fixed, name, … fixed
    return re.compile(
        "".join(
            f"(?P<{piece}>{_WORD})" if place % 2 else re.escape(piece) for place, piece in enumerate(pieces)
        )
    )
