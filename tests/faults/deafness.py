"""Every fault of Realtime, one entry each: how it is made to happen, and what it does to the official client.

The rows are those of docs/faults.md; a test of the house holds the two together. `test_deafness.py` tries each entry on
our listening, in both ways, and `test_deafness_bare.py` on the official client alone.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeAlias

from tests.faults import deafness_acts as acts
from tests.faults.listeners import Stage

Act: TypeAlias = Callable[[Stage], Awaitable[object]]


class Harm(Enum):
    """What becomes of the official client."""

    OVER = auto()
    """It has given up, and nothing will ever be heard again; no exception."""
    DEAF = auto()
    """It looks connected and subscribed, and hears nothing any more."""
    MISSES = auto()
    """What was inserted meanwhile is never heard; what comes later is."""
    LATE = auto()
    TWICE = auto()


@dataclass(frozen=True)
class Fault:
    """One way to lose what Realtime should have told."""

    rows: str
    """Of docs/faults.md, by their numbers, or by their words where they have none."""
    begin: Act
    harm: Harm
    known: bool
    """Whether the client is told, so that hearing is back within 5 s of the end; else one canary period."""
    end: Act = acts.nothing
    gap: bool = True
    """Whether all hearing stops. Where single events are lost nobody can notice it, and the sweep alone finds them."""
    lasts: bool = False
    """Whether it lasts from `begin` to `end`."""
    lossless: bool = False
    """Whether nothing is lost: doubled and late events."""
    not_changes: str = ""
    """Why it does not exist for those who listen to postgres_changes."""
    not_broadcast: str = ""
    """Why it does not exist for those who listen to broadcasts."""


CHANGES_ONLY = "it is a fault of the reader of changes, which does not read the database's broadcasts"
ASKS_FOR_IDS = "our bindings ask for the id alone, so no row makes a large frame"

FAULTS: dict[str, Fault] = {
    "a callback raises": Fault("D1", acts.raises, Harm.OVER, known=True),
    "the client's own task dies": Fault("", acts.loses_a_task, Harm.OVER, known=True),
    "an outage that outlasts all tries": Fault(
        "D2 6.5", acts.goes_off, Harm.OVER, end=acts.comes_back, known=True, lasts=True
    ),
    "a token runs out": Fault("D3 F8 6.7", acts.expires, Harm.OVER, known=True),
    "the server ends the channel": Fault("D3", acts.is_ended, Harm.OVER, known=True),
    "a passing error": Fault("D4 F4 6.6", acts.errs, Harm.OVER, known=True),
    "a slow join": Fault("D5 F7", acts.joins_slowly, Harm.OVER, end=acts.has_joined, known=True),
    "no right to read the rows": Fault(
        "D7",
        acts.loses_the_right_to_read,
        Harm.MISSES,
        end=acts.may_read_again,
        known=False,
        gap=False,
        not_broadcast="a broadcast carries no row that somebody would need a right to read",
    ),
    "an operator disconnects everybody": Fault("D8 F5", acts.is_disconnected, Harm.MISSES, known=True),
    "a frame above 1 MiB": Fault("D9", acts.hears_a_giant, Harm.MISSES, known=True, not_changes=ASKS_FOR_IDS),
    "half-open connections": Fault("D10 F6", acts.goes_half_open, Harm.DEAF, known=False),
    "a dead feed": Fault(
        "D11 F2", acts.goes_deaf, Harm.MISSES, end=acts.hears_again, known=False, lasts=True
    ),
    "refused handshakes": Fault(
        "D13 F9 6.8", acts.refuses, Harm.OVER, end=acts.refuses_no_more, known=True, lasts=True
    ),
    "the slot is lost for a moment": Fault(
        "F1",
        acts.loses_the_slot,
        Harm.MISSES,
        end=acts.has_lost_it,
        known=False,
        gap=False,
        not_broadcast=CHANGES_ONLY,
    ),
    "a second Subscribed": Fault(
        "F3",
        acts.loses_rows,
        Harm.MISSES,
        end=acts.says_subscribed_again,
        known=True,
        not_broadcast="the server says so of changes alone",
    ),
    "a deployment": Fault("F5 6.5", acts.is_deployed, Harm.MISSES, known=True),
    "a killed server": Fault("6.5", acts.is_killed, Harm.MISSES, known=True),
    "a crashed channel": Fault("", acts.crashes, Harm.MISSES, known=True),
    "a table that is not published": Fault(
        "6.1",
        acts.is_not_published,
        Harm.OVER,
        end=acts.is_published_again,
        known=True,
        not_broadcast=CHANGES_ONLY,
    ),
    "a cold start": Fault(
        "6.2", acts.starts_cold, Harm.MISSES, end=acts.is_warm, known=True, not_broadcast=CHANGES_ONLY
    ),
    "a false Subscribed": Fault(
        "6.3",
        acts.promises_falsely,
        Harm.DEAF,
        end=acts.keeps_its_promises,
        known=False,
        lasts=True,
        not_broadcast=CHANGES_ONLY,
    ),
    "a restart of the database": Fault(
        "6.4", acts.loses_its_connections, Harm.MISSES, known=False, gap=False
    ),
    "a table made anew": Fault(
        "6.11",
        acts.makes_its_table_anew,
        Harm.MISSES,
        end=acts.looks_at_the_publication,
        known=True,
        not_broadcast="create_queue gives a new table its triggers, and topics are not tables",
    ),
    "a table that leaves the publication": Fault(
        "6.11",
        acts.leaves_the_publication,
        Harm.MISSES,
        end=acts.is_published_again,
        known=False,
        gap=False,
        not_broadcast=CHANGES_ONLY,
    ),
    "more events than the limit": Fault(
        "rows above the rate limit are passed over in silence",
        acts.has_too_many_events,
        Harm.MISSES,
        end=acts.has_few_events,
        known=False,
        gap=False,
    ),
    "a missing event": Fault(
        "missing, doubled and late events", acts.loses_an_event, Harm.MISSES, known=False, gap=False
    ),
    "a doubled event": Fault(
        "missing, doubled and late events",
        acts.doubles_an_event,
        Harm.TWICE,
        known=False,
        gap=False,
        lossless=True,
    ),
    "a late event": Fault(
        "missing, doubled and late events 6.9",
        acts.delays_an_event,
        Harm.LATE,
        known=False,
        gap=False,
        lossless=True,
    ),
    "nothing is announced": Fault(
        "",
        acts.announces_nothing,
        Harm.MISSES,
        end=acts.announces,
        known=False,
        lasts=True,
        not_changes="Realtime reads the tables, whatever they announce",
    ),
}

HARMLESS = {
    "D6": "our callbacks are plain functions of bells, which cannot be awaited and need not be",
    "D12": "a wake-up carries nothing that is used: not one number is read from an event",
    "F10": ASKS_FOR_IDS + ", and what comes without its large values still rings",
    "6.10": "a wake-up carries nothing that is used, and what comes without its large values still rings",
}
"""Rows of docs/faults.md that cannot do us harm, and why."""
