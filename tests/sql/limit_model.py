"""A limit as it should be: all calls that were ever taken, in whole seconds, and no cleverness."""

from dataclasses import dataclass, field


@dataclass
class Limit:
    """One key."""

    taken: list[int] = field(default_factory=list[int])
    held_until: int = 0

    def is_free(self, at: int, calls: int, allowed: int, per: int) -> bool:
        """Whether the window that ends at that moment has room, and nobody holds the key."""
        within = [call for call in self.taken if at - per < call <= at]
        return at >= self.held_until and len(within) + calls <= allowed

    def take(self, at: int, calls: int, allowed: int, per: int) -> int:
        """How many seconds to wait; 0 when they are taken."""
        for wait in sorted({0, self.held_until - at, *(call + per - at for call in self.taken)}):
            if wait >= 0 and self.is_free(at + wait, calls, allowed, per):
                if wait == 0:
                    self.taken += [at] * calls
                return wait
        raise AssertionError("a window empties in the end")
