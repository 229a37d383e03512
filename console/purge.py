"""`pulse purge`: deletes what ended long ago, now and not at night."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections import Counter
from collections.abc import Collection, Mapping
from typing import cast

from console.asking import operator
from console.command import DONE, Command, Group, WrongWords
from console.screen import Screen
from console.words import things
from listener.config import process_environment

_STEP = 2000
# The settings that handlers/clients/retention.py reads, and what holds without them.
_POLICY = {
    "completed_days": ("PULSE_KEEP_COMPLETED_DAYS", 7.0),
    "failed_days": ("PULSE_KEEP_FAILED_DAYS", 90.0),
}
# What a row is called, by its table; one that only a newer database knows is told by the table's name.
_KINDS = {
    "jobs": ("job", "jobs"),
    "failed_jobs": ("dead letter", "dead letters"),
    "stale_outcomes": ("stale outcome", "stale outcomes"),
    "alerts": ("alert", "alerts"),
    "digests": ("digest", "digests"),
    "alert_deliveries": ("delivery of those", "deliveries of those"),
    "alert_targets": ("device not seen for long", "devices not seen for long"),
    "delivery_lanes": ("free lane of deliveries", "free lanes of deliveries"),
    "stripe_events": ("event of Stripe", "events of Stripe"),
    "broker_callbacks": ("callback of a broker", "callbacks of brokers"),
    "broker_sync_runs": ("sync of positions", "syncs of positions"),
    "call_limits": ("count of calls", "counts of calls"),
}


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = -1
    if not 0 <= days <= 36500:
        raise ArgumentTypeError(f"{text!r} is no number of days")
    return days


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--completed-days",
        type=_days,
        metavar="N",
        help="keep completed and cancelled jobs so long (default: PULSE_KEEP_COMPLETED_DAYS, or 7)",
    )
    parser.add_argument(
        "--failed-days",
        type=_days,
        metavar="N",
        help="keep failed jobs and dead letters so long (default: PULSE_KEEP_FAILED_DAYS, or 90)",
    )
    parser.add_argument("--yes", action="store_true", help="do it; without, only what would go is counted")


async def _run(arguments: Namespace, screen: Screen) -> int:
    policy = _policy(arguments)
    gone: Counter[str] = Counter()
    async with operator("pulse-purge") as store:
        if not arguments.yes:
            counted = cast("dict[str, int]", await store.ask("count_prunable", policy))
            at_least = cast("list[str]", counted.pop("at_least"))
            _preview(policy, counted, at_least, screen)
            return DONE
        more = True
        while more:
            said = cast("dict[str, int]", await store.ask("prune", {**policy, "max_jobs": _STEP}))
            more = bool(said.pop("more"))
            gone.update(said)
            screen.progress(f"{_told(gone)} so far …")
    screen.answer({"policy": policy, "deleted": dict(gone)})
    screen.done(f"{_told(gone)} deleted")
    return DONE


def _policy(arguments: Namespace) -> dict[str, float]:
    environment = process_environment()
    given = cast("dict[str, float | None]", {name: getattr(arguments, name) for name in _POLICY})
    return {
        name: _kept(environment, *_POLICY[name]) if days is None else days for name, days in given.items()
    }


def _kept(environment: Mapping[str, str], variable: str, usual: float) -> float:
    """As the job `prune` keeps it: a purge that was told nothing deletes nothing that the project wants to keep."""
    try:
        return _days(environment.get(variable) or str(usual))
    except ArgumentTypeError as error:
        raise WrongWords(f"{variable}: {error}") from None


def _preview(
    policy: dict[str, float], counted: dict[str, int], at_least: Collection[str], screen: Screen
) -> None:
    screen.answer({"policy": policy, "would_delete": counted, "at_least": at_least})
    screen.say("What has ended is kept so long:")
    screen.facts(
        [
            ("completed and cancelled jobs", f"{policy['completed_days']:g} days"),
            ("failed jobs, dead letters, stale outcomes", f"{policy['failed_days']:g} days"),
            ("jobs that have not ended", "for ever"),
            ("all else", "as docs/doors.md has it"),
        ]
    )
    screen.say(
        f"Older than that: {_told(counted, at_least)}. Nothing was changed: add --yes to delete them, in small steps."
    )


def _told(counts: Mapping[str, int], at_least: Collection[str] = ()) -> str:
    """Every kind that there is something of, jobs in any case; of those in `at_least` there may be more."""
    return ", ".join(
        f"{'at least ' if table in at_least else ''}"
        f"{things(counts[table], *_KINDS.get(table, (f'row of {table}', f'rows of {table}')))}"
        for table in sorted(counts, key=_rank)
        if counts[table] or table == "jobs"
    )


def _rank(table: str) -> int:
    """The jobs first, what we have no word for last."""
    return list(_KINDS).index(table) if table in _KINDS else len(_KINDS)


COMMAND = Command(
    "purge",
    Group.ACT,
    "Delete what ended long ago, in small steps that hold nobody up.",
    _run,
    _arguments,
    """
    pulse purge                                   # the policy, and what would go
    pulse purge --yes
    pulse purge --completed-days 1 --yes
    A job of type prune does the same every hour.
    """,
)
