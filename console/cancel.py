"""`pulse cancel`: stops jobs for good, by id, or all that match once one has seen which they are."""

from argparse import ArgumentParser, Namespace
from collections import Counter
from datetime import datetime
from typing import cast

from console.asking import operator
from console.choosing import acting_arguments, agreed, filters, one_of_both, pages
from console.command import DONE, NOT_DONE, Command, Group, positive
from console.looking import COLUMNS, JobJson, now_of, row
from console.screen import Column, Screen
from console.words import number, things
from listener.store import Store

_BATCH = 100
_SHOWN = 10
_OPEN = ("running", "pending")
_HEARS = "its worker hears of it with its next heartbeat"
_ALL_HEAR = "their workers hear of it with their next heartbeats"


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("ids", metavar="JOB", type=positive, nargs="*", help="ids of jobs")
    acting_arguments(parser)
    parser.add_argument("--status", choices=_OPEN, help="with this status only (default: both)")


async def _run(arguments: Namespace, screen: Screen) -> int:
    chosen = filters(arguments)
    if arguments.status:
        chosen["status"] = arguments.status
    one_of_both(arguments.ids, chosen, "jobs")
    async with operator("pulse-cancel") as store:
        if arguments.ids:
            return _tell_each(await _cancel(store, arguments.ids, screen), screen)
        jobs, now = await _matching(store, chosen, arguments.limit, screen)
        if not jobs:
            nothing: dict[str, list[int]] = {"cancelled": [], "asked": [], "unchanged": []}
            screen.answer(nothing if arguments.yes else {"would_cancel": []})
            told = screen.problem if arguments.yes else screen.say
            told("No job that waits or runs matches.")
            return NOT_DONE if arguments.yes else DONE
        _show(jobs, now, screen)
        would = f"{things(len(jobs), 'job')} would be cancelled"
        if not await agreed(arguments, len(jobs), would, screen):
            screen.answer({"would_cancel": jobs})
            return DONE
        return _tell_counts(await _cancel(store, [one["id"] for one in jobs], screen), screen)


async def _matching(
    store: Store, chosen: dict[str, object], limit: int, screen: Screen
) -> tuple[list[JobJson], datetime]:
    jobs: dict[int, JobJson] = {}
    said: dict[str, object] = {}
    for status in _OPEN:
        asked = {"status": status, **chosen}
        left = limit - len(jobs)
        async for said in pages(store, "list_jobs", "max_jobs", "jobs", left, asked, screen):
            jobs |= {one["id"]: one for one in cast("list[JobJson]", said["jobs"])}
        if "status" in chosen:
            break
    return list(jobs.values()), now_of(said)


def _show(jobs: list[JobJson], now: datetime, screen: Screen) -> None:
    """What would be cancelled."""
    kinds = Counter((one["queue"], one["type"], one["status"]) for one in jobs)
    counts = (Column("jobs", right=True), Column("queue"), Column("type"), Column("status"))
    screen.table(counts, [(number(count), *kind) for kind, count in kinds.most_common()])
    screen.say()
    screen.table(COLUMNS, [row(job, now) for job in jobs[:_SHOWN]])
    if len(jobs) > _SHOWN:
        screen.say(f"… and {things(len(jobs) - _SHOWN, 'more', 'more')}")


async def _cancel(store: Store, ids: list[int], screen: Screen) -> dict[str, list[int]]:
    told: dict[str, list[int]] = {"cancelled": [], "asked": [], "unchanged": []}
    for start in range(0, len(ids), _BATCH):
        said = cast(
            "dict[str, list[int]]", await store.ask("cancel", {"job_ids": ids[start : start + _BATCH]})
        )
        for what, some in said.items():
            told[what] += some
        screen.progress(f"{number(min(start + _BATCH, len(ids)))} of {number(len(ids))} …")
    screen.answer(told)
    return told


def _tell_each(said: dict[str, list[int]], screen: Screen) -> int:
    for id_ in said["cancelled"]:
        screen.done(f"job {id_} is cancelled")
    for id_ in said["asked"]:
        screen.done(f"job {id_} runs, and was asked to stop: {_HEARS}")
    for id_ in said["unchanged"]:
        screen.problem(f"job {id_}: it has ended before, or there is none of that id")
    return NOT_DONE if said["unchanged"] else DONE


def _tell_counts(said: dict[str, list[int]], screen: Screen) -> int:
    """Of those that were chosen, one that ended meanwhile is as good as cancelled."""
    if said["cancelled"]:
        screen.done(f"{things(len(said['cancelled']), 'job is', 'jobs are')} cancelled")
    if said["asked"]:
        screen.done(
            f"{things(len(said['asked']), 'job runs, and was', 'jobs run, and were')} asked to stop: "
            + (_HEARS if len(said["asked"]) == 1 else _ALL_HEAR)
        )
    if said["unchanged"]:
        screen.say(f"{things(len(said['unchanged']), 'job has', 'jobs have')} ended meanwhile")
    return DONE


COMMAND = Command(
    "cancel",
    Group.ACT,
    "Cancel jobs: pending ones at once, running ones are asked to stop.",
    _run,
    _arguments,
    """
    pulse cancel 123 124                          # these jobs
    pulse cancel --queue broker --type sync_positions        # which would be; nothing is changed yet
    pulse cancel --queue broker --type sync_positions --yes  # do it
    pulse cancel --user 5b0c5f0e-6a0b-4a51-9d5c-0f1a2b3c4d5e --status pending
    """,
)
