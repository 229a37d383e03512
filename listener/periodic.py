"""Schedules declared in code, beside the handler whose jobs they bring.

    @every(timedelta(minutes=5))
    @cron("0 8 * * mon-fri", timezone="Europe/Berlin", missed="all", name="morning", data={"full": True})
    @handler(Queue.BROKER)
    async def monitor_orders(...): ...

Each process tells the database its declarations at the start (`declare_schedules`); from then on a schedule is a row of
the table `schedules`, which operators may change, and which any process serves.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal, TypeVar

from pydantic import BaseModel, ValidationError

from listener.timetable import Rule, RuleError

_SCHEDULES = "__pulse_schedules__"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,99}")
_LONGEST = timedelta(days=366)
F = TypeVar("F", bound=Callable[..., object])
Policy = Literal["skip", "once", "all"]
Overlap = Literal["allow", "skip"]


@dataclass(frozen=True, slots=True)
class Declared:
    """One schedule as code declares it. `name`, `queue` and `type` are the handler's where nothing else is said."""

    rule: Rule
    missed: Policy
    name: str = ""
    data: Mapping[str, object] = field(default_factory=dict[str, object], repr=False)
    slot_as: str | None = None
    queue: str = ""
    type: str = ""
    overlap: Overlap = "allow"

    @property
    def words(self) -> dict[str, object]:
        """As the database wants them."""
        every = self.rule.every
        return {
            "name": self.name,
            "queue": self.queue,
            "type": self.type,
            "data": self.data,
            "slot_as": self.slot_as,
            "cron": self.rule.cron,
            "every_seconds": None if every is None else int(every.total_seconds()),
            "timezone": self.rule.timezone,
            "missed": self.missed,
            "overlap": self.overlap,
        }


def every(
    interval: timedelta,
    *,
    missed: Policy = "once",
    overlap: Overlap = "allow",
    name: str | None = None,
    data: Mapping[str, object] | None = None,
    slot_as: str | None = None,
) -> Callable[[F], F]:
    """Brings a job of this handler at each multiple of `interval`, counted in UTC: `timedelta(hours=1)` is on the hour.

    `missed` says what becomes of slots for which no process was there: "skip" them, run the last of them "once", or
    "all". `overlap` says what becomes of a slot whose last job is not done: "allow" another beside it, or "skip" the
    slot. `name` is needed where a handler has several schedules. `data` is the job's payload, and `slot_as` the key
    in it that tells the slot, as a time in UTC.
    """
    return _declares(
        Declared(Rule(every=interval), missed, name or "", dict(data or {}), slot_as, overlap=overlap)
    )


def cron(
    expression: str,
    *,
    timezone: str = "UTC",
    missed: Policy = "once",
    overlap: Overlap = "allow",
    name: str | None = None,
    data: Mapping[str, object] | None = None,
    slot_as: str | None = None,
) -> Callable[[F], F]:
    """Brings a job of this handler when the clocks of `timezone` show what the five fields say, as for `every`."""
    rule = Rule(cron=expression, timezone=timezone)
    return _declares(Declared(rule, missed, name or "", dict(data or {}), slot_as, overlap=overlap))


def _declares(one: Declared) -> Callable[[F], F]:
    def mark(function: F) -> F:
        setattr(function, _SCHEDULES, (one, *getattr(function, _SCHEDULES, ())))
        return function

    return mark


def declared_on(function: object) -> tuple[Declared, ...]:
    """What stands above a function, from the top."""
    found: tuple[Declared, ...] = getattr(function, _SCHEDULES, ())
    return found


def schedule_problem(one: Declared, payload: type[BaseModel]) -> str | None:
    """What is wrong with a declaration, in words that fit behind the name of its handler."""
    every = one.rule.every
    if not _NAME.fullmatch(one.name):
        return "its schedule's name must be 1 to 100 letters, digits and . _ : -"
    if one.missed not in {"skip", "once", "all"}:
        return f"its schedule {one.name} must say missed as skip, once or all."
    if one.overlap not in {"allow", "skip"}:
        return f"its schedule {one.name} must say overlap as allow or skip."
    if every is not None and (every % timedelta(seconds=1) or not timedelta(seconds=1) <= every <= _LONGEST):
        return f"its schedule {one.name} must come every so many whole seconds, a year at the most."
    try:
        one.rule.after(datetime.now(UTC))
    except RuleError as error:
        return f"its schedule {one.name} names no moments: {error}."
    slot = {} if one.slot_as is None else {one.slot_as: "2026-01-01T00:00:00Z"}
    try:
        payload.model_validate({**one.data, **slot})
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, each["loc"])) or "the whole" for each in error.errors())
        return f"its schedule {one.name} carries data that its payload refuses ({fields})."
    return None
