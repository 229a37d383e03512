"""Every fault of Realtime, one entry each: how it is made to happen, and what it does to the official client.

The rows are those of docs/faults.md; a test of the house holds the two together. `test_deafness.py` tries each entry on
our listening, in both ways, and `test_deafness_bare.py` on the official client alone.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import TypeAlias

import asyncpg

from tests.faults.listeners import SWEPT, TOLD, Stage
from tests.waiting import until

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


async def nothing(_stage: Stage) -> None:
    """It ends by itself, or has no end."""


@dataclass(frozen=True)
class Fault:
    """One way to lose what Realtime should have told."""

    rows: str
    """Of docs/faults.md, by their numbers, or by their words where they have none."""
    begin: Act
    harm: Harm
    known: bool
    """Whether the client is told, so that hearing is back within 5 s of the end; else one canary period."""
    end: Act = nothing
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


# -- the client's own -----------------------------------------------------------------------------------------------


async def raises(stage: Stage) -> None:
    stage.breaks = True


async def loses_a_task(_stage: Stage) -> None:
    """What an exception that nobody foresaw comes to inside the client."""
    [task] = [one for one in asyncio.all_tasks() if "AsyncRealtimeClient._listen" in str(one.get_coro())]
    task.cancel()


async def goes_off(stage: Stage) -> None:
    stage.gateway.faults.realtime.off = True
    await until("it has tried in vain for long", stage.outlasted)


async def comes_back(stage: Stage) -> None:
    stage.gateway.faults.realtime.off = False


async def expires(stage: Stage) -> None:
    stage.gateway.realtime.acts.expire_tokens()


async def is_ended(stage: Stage) -> None:
    stage.gateway.realtime.acts.end_channels()


async def errs(stage: Stage) -> None:
    stage.gateway.realtime.acts.system_error()


async def joins_slowly(stage: Stage) -> None:
    stage.gateway.faults.realtime.slow_join_seconds = stage.slowly
    await stage.gateway.realtime.acts.close_sockets()
    await until("nobody is joined any more", lambda: stage.gateway.realtime.joined == 0)


async def has_joined(stage: Stage) -> None:
    await until("the join is answered", lambda: stage.gateway.realtime.joined > 0)
    stage.gateway.faults.realtime.slow_join_seconds = 0


async def loses_the_right_to_read(stage: Stage) -> None:
    await stage.owner.execute(f"revoke select on jobs_{SWEPT}, jobs_{TOLD} from service_role")


async def may_read_again(stage: Stage) -> None:
    await stage.owner.execute(f"grant select on jobs_{SWEPT}, jobs_{TOLD} to service_role")


async def hears_a_giant(stage: Stage) -> None:
    await stage.owner.execute(
        "select realtime.send(jsonb_build_object('x', repeat('x', 1100000)), 'x', 'pulse', true)"
    )


async def goes_half_open(stage: Stage) -> None:
    stage.gateway.realtime.acts.mute_sockets()


async def goes_deaf(stage: Stage) -> None:
    stage.gateway.faults.realtime.deaf = True


async def hears_again(stage: Stage) -> None:
    stage.gateway.faults.realtime.deaf = False


async def refuses(stage: Stage) -> None:
    stage.gateway.faults.realtime.refuse_handshakes = [401, 403, 429, 500] * 3
    await stage.gateway.realtime.acts.close_sockets()
    await until("it has tried in vain for long", stage.outlasted)


async def refuses_no_more(stage: Stage) -> None:
    stage.gateway.faults.realtime.refuse_handshakes = []


# -- the project's --------------------------------------------------------------------------------------------------


async def loses_the_slot(stage: Stage) -> None:
    stage.meanwhile(stage.gateway.realtime.acts.lose_changes(0.4))
    await until("the slot is gone", lambda: not stage.gateway.realtime.listens)


async def has_lost_it(stage: Stage) -> None:
    await stage.done()


async def loses_rows(stage: Stage) -> None:
    stage.gateway.faults.realtime.lose_events = 1000


async def says_subscribed_again(stage: Stage) -> None:
    stage.gateway.faults.realtime.lose_events = 0
    stage.gateway.realtime.acts.announce_again()


async def is_deployed(stage: Stage) -> None:
    await stage.gateway.realtime.acts.close_sockets()


async def is_disconnected(stage: Stage) -> None:
    await stage.gateway.realtime.acts.disconnect()


async def is_killed(stage: Stage) -> None:
    stage.gateway.realtime.acts.drop_sockets()


async def crashes(stage: Stage) -> None:
    stage.gateway.realtime.acts.crash_channels()


# -- seen on running servers ----------------------------------------------------------------------------------------

TABLES = f"jobs_{SWEPT}, jobs_{TOLD}"


async def is_not_published(stage: Stage) -> None:
    await leaves_the_publication(stage)
    await stage.gateway.realtime.acts.check_publication()


async def leaves_the_publication(stage: Stage) -> None:
    await stage.owner.execute(f"alter publication supabase_realtime drop table {TABLES}")


async def is_published_again(stage: Stage) -> None:
    await stage.owner.execute(f"alter publication supabase_realtime add table {TABLES}")
    await stage.gateway.realtime.acts.check_publication()


async def starts_cold(stage: Stage) -> None:
    timing = stage.gateway.realtime.timing
    timing.subscribe_seconds = timing.first_subscribe_seconds = 0.5
    await stage.gateway.realtime.acts.close_sockets()


async def is_warm(stage: Stage) -> None:
    timing = stage.gateway.realtime.timing
    timing.subscribe_seconds = timing.first_subscribe_seconds = 0.01


async def promises_falsely(stage: Stage) -> None:
    stage.gateway.faults.realtime.false_subscribed = True
    timing = stage.gateway.realtime.timing
    timing.subscribe_seconds = timing.first_subscribe_seconds = 0
    await stage.gateway.realtime.acts.close_sockets()
    realtime = stage.gateway.realtime
    await until("a join was promised falsely", lambda: realtime.joined > 0 and not realtime._changes.served)


async def keeps_its_promises(stage: Stage) -> None:
    stage.gateway.faults.realtime.false_subscribed = False


async def loses_its_connections(stage: Stage) -> None:
    """What a restart of the database is to Realtime; the rows of the next moment are in nobody's slot."""
    superuser = await asyncpg.connect(stage.database, user="supabase_admin")
    try:
        await superuser.execute(
            "select pg_terminate_backend(active_pid) from pg_replication_slots where database = current_database()"
        )
    finally:
        await superuser.close()


