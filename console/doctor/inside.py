"""What the database says of itself: the findings of `doctor_facts`, its clock, and the files it has not got yet."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypedDict, cast

from console.doctor.finding import Finding
from listener.errors import StoreRefused
from listener.migrate import migrations
from listener.store import Store

_NO_SUCH_FUNCTION = 404
_CLOCK_MAY_BE_OFF = 5.0
_MIGRATE = "pulse migrate"


class _FactsJson(TypedDict):
    clock: str
    migrations: list[str] | None
    findings: list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class Inside:
    """What was found, and how long the answer took."""

    findings: list[Finding]
    took_seconds: float | None = None
    clock_off_seconds: float | None = None
    """How far this machine's clock is ahead of the database's."""


async def look_inside(store: Store, arguments: Mapping[str, object]) -> Inside:
    """Asks the database, which only reads."""
    began, clock = time.monotonic(), datetime.now(UTC)
    try:
        facts = cast("_FactsJson", await store.ask("doctor_facts", arguments))
    except StoreRefused as error:
        if error.status != _NO_SUCH_FUNCTION:
            raise
        return Inside([_missing("the functions that this version asks for")])
    took = time.monotonic() - began
    off = (clock - datetime.fromisoformat(facts["clock"])).total_seconds() + took / 2
    findings = [Finding(**one) for one in facts["findings"]]
    if (applied := facts["migrations"]) is not None:
        lacking = [one.label for one in migrations() if one.version not in applied]
        if lacking:
            findings.append(_missing(", ".join(lacking)))
    if abs(off) - took / 2 > _CLOCK_MAY_BE_OFF:
        findings.append(
            Finding(
                "clock_here",
                f"the clock of this machine is {abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} the database's",
                "Keys and signatures seem too old or too young here, and --since means another time.",
                "sudo timedatectl set-ntp true",
            )
        )
    return Inside(findings, took, off)


def _missing(what: str) -> Finding:
    return Finding(
        "migrations_missing",
        f"the database has not got {what}",
        "Workers of this version call functions that are not there, or are of another version.",
        _MIGRATE,
    )
