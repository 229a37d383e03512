"""What the REST side is asked to do wrong: the next so many requests of a kind meet a fault."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge

What = Literal[
    "status",  # answered with `status` and `body`, as something in between would; nothing is done
    "delay",  # served, but only after `seconds`
    "silence",  # nothing is done and nothing is answered until the client goes away
    "cut",  # the connection is reset before anything is done
    "lose_answer",  # served and committed, then the connection is cut without an answer
    "cut_body",  # served and committed, then the connection is cut in the middle of the answer's body
    "schema_cache",  # 503 PGRST002: no schema cache yet, as for seconds after a database came back
    "database_away",  # 503 57P01: the database went away under the request
    "pool",  # 504 PGRST003: every connection was taken for too long
    "statement_timeout",  # 500 57014: the role's time was up
]
Times = Annotated[int, Ge(1)]


@dataclass(slots=True)
class RestFault:
    """One planned fault. `times` counts down as requests meet it; None means until it is cleared."""

    what: What
    at: str = ""
    """The name of a table or function, or the beginning of a path if it starts with a slash; '' is every request."""
    times: Times | None = 1
    status: int = 503
    body: str | None = None
    """Of a `status`: HTML or JSON; without one what a proxy says for that status."""
    seconds: float = 1.0

    def meets(self, path: str, name: str) -> bool:
        """Whether a request is of its kind."""
        return path.startswith(self.at) if self.at.startswith("/") or not self.at else name == self.at


@dataclass(slots=True)
class RestFaults:
    """Faults in the order in which they were planned; a request meets the first that fits it, and only that one."""

    planned: list[RestFault] = field(default_factory=list[RestFault])

    def plan(
        self,
        what: What,
        at: str = "",
        *,
        times: int | None = 1,
        status: int = 503,
        body: str | None = None,
        seconds: float = 1.0,
    ) -> None:
        """The next `times` requests at `at` meet this fault, after those planned before it."""
        self.planned.append(RestFault(what, at, times, status, body, seconds))

    def clear(self) -> None:
        """From now on all goes well."""
        self.planned.clear()

    def met(self, path: str, name: str) -> RestFault | None:
        """The fault that this request meets, counted; what is used up is planned no longer."""
        fault = next((each for each in self.planned if each.meets(path, name)), None)
        if fault is not None and fault.times is not None:
            fault.times -= 1
            if not fault.times:
                self.planned.remove(fault)
        return fault
