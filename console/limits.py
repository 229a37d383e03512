"""`pulse limits`: what holds jobs back, and the limits on how many run at once and start per time."""

from argparse import ArgumentParser, Namespace
from typing import TypedDict, cast

from console.asking import operator
from console.command import DONE, NOT_DONE, Command, Group, WrongWords, positive
from console.looking import now_of
from console.screen import Cell, Colour, Column, Screen
from console.words import a_span, moment, number, since


class _PausedJson(TypedDict):
    queue: str
    type: str | None
    reason: str
    since: str


class _LimitJson(TypedDict):
    queue: str | None
    type: str | None
    per: str
    at_once: int | None
    starts: int | None
    per_seconds: float | None


class _LimitsJson(TypedDict):
    now: str
    paused: list[_PausedJson]
    limits: list[_LimitJson]


def _arguments(parser: ArgumentParser) -> None:
    acts = parser.add_subparsers(metavar="ACT", dest="act", help="set or remove one (default: show all)")
    one = acts.add_parser(
        "set", help="set a limit, or change it; without numbers: an exception from a wider one"
    )
    other = acts.add_parser("remove", help="remove a limit, or an exception")
    for each in (one, other):
        each.add_argument("--queue", help="for this queue (default: all)")
        each.add_argument("--type", help="for this type of the queue")
        each.add_argument(
            "--per",
            default="all",
            metavar="KEY",
            help="all, user or data.<path>: counted apart for each (default: all)",
        )
    one.add_argument("--at-once", type=positive, metavar="N", help="so many run at once")
    one.add_argument("--starts", type=positive, metavar="N", help="so many start …")
    one.add_argument(
        "--in", dest="within", type=a_span, metavar="TIME", help="… in any such time, for example 60s"
    )


async def _run(arguments: Namespace, screen: Screen) -> int:
    if arguments.act is None:
        return await _show(screen)
    which = {"queue": arguments.queue, "type": arguments.type, "per": arguments.per}
    if arguments.act == "remove":
        async with operator("pulse-limits") as store:
            removed = cast("dict[str, bool]", await store.ask("unlimit_jobs", which))
        screen.answer(removed)
        if removed["removed"]:
            screen.done("removed; the next wider one holds, if there is one")
            return DONE
        screen.problem("there is no such limit; `pulse limits` shows all")
        return NOT_DONE
    if (arguments.starts is None) != (arguments.within is None):
        raise WrongWords("--starts and --in belong together, for example --starts 100 --in 60s")
    limits_nothing = arguments.at_once is None and arguments.starts is None
    if limits_nothing and arguments.queue is None:
        raise WrongWords(
            "name a number, --at-once or --starts with --in; without one it is an exception from a wider limit,"
            " and that needs --queue. `pulse limits remove` removes a limit"
        )
    numbers = {
        "at_once": arguments.at_once,
        "starts": arguments.starts,
        "per_seconds": None if arguments.within is None else arguments.within.total_seconds(),
    }
    async with operator("pulse-limits") as store:
        screen.answer(await store.ask("limit_jobs", {**which, **numbers}))
    if limits_nothing:
        screen.done("an exception: no wider limit of the same KEY holds these jobs back from now on")
    else:
        screen.done("it holds for every job that begins from now on")
    return DONE


async def _show(screen: Screen) -> int:
    async with operator("pulse-limits") as store:
        said = cast("_LimitsJson", await store.ask("list_limits", {}))
    screen.answer(said)
    now = now_of(said)
    if said["paused"]:
        screen.table(
            (Column("paused"), Column("type"), Column("since", right=True), Column("reason", bends=True)),
            [
                (
                    Cell(one["queue"], Colour.YELLOW),
                    one["type"] or "all",
                    since(moment(one["since"]), now),
                    one["reason"],
                )
                for one in said["paused"]
            ],
        )
        screen.say()
    columns = ("queue", "type", "counted per")
    screen.table(
        [*(Column(one) for one in columns), Column("at once", right=True), Column("starts")],
        [_row(one) for one in said["limits"]],
    )
    return DONE


def _row(one: _LimitJson) -> tuple[Cell | str, ...]:
    where = (one["queue"] or "all", one["type"] or "all", one["per"])
    if one["at_once"] is None and one["starts"] is None:
        return *where, "—", Cell("no limit: an exception", Colour.DIM)
    starts = (
        "—" if one["starts"] is None else f"{number(one['starts'])} in {float(one['per_seconds'] or 0):g} s"
    )
    return *where, "—" if one["at_once"] is None else number(one["at_once"]), starts


COMMAND = Command(
    "limits",
    Group.ACT,
    "Show what is paused and limited; set or remove limits.",
    _run,
    _arguments,
    """
    pulse limits
    pulse limits set --queue broker --type sync_positions --per data.account_id --at-once 1
    pulse limits set --per user --starts 100 --in 60s
    pulse limits remove --queue broker --type sync_positions --per data.account_id
    Of several that fit a job, for each KEY the closest one holds: that of its type, its queue, all.
    """,
)
