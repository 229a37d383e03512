"""`pulse stats`: all queues at a glance."""

from argparse import Namespace
from typing import cast

from console.asking import operator
from console.command import DONE, Command, Group
from console.glance import COLUMNS, StatsJson, rows
from console.screen import Screen


async def _run(_: Namespace, screen: Screen) -> int:
    async with operator("pulse-stats") as store:
        said = cast("StatsJson", await store.ask("queue_stats", {}))
    screen.answer(said)
    screen.table(COLUMNS, rows(said["queues"]))
    return DONE


COMMAND = Command(
    "stats",
    Group.LOOK,
    "Show all queues at a glance: what is due, since when, what runs, what failed.",
    _run,
    examples="""
    pulse stats
    pulse stats --json | jq '.queues[] | select(.oldest_due_seconds > 60)'
    due        could run now; oldest: since when the longest waiting one has been due
    held       waits until a limit lets it through: pulse limits
    later      waits for its time: scheduled, retried or snoozed
    lost       runs with a lease that is over: the next sweep gives it to another worker
    failed     in the last hour; dead: dead letters that can be replayed
    ~ and +    beyond some hundreds, what the database's statistics say, or so many and more
    """,
)
