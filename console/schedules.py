"""`pulse schedules`: jobs that come by the clock, and what operators do with them."""

from argparse import ArgumentParser, Namespace
from datetime import datetime, timedelta
from typing import TypedDict, cast

from console.asking import operator
from console.command import DONE, NOT_DONE, Command, Group
from console.looking import COLOUR_OF
from console.screen import Cell, Colour, Column, Row, Screen
from console.words import moment, since, span
from listener.store import Store

_ACTS = {
    "pause": "pause_schedule",
    "resume": "resume_schedule",
    "run": "run_schedule",
}


class _LastJson(TypedDict):
    id: int
    status: str


class _ScheduleJson(TypedDict):
    name: str
    queue: str
    type: str
    cron: str | None
    every_seconds: int | None
    timezone: str
    paused: bool
    changed: bool
    last_slot: str | None
    next_slot: str | None
    last_job: _LastJson | None
    problem: str | None


def _arguments(parser: ArgumentParser) -> None:
    acts = parser.add_subparsers(
        metavar="ACT", dest="act", help="pause, resume or run one (default: show all)"
    )
    for name, text in (
        ("pause", "hold one: none of its slots becomes a job"),
        ("resume", "let one go on, with its first slot from now on"),
        ("run", "insert a job of one now, besides its slots, paused or not"),
    ):
        act = acts.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        act.add_argument("name", metavar="NAME", help="the schedule")


async def _run(arguments: Namespace, screen: Screen) -> int:
    async with operator("pulse-schedules") as store:
        if arguments.act is None:
            return await _show(store, screen)
        said = cast("dict[str, object]", await store.ask(_ACTS[arguments.act], {"name": arguments.name}))
    screen.answer(said)
    if arguments.act == "run":
        screen.done(f"job {said['job_id']} is inserted; pulse show {said['job_id']}")
    elif arguments.act == "pause":
        screen.done(f"{arguments.name} is paused: none of its slots becomes a job; what runs goes on")
    else:
        screen.done(f"{arguments.name} goes on, with its first slot from now on")
    return DONE


async def _show(store: Store, screen: Screen) -> int:
    states = cast("list[_ScheduleJson]", await store.ask("schedule_states", {}))
    now = datetime.fromisoformat(cast("str", await store.ask("clock_now", {})))
    screen.answer(states)
    if not states:
        screen.say(
            "There is no schedule. Code declares them with @every and @cron, operators in the table schedules."
        )
        return DONE
    columns = ("schedule", "comes", "last slot", "next slot", "last job")
    screen.table(
        [Column(one, right=one.endswith("slot"), bends=one == "comes") for one in columns],
        [_row(one, now) for one in states],
    )
    for one in states:
        if one["problem"]:
            screen.say(f"{one['name']}: {one['problem']}", Colour.YELLOW)
    return NOT_DONE if any(one["problem"] for one in states) else DONE


def _row(one: _ScheduleJson, now: datetime) -> Row:
    job = one["last_job"]
    return (
        Cell(one["name"] + ("*" if one["changed"] else ""), Colour.RED if one["problem"] else Colour.PLAIN),
        _comes(one),
        since(moment(one["last_slot"]), now),
        _next(one, now),
        Cell(f"{job['id']} {job['status']}", COLOUR_OF.get(job["status"], Colour.PLAIN)) if job else "—",
    )


def _comes(one: _ScheduleJson) -> str:
    if one["cron"] is None:
        return f"every {span(timedelta(seconds=one['every_seconds'] or 0))}"
    return one["cron"] if one["timezone"] == "UTC" else f"{one['cron']}, {one['timezone']}"


def _next(one: _ScheduleJson, now: datetime) -> Cell:
    if one["paused"]:
        return Cell("paused", Colour.YELLOW)
    return Cell(since(moment(one["next_slot"]), now))


COMMAND = Command(
    "schedules",
    Group.ACT,
    "Show the schedules: last and next runs; pause, resume or run one.",
    _run,
    _arguments,
    """
    pulse schedules
    pulse schedules pause sync_positions
    pulse schedules resume sync_positions
    pulse schedules run prune                     # now, besides its slots
    A * behind a name: an operator changed what code declares. Exit code 1: one of them has a problem.
    """,
)
