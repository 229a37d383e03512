"""Where our Realtime still differs from the recorded one, each with its reason; everything else is the same."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """What a recording's line (counted from 1) shows and ours does not."""

    recording: str
    line: int
    reason: str


DIFFERENCES: tuple[Difference, ...] = ()
