"""The switchboard of faults: what the stack is asked to do wrong, set from Python, `./dev` or the admin door."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import cast

from devstack.realtime.faults import RealtimeFaults
from devstack.rest.faults import RestFaults


class UnknownFault(ValueError):
    """A switch that does not exist or a value it does not take; the message says what does."""


@dataclass(slots=True)
class Faults:
    """Set the fields directly, or over HTTP at `/_devstack/faults`. Everything is off at first."""

    rest: RestFaults = field(default_factory=RestFaults)
    realtime: RealtimeFaults = field(default_factory=RealtimeFaults)

    def shown(self) -> dict[str, object]:
        """All switches, as JSON shows them."""
        return asdict(self)

    def update(self, wanted: object) -> None:
        """Sets the switches named in a JSON object, all or none; raises UnknownFault."""
        from pydantic import TypeAdapter, ValidationError  # slow to import, and only needed here

        checked: list[tuple[object, str, object]] = []
        for side, switches in _object(wanted).items():
            if side not in {"rest", "realtime"}:
                raise UnknownFault(f"there are no faults of {side!r}; there are those of rest and realtime")
            faults: RestFaults | RealtimeFaults = getattr(self, side)
            known = [each.name for each in fields(faults)]
            news = _object(switches)
            if unknown := news.keys() - set(known):
                raise UnknownFault(
                    f"{side} has no fault {', '.join(sorted(unknown))}; it has {', '.join(known)}"
                )
            try:
                text = json.dumps(asdict(faults) | news)
                sound = TypeAdapter(type(faults)).validate_json(text, strict=True)
            except ValidationError as error:
                wrong = error.errors()[0]
                where = ".".join(str(part) for part in wrong["loc"])
                raise UnknownFault(f"{side}.{where}: {wrong['msg']}") from error
            checked += [(faults, name, getattr(sound, name)) for name in news]
        for faults_, name, value in checked:
            setattr(faults_, name, value)


def _object(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise UnknownFault('faults are a JSON object, for example {"realtime": {"deaf": true}}')
    return cast("dict[str, object]", value)
