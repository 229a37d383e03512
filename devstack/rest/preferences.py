"""The `Prefer` header: what is understood, what is refused, and what an answer says was applied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from devstack.rest.errors import RestError

CHOICES: Final = {
    "resolution": ("merge-duplicates", "ignore-duplicates"),
    "missing": ("default", "null"),
    "return": ("representation", "minimal", "headers-only"),
    "count": ("exact", "planned", "estimated"),
    "handling": ("strict", "lenient"),
}
# Understood and ignored: a project's own setting says how a transaction ends.
IGNORED: Final = frozenset({"tx=commit", "tx=rollback"})
SHOWN: Final = ("resolution", "missing", "return", "count", "handling", "timezone", "max-affected")


@dataclass(frozen=True, slots=True)
class Preferences:
    """What was preferred, by name; of two words about one thing the first counts.

    `timezone` is in `given` as it came: whether there is such a zone, the database knows.
    """

    given: dict[str, str]
    wrong: tuple[str, ...] = ()

    def get(self, name: str) -> str | None:
        """The preference, or None."""
        return self.given.get(name)

    @property
    def is_strict(self) -> bool:
        """Whether what is not understood is refused."""
        return self.given.get("handling") == "strict"

    @property
    def max_affected(self) -> int | None:
        """More changed rows than this undo the request; counts with handling=strict only."""
        limit = self.given.get("max-affected")
        return int(limit) if limit is not None and self.is_strict else None

    def without(self, name: str) -> Preferences:
        """The same without one that turned out to mean nothing."""
        kept = {each: value for each, value in self.given.items() if each != name}
        return Preferences(kept, (*self.wrong, f"{name}={self.given[name]}"))

    def check(self) -> None:
        """PGRST122 for words that are not understood, when handling is strict."""
        if self.wrong and self.is_strict:
            message = "Invalid preferences given with handling=strict"
            raise RestError(400, "PGRST122", message, f"Invalid preferences: {', '.join(self.wrong)}")

    def applied(self, *names: str) -> dict[str, str]:
        """The Preference-Applied header for those of `names` that were given."""
        told = {*names} - (set() if self.is_strict else {"max-affected"})
        shown = [f"{name}={self.given[name]}" for name in SHOWN if name in told and name in self.given]
        return {"Preference-Applied": ", ".join(shown)} if shown else {}


def read_preferences(headers: Sequence[str]) -> Preferences:
    """Understands all `Prefer` headers of a request."""
    given: dict[str, str] = {}
    wrong: list[str] = []
    for word in (word.strip() for header in headers for word in header.split(",")):
        name, _, value = word.partition("=")
        is_number = name == "max-affected" and value.removeprefix("-").isdigit()
        if value in CHOICES.get(name, ()) or is_number or name == "timezone":
            given.setdefault(name, value)
        elif word not in IGNORED and not word.startswith("max-affected="):
            wrong.append(word)
    return Preferences(given, tuple(wrong) if headers else ())
