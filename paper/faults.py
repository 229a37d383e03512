"""Faults that were asked for, as they befall a call.

lost_before      nothing is done, and the connection is cut
lost_answer      it is done, and the connection is cut
lands_late       the connection is cut; the order arrives `seconds` later
unavailable      nothing is done: 503
gateway_timeout  it is done: 504
too_fast         nothing is done: 429, with `seconds` to wait
hang             nothing is done; the connection is cut after `seconds`
unauthorized     nothing is done: 401
"""

import asyncio
from dataclasses import dataclass

from paper.store import Json
from paper.words import Fault

_AFTER = frozenset({"lost_answer", "lands_late", "gateway_timeout"})
_STATUS = {"unavailable": 503, "gateway_timeout": 504, "too_fast": 429, "unauthorized": 401}
KINDS = frozenset({"lost_before", "hang", *_AFTER, *_STATUS})


@dataclass(frozen=True, slots=True)
class Drawn:
    """A fault that was drawn for one call."""

    kind: str
    seconds: float

    @classmethod
    def of(cls, row: Json | None, *, submits: bool) -> "Drawn | None":
        """What befalls a call, if anything does. Only an order can land late; other calls are lost then."""
        if row is None:
            return None
        lost = row["kind"] == "lands_late" and not submits
        return cls("lost_before" if lost else row["kind"], float(row["seconds"]))

    @property
    def before(self) -> bool:
        """Whether it keeps the call from being done."""
        return self.kind not in _AFTER

    @property
    def late(self) -> bool:
        """Whether the order is sent and arrives later."""
        return self.kind == "lands_late"

    async def befallen(self) -> Fault:
        """What the client sees, when it sees it."""
        if self.kind == "hang":
            await asyncio.sleep(self.seconds)
        return Fault(_STATUS.get(self.kind), self.seconds if self.kind == "too_fast" else 0)
