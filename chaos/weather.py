"""The weather: every kind of fault, and a storm of them as a pure function of its seed."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Where(StrEnum):
    """What a fault hits."""

    WORKER = "worker"
    NETWORK = "network"
    REST = "rest"
    REALTIME = "realtime"
    DATABASE = "database"


FAULTS: dict[Where, tuple[str, ...]] = {
    Where.WORKER: (
        "kill",  # SIGKILL
        "kill_unheard",  # SIGKILL when its outcomes have not been taken for a while: its journal is what is left
        "freeze",  # SIGSTOP for longer than a lease, then SIGCONT
        "nap",  # the same for less than a lease
        "deploy",  # a new process beside the old one, which gets SIGTERM
        "deploy_older",  # the same, and the new one knows fewer types
        "impatient_platform",  # SIGTERM three times, SIGKILL before the drain is over
        "hurry",  # SIGINT twice: the drain has no grace
    ),
    Where.NETWORK: (
        "cut_off",  # a worker hears nothing for longer than a lease; what it sent arrives then
        "gateway_killed",  # its connections break, and nobody answers for a while
    ),
    Where.REST: (
        "status",
        "delay",
        "silence",
        "cut",
        "lose_answer",
        "cut_body",
        "schema_cache",
        "database_away",
        "pool",
        "statement_timeout",
    ),
    Where.REALTIME: (
        "off",
        "deaf",
        "false_subscribed",
        "slow_join",
        "refuse_handshakes",
        "lose_events",
        "double_events",
        "late_events",
        "close_sockets",
        "drop_sockets",
        "mute_sockets",
        "disconnect",
        "announce_again",
        "system_error",
        "expire_tokens",
        "end_channels",
        "crash_channels",
        "lose_changes",
    ),
    Where.DATABASE: (
        "restart",  # an orderly end, away for a while
        "crash",  # one backend is killed: the server ends all of them and recovers
        "end_sessions",  # every session is ended, as an operator does
        "lock_rows",  # somebody holds locks on rows of jobs
        "old_snapshot",  # somebody forgets a transaction
    ),
}
_REST_AT = ("claim", "finish", "finish", "heartbeat", "canary", "enqueue", "")
_LONGEST_GAP = 4.0  # seconds between two faults of a long storm
_BEGIN, _END = 0.05, 0.9  # of the storm: it begins and ends with calm


@dataclass(frozen=True, slots=True)
class Deed:
    """One fault at its time."""

    at: float
    """Seconds since the storm began."""
    where: Where
    what: str
    lane: int
    """Which worker's. The last lane is the producers'; a fault of the database hits them all."""
    seconds: float
    """How long it lasts, where it lasts."""
    times: int
    """How many requests or events meet it, where they are counted."""
    rest_at: str
    """Which function meets it, of a REST fault; empty: any."""


NAMES = tuple(what for names in FAULTS.values() for what in names)


def schedule(
    seed: int, seconds: float, workers: int, lease: float, only: Sequence[str] = ()
) -> Sequence[Deed]:
    """The storm: the same deeds for the same arguments. Each kind comes once before any comes again."""
    chance = random.Random(f"weather {seed}")
    kinds = [(where, what) for where, names in FAULTS.items() for what in names if what in (only or NAMES)]
    begin, end = seconds * _BEGIN, seconds * _END
    gap = min(_LONGEST_GAP, (end - begin) / len(kinds))
    deeds: list[Deed] = []
    bag: list[tuple[Where, str]] = []
    for number in range(max(int((end - begin) / gap + 0.5), 1)):
        if not bag:
            bag = chance.sample(kinds, len(kinds))
        where, what = bag.pop()
        lanes = workers + 1 if where is Where.REST else workers
        deeds.append(
            Deed(
                at=round(begin + gap * (number + chance.random()), 3),
                where=where,
                what=what,
                lane=chance.randrange(lanes),
                seconds=round(_seconds(what, lease, chance), 3),
                times=chance.randint(1, 5),
                rest_at=chance.choice(_REST_AT),
            )
        )
    return tuple(sorted(deeds, key=lambda deed: deed.at))


def _seconds(what: str, lease: float, chance: random.Random) -> float:
    match what:
        case "freeze" | "cut_off":
            return lease * chance.uniform(1.1, 1.8)
        case "nap":
            return lease * chance.uniform(0.2, 0.7)
        case "restart" | "gateway_killed" | "kill_unheard":
            return chance.uniform(0.3, 3.0)
        case _:
            return chance.uniform(0.5, lease)
