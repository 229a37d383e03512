"""What the scheduler and `sql/092_slots.sql` say to each other."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import NotRequired, Protocol, TypedDict, TypeVar, cast

from listener.errors import StoreUnavailable
from listener.timetable import Rule, RuleError, Settled, settle

T = TypeVar("T")


class Asks(Protocol):
    """Who calls a function of `sql/`: the store."""

    async def ask(self, function: str, arguments: Mapping[str, object]) -> object:
        """The answer, its JSON as it is."""
        ...


@dataclass(frozen=True, slots=True)
class Due:
    """A schedule whose slot has come, or whose next slot nobody has reckoned yet, as it was when it was looked at."""

    name: str
    edition: int
    queue: str
    type: str
    rule: Rule
    missed: str
    settled_to: str
    """Untouched, to be compared."""


@dataclass(frozen=True, slots=True)
class Look:
    """What is due."""

    now: datetime
    """By the clock of the database, the only one that counts."""
    due: Sequence[Due]
    undeclared: Sequence[str]
    """Those of code that no process has declared for a day."""
    next_in: timedelta | None
    """Until the next one is due; None: there is none."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What became of one schedule that was due."""

    name: str
    jobs: Sequence[tuple[str, int, bool]]
    """(key, id, whether it is new) of each slot's job."""
    left_out: int
    """How many slots got none."""
    refused: str | None
    """Why the database did not take it."""
    moved: bool
    """Somebody else was first, or the row was changed: nothing was done."""


class _DueJson(TypedDict):
    name: str
    edition: int
    queue: str
    type: str
    cron: str | None
    every_seconds: int | None
    timezone: str
    missed: str
    settled_to: str


class _LookJson(TypedDict):
    now: str
    due: list[_DueJson]
    undeclared: list[str]
    next_in_seconds: float | Decimal | None


class _SlotJson(TypedDict):
    key: str
    id: int
    created: bool


class _TurnJson(TypedDict):
    name: str
    jobs: list[_SlotJson]
    left_out: NotRequired[int]
    refused: str | None
    moved: bool


class _RefusedJson(TypedDict):
    name: str
    why: str


class _DeclaredJson(TypedDict):
    refused: list[_RefusedJson]
    put_off: NotRequired[list[str]]
    """Not from a database whose migrations are older than this process."""


async def _asked(
    store: Asks, function: str, arguments: Mapping[str, object], read: Callable[[object], T]
) -> T:
    said = await store.ask(function, arguments)
    try:
        return read(said)
    except (KeyError, TypeError, ValueError, AttributeError) as error:  # a proxy's own, or of another version
        raise StoreUnavailable(
            f"{function}: an answer that cannot be read ({type(error).__name__})"
        ) from error


async def declare(store: Asks, words: Sequence[Mapping[str, object]]) -> tuple[list[tuple[str, str]], bool]:
    """Tells what code declares; answers (name, why) of those that are not taken.

    And whether to say it again once what is due was run: a changed rule waits for the slots of the one before.
    """
    return await _asked(
        store, "declare_schedules", {"schedules": words}, lambda said: _declared(cast("_DeclaredJson", said))
    )


def _declared(said: _DeclaredJson) -> tuple[list[tuple[str, str]], bool]:
    return [(one["name"], one["why"]) for one in said["refused"]], bool(said.get("put_off"))


async def look(store: Asks, most: int = 100) -> Look:
    """Which schedules are due."""
    return await _asked(
        store, "due_schedules", {"max_schedules": most}, lambda said: _look(cast("_LookJson", said))
    )


def _look(said: _LookJson) -> Look:
    wait = said["next_in_seconds"]
    return Look(
        datetime.fromisoformat(said["now"]),
        [_due(one) for one in said["due"]],
        said["undeclared"],
        None if wait is None else timedelta(seconds=float(wait)),
    )


def _due(said: _DueJson) -> Due:
    seconds = said["every_seconds"]
    every = None if seconds is None else timedelta(seconds=seconds)
    rule = Rule(said["cron"], every, said["timezone"])
    return Due(
        said["name"], said["edition"], said["queue"], said["type"], rule, said["missed"], said["settled_to"]
    )


def reckon(due: Sequence[Due], now: datetime) -> list[dict[str, object]]:
    """What `run_slots` is to do about each; of a rule that cannot be reckoned, why."""
    return [_reckoned(one, now) for one in due]


def _reckoned(one: Due, now: datetime) -> dict[str, object]:
    names: dict[str, object] = {"name": one.name, "edition": one.edition, "settled_to": one.settled_to}
    try:
        found: Settled = settle(one.rule, one.missed, datetime.fromisoformat(one.settled_to), now)
    except RuleError as error:
        return {**names, "problem": str(error)}
    except Exception as error:  # noqa: BLE001 - whatever it is, it must not stop the other schedules
        return {**names, "problem": f"its slots cannot be reckoned ({type(error).__name__})"}
    settles_to = found.settles_to.isoformat() if found.slots or found.left_out else one.settled_to
    return {
        **names,
        "slots": found.slots,
        "settles_to": settles_to,
        "next_slot": found.next_slot,
        "left_out": found.left_out,
    }


async def run(store: Asks, reckoned: Sequence[Mapping[str, object]]) -> list[Turn]:
    """Turns slots into jobs."""
    return await _asked(
        store,
        "run_slots",
        {"slots": reckoned},
        lambda said: [_turn(one) for one in cast("list[_TurnJson]", said)],
    )


def _turn(said: _TurnJson) -> Turn:
    jobs = [(one["key"], one["id"], one["created"]) for one in said["jobs"]]
    return Turn(said["name"], jobs, said.get("left_out", 0), said["refused"], said["moved"])
