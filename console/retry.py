"""`pulse retry`: gives dead letters another run, by id, or all that match once one has seen which they are."""

from argparse import ArgumentParser, Namespace
from collections import Counter
from datetime import datetime
from typing import TypedDict, cast

from console.asking import operator
from console.choosing import acting_arguments, agreed, filters, one_of_both, pages
from console.command import DONE, NOT_DONE, Command, Group, positive
from console.looking import now_of
from console.screen import Column, Screen
from console.words import moment, number, since, things
from listener.store import Store

_BATCH = 100
_SHOWN = 10


class _LetterJson(TypedDict):
    id: int
    job_id: int
    queue: str
    type: str
    attempts: int
    error_class: str | None
    error_message: str | None
    failed_at: str


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "ids", metavar="ID", type=positive, nargs="*", help="ids of dead letters (rows of failed_jobs)"
    )
    parser.add_argument(
        "--job",
        dest="jobs",
        metavar="JOB",
        type=positive,
        action="append",
        help="the dead letter of this job",
    )
    acting_arguments(parser)
    parser.add_argument("--error", metavar="CLASS", help="with this class of error only, such as TimedOut")


async def _run(arguments: Namespace, screen: Screen) -> int:
    chosen = filters(arguments)
    if arguments.error:
        chosen["error_class"] = arguments.error
    if arguments.jobs:
        chosen["job_ids"] = arguments.jobs
    one_of_both(arguments.ids, chosen, "dead letters")
    async with operator("pulse-retry") as store:
        if arguments.ids:
            return await _replay(store, arguments.ids, screen, tell_each=True)
        letters, now = await _matching(store, chosen, arguments.limit, screen)
        acts = arguments.yes or arguments.jobs
        if not letters:
            screen.answer({"replayed": {}, "skipped": []} if acts else {"would_replay": []})
            told = screen.problem if acts else screen.say
            told("No dead letter that can be replayed matches.")
            return NOT_DONE if acts else DONE
        if not arguments.jobs:
            _show(letters, now, screen)
            would = f"{things(len(letters), 'dead letter')} would run again"
            if not await agreed(arguments, len(letters), would, screen):
                screen.answer({"would_replay": letters})
                return DONE
        each = bool(arguments.jobs)
        return await _replay(store, [one["id"] for one in letters], screen, tell_each=each)


async def _matching(
    store: Store, chosen: dict[str, object], limit: int, screen: Screen
) -> tuple[list[_LetterJson], datetime]:
    letters: list[_LetterJson] = []
    said: dict[str, object] = {}
    async for said in pages(store, "list_dead_letters", "max_letters", "dead_letters", limit, chosen, screen):
        letters += cast("list[_LetterJson]", said["dead_letters"])
    return letters, now_of(said)


def _show(letters: list[_LetterJson], now: datetime, screen: Screen) -> None:
    """What would run."""
    kinds = Counter((one["queue"], one["type"], one["error_class"] or "—") for one in letters)
    counts = (Column("letters", right=True), Column("queue"), Column("type"), Column("error", bends=True))
    screen.table(counts, [(number(count), *kind) for kind, count in kinds.most_common()])
    screen.say()
    columns = (
        Column("id", right=True),
        Column("job", right=True),
        Column("type"),
        Column("failed", right=True),
        Column("why", bends=True),
    )
    rows = [
        (
            str(one["id"]),
            str(one["job_id"]),
            one["type"],
            since(moment(one["failed_at"]), now),
            f"{one['error_class'] or '—'}: {one['error_message'] or ''}".rstrip(": "),
        )
        for one in letters[:_SHOWN]
    ]
    screen.table(columns, rows)
    if len(letters) > _SHOWN:
        screen.say(f"… and {things(len(letters) - _SHOWN, 'more', 'more')}")


async def _replay(store: Store, ids: list[int], screen: Screen, *, tell_each: bool) -> int:
    replayed: dict[int, int] = {}
    skipped: list[int] = []
    for start in range(0, len(ids), _BATCH):
        ran, left = await store.replay(ids[start : start + _BATCH])
        replayed |= ran
        skipped += left
        screen.progress(f"{number(len(replayed))} of {number(len(ids))} run again …")
    screen.answer({"replayed": replayed, "skipped": skipped})
    if tell_each:
        for failed_job_id, job_id in replayed.items():
            screen.done(f"dead letter {failed_job_id}: job {job_id} runs again")
    else:
        screen.done(f"{things(len(replayed), 'job runs', 'jobs run')} again")
    for failed_job_id in skipped:
        screen.problem(f"dead letter {failed_job_id}: unknown, or replayed before")
    return NOT_DONE if skipped else DONE


COMMAND = Command(
    "retry",
    Group.ACT,
    "Give dead letters another run, each at most once.",
    _run,
    _arguments,
    """
    pulse retry 12 13                             # these dead letters
    pulse retry --job 4711                        # the one of this job
    pulse retry --queue payment --since 2h        # what would run; nothing is changed yet
    pulse retry --queue payment --since 2h --yes  # do it
    """,
)
