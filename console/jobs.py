"""`pulse jobs`: lists jobs, newest first."""

from argparse import ArgumentParser, Namespace
from typing import cast

from console.asking import operator
from console.choosing import filter_arguments, filters, pages
from console.command import DONE, Command, Group, positive
from console.looking import COLUMNS, STATUSES, JobJson, now_of, row
from console.screen import Screen


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "ids", metavar="JOB", type=positive, nargs="*", help="ids of jobs (default: the newest)"
    )
    filter_arguments(parser)
    parser.add_argument("--status", choices=STATUSES, help="with this status only")
    parser.add_argument(
        "--limit", type=positive, default=20, metavar="N", help="how many at the most (default: 20)"
    )
    parser.add_argument("--before", type=positive, metavar="JOB", help="older than this job: the next page")


async def _run(arguments: Namespace, screen: Screen) -> int:
    asked: dict[str, object] = {**filters(arguments), "before": arguments.before}
    if arguments.status:
        asked["status"] = arguments.status
    if arguments.ids:
        asked["ids"] = arguments.ids
    jobs: list[JobJson] = []
    said: dict[str, object] = {}
    async with operator("pulse-jobs") as store:
        async for said in pages(store, "list_jobs", "max_jobs", "jobs", arguments.limit, asked, screen):
            jobs += cast("list[JobJson]", said["jobs"])
    screen.answer({"now": said["now"], "jobs": jobs, "before": said["before"]})
    if not jobs:
        screen.say("No job matches.")
        return DONE
    now = now_of(said)
    screen.table(COLUMNS, [row(job, now) for job in jobs])
    if said["before"] is not None:
        screen.hint(f"older ones: --before {jobs[-1]['id']}")
    return DONE


COMMAND = Command(
    "jobs",
    Group.LOOK,
    "List jobs, newest first, by queue, type, status, user or age.",
    _run,
    _arguments,
    """
    pulse jobs                                    # the newest 20
    pulse jobs --status failed --since 1d         # what failed among those made in the last day
    pulse jobs --queue broker --status running
    pulse jobs --type email --limit 500 --json | jq '.jobs[].id'
    """,
)