async def makes_its_table_anew(stage: Stage) -> None:
    await stage.owner.execute(f"drop table jobs_{SWEPT} cascade; select create_queue('{SWEPT}')")
    await stage.owner.execute(f"drop table jobs_{TOLD} cascade; select create_queue('{TOLD}')")


async def looks_at_the_publication(stage: Stage) -> None:
    await stage.gateway.realtime.acts.check_publication()


async def has_too_many_events(stage: Stage) -> None:
    stage.gateway.realtime.acts.limit(events_per_second=1, bucket_seconds=0.05)
    await until("the meter is full", lambda: _overfull(stage))


async def _overfull(stage: Stage) -> bool:
    if not stage.gateway.realtime.meter.full():
        await stage.insert(SWEPT)
    return stage.gateway.realtime.meter.full()


async def has_few_events(stage: Stage) -> None:
    stage.gateway.realtime.acts.limit(bucket_seconds=0.05)


async def loses_an_event(stage: Stage) -> None:
    stage.gateway.faults.realtime.lose_events = 1


async def doubles_an_event(stage: Stage) -> None:
    stage.gateway.faults.realtime.double_events = 1


async def delays_an_event(stage: Stage) -> None:
    stage.gateway.faults.realtime.late_seconds = 0.3
    stage.gateway.faults.realtime.late_events = 1


async def announces_nothing(stage: Stage) -> None:
    await stage.owner.execute("select announce_by_broadcast(false)")


async def announces(stage: Stage) -> None:
    await stage.owner.execute("select announce_by_broadcast()")


CHANGES_ONLY = "it is a fault of the reader of changes, which does not read the database's broadcasts"
ASKS_FOR_IDS = "our bindings ask for the id alone, so no row makes a large frame"

