"""`pulse top`: the queues, the workers and what runs, again and again."""

import asyncio
from argparse import ArgumentParser, Namespace
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TypedDict, cast

from console.asking import operator
from console.command import DONE, NOT_DONE, Command, Group, positive
from console.glance import COLUMNS, StatsJson, rows
from console.looking import COLUMNS as JOB_COLUMNS
from console.looking import JobJson, now_of, row
from console.screen import Cell, Colour, Column, Row, Screen
from console.words import a_span, moment, number, since, span, things
from listener.errors import StoreUnavailable
from listener.store import Store

_SHOWN = 100
_WORKER_COLUMNS = (
    Column("worker", bends=True),
    Column("version"),
    Column("queues", bends=True),
    Column("running", right=True),
    Column("hears"),
    Column("seen", right=True),
    Column("up", right=True),
)


class _WorkerJson(TypedDict):
    worker_id: str
    version: str
    queues: list[str]
    running: int
    hearing: bool
    started_at: str
    seen_at: str
    leaves_at: str | None


@dataclass(frozen=True, slots=True)
class _Picture:
    """What one look saw."""

    stats: StatsJson
    workers: list[_WorkerJson]
    running: list[JobJson]


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--queue", help="what runs in this queue only")
    parser.add_argument(
        "--every", type=a_span, default=timedelta(seconds=2), metavar="TIME", help="how often (default: 2s)"
    )
    parser.add_argument(
        "--count", type=positive, metavar="N", help="end after so many looks (default: at Ctrl-C)"
    )


async def _run(arguments: Namespace, screen: Screen) -> int:
    looks = 0
    async with operator("pulse-top") as store:
        with screen.drawing():
            while True:
                picture = await _look(store, arguments.queue, arguments.every, screen)
                if picture is not None:
                    _tell(picture, arguments.every, screen)
                looks += 1
                if looks == arguments.count:
                    return NOT_DONE if picture is None else DONE
                await asyncio.sleep(max(arguments.every.total_seconds(), 1))


async def _look(store: Store, queue: str | None, every: timedelta, screen: Screen) -> _Picture | None:
    """None when the database does not answer: that is told, and looked again."""
    try:
        stats = cast("StatsJson", await store.ask("queue_stats", {}))
        workers = cast("list[_WorkerJson]", await store.ask("list_workers", {}))
        asked = {"status": "running", "queue": queue, "max_jobs": _SHOWN}
        running = cast("dict[str, list[JobJson]]", await store.ask("list_jobs", asked))["jobs"]
    except StoreUnavailable as error:
        if screen.is_live:
            again = f"asked again every {span(every)} (Ctrl-C ends it)"
            screen.draw([screen.painted(str(error), Colour.RED), screen.painted(again, Colour.DIM)])
        else:
            screen.problem(str(error))
        return None
    return _Picture(stats, workers, running)


def _tell(picture: _Picture, every: timedelta, screen: Screen) -> None:
    """A picture on a terminal, lines elsewhere, a JSON document a line for programs."""
    screen.answer_line(asdict(picture))
    if screen.is_live:
        screen.draw(_picture(picture, every, screen))
        return
    now = f"{now_of(picture.stats):%Y-%m-%d %H:%M:%S} UTC"
    workers = f"{things(len(picture.workers), 'worker')}"
    for one in picture.stats["queues"]:
        told = ", ".join(f"{name} {number(one[name])}" for name in ("due", "held", "running", "lost"))
        screen.say(f"{now}  {one['queue']}: {told}; {workers}")


def _picture(picture: _Picture, every: timedelta, screen: Screen) -> list[str]:
    now = now_of(picture.stats)
    left = f"pulse top, every {span(every)}, {now:%Y-%m-%d %H:%M:%S} UTC"
    lines = [screen.painted(f"{left} (Ctrl-C ends it)", Colour.DIM), ""]
    lines += screen.lines_of(COLUMNS, rows(picture.stats["queues"]))
    lines += ["", *screen.lines_of(_WORKER_COLUMNS, [_worker(one, picture) for one in picture.workers])]
    if not picture.workers:
        lines.append(screen.painted("no worker has told of itself in the last minute", Colour.YELLOW))
    running = picture.running
    lines += ["", *screen.lines_of(JOB_COLUMNS, [row(one, now) for one in reversed(running)])]
    return lines


def _worker(one: _WorkerJson, picture: _Picture) -> Row:
    now = now_of(picture.stats)
    seen = moment(one["seen_at"])
    started = moment(one["started_at"])
    return (
        one["worker_id"],
        one["version"],
        ",".join(one["queues"]),
        number(one["running"]),
        Cell("leaves", Colour.YELLOW)
        if one["leaves_at"]
        else Cell("yes", Colour.GREEN)
        if one["hearing"]
        else Cell("deaf", Colour.RED),
        since(seen, now),
        "—" if started is None else span(now - started),
    )


COMMAND = Command(
    "top",
    Group.LOOK,
    "Watch the queues, the workers and what runs, live.",
    _run,
    _arguments,
    """
    pulse top
    pulse top --queue payment --every 5s
    pulse top --count 1 | cat                     # one look, a line for each queue
    """,
)
