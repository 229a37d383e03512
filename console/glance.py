"""All queues in a table, a line each."""

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import TypedDict

from console.screen import Cell, Colour, Column, Row
from console.words import number, span

COLUMNS = (
    Column("queue"),
    Column("due", right=True),
    Column("oldest", right=True),
    Column("later", right=True),
    Column("held", right=True),
    Column("running", right=True),
    Column("lost", right=True),
    Column("failed 1 h", right=True),
    Column("dead", right=True),
)
_LONG = timedelta(minutes=1)
_MOST = 200
_MOST_IN_LINE = 200


class PausedJson(TypedDict):
    """A pause of a queue, or of one type of it."""

    type: str | None
    reason: str
    since: str


class QueueJson(TypedDict):
    """What `queue_facts` says of a queue."""

    queue: str
    pending: int | None
    due: int
    running: int
    lost: int
    oldest_due_seconds: float | Decimal | None
    dead_letters: int
    failed_last_hour: int
    counted_all: bool
    held: int
    paused: list[PausedJson]


class StatsJson(TypedDict):
    """What `queue_stats` answers."""

    now: str
    queues: list[QueueJson]


def rows(queues: Sequence[QueueJson]) -> list[Row]:
    """A line each below COLUMNS."""
    return [_row(one) for one in queues]


def _row(one: QueueJson) -> Row:
    waited = one["oldest_due_seconds"]
    oldest = None if waited is None else timedelta(seconds=float(waited))
    return (
        Cell(*_name(one)),
        _due(one),
        Cell(
            "—" if oldest is None else span(oldest),
            Colour.YELLOW if oldest and oldest > _LONG else Colour.PLAIN,
        ),
        _later(one),
        Cell(_capped(one["held"]), Colour.YELLOW if one["held"] else Colour.PLAIN),
        number(one["running"]),
        Cell(number(one["lost"]), Colour.YELLOW if one["lost"] else Colour.PLAIN),
        Cell(_capped(one["failed_last_hour"]), Colour.RED if one["failed_last_hour"] else Colour.PLAIN),
        Cell(_capped(one["dead_letters"]), Colour.RED if one["dead_letters"] else Colour.PLAIN),
    )


def _name(one: QueueJson) -> tuple[str, Colour]:
    if any(pause["type"] is None for pause in one["paused"]):
        return f"{one['queue']} (paused)", Colour.YELLOW
    if one["paused"]:
        return f"{one['queue']} (in part paused)", Colour.YELLOW
    return one["queue"], Colour.PLAIN


def _due(one: QueueJson) -> str:
    if one["counted_all"] or one["due"] < _MOST_IN_LINE:
        return number(one["due"])
    return f"~{number(one['pending'])}" if one["pending"] else f"{number(_MOST_IN_LINE)}+"


def _later(one: QueueJson) -> str:
    if one["counted_all"]:
        return number((one["pending"] or 0) - one["due"])
    if one["due"] >= _MOST_IN_LINE:
        return "?"
    return f"~{number(max((one['pending'] or _MOST_IN_LINE) - one['due'], 0))}"


def _capped(count: int) -> str:
    return f"{number(_MOST)}+" if count >= _MOST else number(count)
