"""The switchboard of faults: what the stack is asked to do wrong, shared by rest and realtime."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import cast


class UnknownFault(ValueError):
    """A switch that does not exist or a value it does not take; the message says what does."""


@dataclass(slots=True)
class Faults:
    """Set the fields directly, or over HTTP at `/_devstack/faults`. Everything is off at first.

    `realtime_off`: handshakes are refused and open sockets dropped. `deaf`: joined, heartbeats fine, no
    events. `lose_answers`: name of a function (or table) -> how many next writes are committed and then
    cut off without an answer. `refuse`: name of a function, or path prefix -> how many next requests
    answer 503 before anything is done.
    """

    realtime_off: bool = False
    deaf: bool = False
    lose_answers: dict[str, int] = field(default_factory=dict[str, int])
    refuse: dict[str, int] = field(default_factory=dict[str, int])

    def shown(self) -> dict[str, object]:
        """All switches, as JSON shows them."""
        return asdict(self)

    def update(self, wanted: object) -> None:
        """Sets the switches named in a JSON object, all or none; raises UnknownFault."""
        if not isinstance(wanted, dict):
            raise UnknownFault('faults must be a JSON object, for example {"deaf": true}')
        accepted: dict[str, bool | dict[str, int]] = {}
        for name, value in cast(dict[object, object], wanted).items():
            accepted[str(name)] = self._checked(str(name), value)
        for name, setting in accepted.items():
            setattr(self, name, setting)

    def lose_answer(self, rpc: str) -> bool:
        """Whether the answer of this committed call is to be lost; counts down."""
        return _taken(self.lose_answers, rpc)

    def refuse_now(self, path: str, rpc: str | None) -> bool:
        """Whether this request is to be answered 503; counts down."""
        if rpc is not None and _taken(self.refuse, rpc):
            return True
        return any(_taken(self.refuse, key) for key in tuple(self.refuse) if path.startswith(key))

    def _checked(self, name: str, value: object) -> bool | dict[str, int]:
        known = [each.name for each in fields(self)]
        if name not in known:
            raise UnknownFault(f"there is no fault {name!r}; there are {', '.join(known)}")
        if isinstance(getattr(self, name), bool):
            if not isinstance(value, bool):
                raise UnknownFault(f"{name} is true or false")
            return value
        if not isinstance(value, dict):
            raise UnknownFault(f'{name} is an object of counts, for example {{"claim": 1}}')
        counts: dict[str, int] = {}
        for key, count in cast(dict[object, object], value).items():
            if not isinstance(count, int) or isinstance(count, bool) or count < 0:
                raise UnknownFault(f"{name}[{key}] must be a count, 0 or more")
            counts[str(key)] = count
        return counts


def _taken(counts: dict[str, int], key: str) -> bool:
    left = counts.get(key, 0)
    if left <= 0:
        return False
    counts[key] = left - 1
    return True
