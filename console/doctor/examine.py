"""Asks everybody who can tell how a project is, and shows what is wrong."""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from datetime import timedelta

from console.asking import operator_config
from console.command import DONE, NOT_DONE, Command, Group, positive
from console.doctor.door import look_at_door
from console.doctor.finding import Finding
from console.doctor.inside import Inside, look_inside
from console.doctor.keys import look_at_keys
from console.doctor.realtime import Heard, listen
from console.screen import Colour, Screen
from console.words import things
from listener.config import process_environment
from listener.store import connected

_KEPT_DAYS = 7.0


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--patience",
        type=positive,
        default=25,
        metavar="S",
        help="seconds to wait for Realtime (default: 25)",
    )
    parser.add_argument(
        "--door", metavar="URL", help="look at this door too, such as https://jobs.example.com"
    )
    parser.add_argument("--no-realtime", action="store_true", help="leave Realtime out, which takes longest")


async def _run(arguments: Namespace, screen: Screen) -> int:
    config = operator_config()
    async with connected(config.supabase_url, config.key, "pulse-doctor", apikey=config.apikey) as store:
        screen.progress("asking the database …")
        inside = await look_inside(store, {"keep_days": _kept_days(process_environment())})
        heard = Heard([])
        if not arguments.no_realtime:
            screen.progress("listening for an insert …")
            heard = await listen(config, store.canary, timedelta(seconds=arguments.patience))
    findings = [*look_at_keys(process_environment()), *inside.findings, *heard.findings]
    if arguments.door:
        findings += await look_at_door(arguments.door)
    screen.answer(
        {
            "healthy": not findings,
            "measured": {
                "database_seconds": inside.took_seconds,
                "clock_off_seconds": inside.clock_off_seconds,
                "realtime_seconds": heard.took_seconds,
            },
            "findings": [one.as_json() for one in findings],
        }
    )
    _tell_measured(inside, heard, screen)
    for one in findings:
        _tell(one, screen)
    if not findings:
        screen.done("nothing is wrong")
        return DONE
    screen.say()
    screen.say(f"{things(len(findings), 'finding')}. Nothing was changed.", Colour.BOLD)
    if any(one.is_sql for one in findings):
        screen.say('SQL is for the owner: psql "$DATABASE_URL", or the SQL editor of the dashboard.')
    return NOT_DONE


def _kept_days(environment: Mapping[str, str]) -> float:
    """How long this project keeps jobs that have ended: what its workers read too."""
    try:
        return float(environment.get("PULSE_KEEP_COMPLETED_DAYS") or _KEPT_DAYS)
    except ValueError:  # the worker says so at its start
        return _KEPT_DAYS


def _tell_measured(inside: Inside, heard: Heard, screen: Screen) -> None:
    if inside.took_seconds is not None and inside.clock_off_seconds is not None:
        screen.done(
            f"the database answers in {inside.took_seconds * 1000:.0f} ms;"
            f" its clock and ours are {abs(inside.clock_off_seconds):.1f} s apart"
        )
    if heard.took_seconds is not None:
        screen.done(f"Realtime announces an insert within {heard.took_seconds * 1000:.0f} ms")


def _tell(one: Finding, screen: Screen) -> None:
    screen.say()
    screen.say(f"✗ {one.finding}: {one.what}", Colour.RED)
    screen.say(one.why)
    screen.block(one.mend)


COMMAND = Command(
    "doctor",
    Group.LOOK,
    "Look for what is wrong with the whole project, and say what mends it.",
    _run,
    _arguments,
    """
    pulse doctor                # safe at any time: it only looks
    pulse doctor --json         # exit code 1 when something was found
    pulse doctor --no-realtime  # within a second
    pulse doctor --door https://jobs.example.com
    """,
)