FAULTS: dict[str, Fault] = {
    "a callback raises": Fault("D1", raises, Harm.OVER, known=True),
    "the client's own task dies": Fault("", loses_a_task, Harm.OVER, known=True),
    "an outage that outlasts all tries": Fault(
        "D2 6.5", goes_off, Harm.OVER, end=comes_back, known=True, lasts=True
    ),
    "a token runs out": Fault("D3 F8 6.7", expires, Harm.OVER, known=True),
    "the server ends the channel": Fault("D3", is_ended, Harm.OVER, known=True),
    "a passing error": Fault("D4 F4 6.6", errs, Harm.OVER, known=True),
    "a slow join": Fault("D5 F7", joins_slowly, Harm.OVER, end=has_joined, known=True),
    "no right to read the rows": Fault(
        "D7",
        loses_the_right_to_read,
        Harm.MISSES,
        end=may_read_again,
        known=False,
        gap=False,
        not_broadcast="a broadcast carries no row that somebody would need a right to read",
    ),
    "an operator disconnects everybody": Fault("D8 F5", is_disconnected, Harm.MISSES, known=True),
    "a frame above 1 MiB": Fault("D9", hears_a_giant, Harm.MISSES, known=True, not_changes=ASKS_FOR_IDS),
    "half-open connections": Fault("D10 F6", goes_half_open, Harm.DEAF, known=False),
    "a dead feed": Fault("D11 F2", goes_deaf, Harm.MISSES, end=hears_again, known=False, lasts=True),
    "refused handshakes": Fault(
        "D13 F9 6.8", refuses, Harm.OVER, end=refuses_no_more, known=True, lasts=True
    ),
    "the slot is lost for a moment": Fault(
        "F1", loses_the_slot, Harm.MISSES, end=has_lost_it, known=False, gap=False, not_broadcast=CHANGES_ONLY
    ),
    "a second Subscribed": Fault(
        "F3",
        loses_rows,
        Harm.MISSES,
        end=says_subscribed_again,
        known=True,
        not_broadcast="the server says so of changes alone",
    ),
    "a deployment": Fault("F5 6.5", is_deployed, Harm.MISSES, known=True),
    "a killed server": Fault("6.5", is_killed, Harm.MISSES, known=True),
    "a crashed channel": Fault("", crashes, Harm.MISSES, known=True),
    "a table that is not published": Fault(
        "6.1", is_not_published, Harm.OVER, end=is_published_again, known=True, not_broadcast=CHANGES_ONLY
    ),
    "a cold start": Fault(
        "6.2", starts_cold, Harm.MISSES, end=is_warm, known=True, not_broadcast=CHANGES_ONLY
    ),
    "a false Subscribed": Fault(
        "6.3",
        promises_falsely,
        Harm.DEAF,
        end=keeps_its_promises,
        known=False,
        lasts=True,
        not_broadcast=CHANGES_ONLY,
    ),
    "a restart of the database": Fault("6.4", loses_its_connections, Harm.MISSES, known=False, gap=False),
    "a table made anew": Fault(
        "6.11",
        makes_its_table_anew,
        Harm.MISSES,
        end=looks_at_the_publication,
        known=True,
        not_broadcast="create_queue gives a new table its triggers, and topics are not tables",
    ),
    "a table that leaves the publication": Fault(
        "6.11",
        leaves_the_publication,
        Harm.MISSES,
        end=is_published_again,
        known=False,
        gap=False,
        not_broadcast=CHANGES_ONLY,
    ),
    "more events than the limit": Fault(
        "rows above the rate limit are passed over in silence",
        has_too_many_events,
        Harm.MISSES,
        end=has_few_events,
        known=False,
        gap=False,
    ),
    "a missing event": Fault(
        "missing, doubled and late events", loses_an_event, Harm.MISSES, known=False, gap=False
    ),
    "a doubled event": Fault(
        "missing, doubled and late events",
        doubles_an_event,
        Harm.TWICE,
        known=False,
        gap=False,
        lossless=True,
    ),
    "a late event": Fault(
        "missing, doubled and late events 6.9",
        delays_an_event,
        Harm.LATE,
        known=False,
        gap=False,
        lossless=True,
    ),
    "nothing is announced": Fault(
        "",
        announces_nothing,
        Harm.MISSES,
        end=announces,
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
