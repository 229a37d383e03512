"""What a database and its handlers noted of limited jobs, side by side: was a limit ever passed, was its room used?

Two records that know nothing of each other. The handlers' notes (noting.py) say when each of them really ran. Triggers
of ours in the database say, in the order of commits, which attempt was claimed and which ended, and at which moments
the limits say that a start was: a start is the claim, and not the first line of the handler, to which the answer of
the claim has yet to find its way. The moments are held against the claims, transaction by transaction.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple, TypeAlias, TypeVar

import asyncpg

from bench.noting import Run, Who

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
T = TypeVar("T")
_TRIGGERS: Final = """
    create table changes (
        n bigint generated always as identity, xact text not null default pg_current_xact_id()::text,
        begun timestamptz not null default now(), at timestamptz not null default clock_timestamp(),
        type text, user_id uuid, account text, job bigint, attempt integer, step integer
    );
    create function note_change() returns trigger language plpgsql as $$ begin
    lock table public.changes in share row exclusive mode;     -- so that n is the order of commits
    insert into public.changes (type, user_id, account, job, attempt, step)
    values (
        new.type, new.user_id, new.data ->> 'account_id', new.id, old.attempt + (old.status = 'pending')::integer,
        case when new.status = 'running' then 1 else -1 end
    );
    return null; end $$;
    create constraint trigger note after update on jobs_maintenance deferrable initially deferred for each row
    when (old.status <> new.status and 'running' in (old.status, new.status)) execute function note_change();

    create table starts (xact text not null default pg_current_xact_id()::text, key text, at timestamptz);
    create function note_starts() returns trigger language plpgsql as $$ begin
    insert into public.starts (key, at)
    select new.key, t from (select unnest(new.taken) as t except all select unnest(old.taken)) as fresh;
    return null; end $$;
    create trigger note after insert or update of taken on call_limits for each row execute function note_starts()
"""
_MICROSECONDS: Final = "(extract(epoch from {}) * 1000000)::bigint"


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit of one type of job."""

    type: str
    per: str = "all"
    at_once: int | None = None
    starts: int | None = None
    per_seconds: float | None = None

    @property
    def allowed(self) -> int:
        """N."""
        return self.at_once or self.starts or 0

    def key(self, who: Who) -> str:
        """What it counts together."""
        return {"all": "", "user": who.user}.get(self.per, who.account)

    async def set(self, owner: Connection) -> int:
        """Its id."""
        numbers = (self.type, self.per, self.at_once, self.starts, self.per_seconds)
        answer = "(limit_jobs('maintenance', $1, $2, $3, $4, $5) ->> 'limit')::integer"
        made: int = await owner.fetchval(f"select {answer}", *numbers)
        return made


class Change(NamedTuple):
    """An attempt was claimed (step 1) or ended (-1). Moments in microseconds: of the transaction's begin and end."""

    who: Who
    job: int
    attempt: int
    step: int
    begun: int
    at: int
    xact: str


class Start(NamedTuple):
    """The moment at which a limit says that something started."""

    key: str
    at: int
    xact: str


@dataclass(frozen=True, slots=True)
class Record:
    """What the triggers noted, in its order."""

    changes: Sequence[Change]
    starts: Sequence[Start]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one limit did. Shares are of the room that there was while jobs waited, of the key that used least."""

    limit: Limit
    jobs: int
    keys: int
    by_claims: int
    """The most that ran at once, or started within a window."""
    by_handlers: int
    used: float
    ran: float | None
    """How much of it handlers were really running; None for starts."""

    @property
    def is_exact(self) -> bool:
        """Whether it was never passed."""
        by_handlers = self.by_handlers if self.limit.at_once is not None else 0
        return max(self.by_claims, by_handlers) <= self.limit.allowed

    @property
    def is_reached(self) -> bool:
        """Whether all that it allows was given out at some moment."""
        return self.by_claims == self.limit.allowed


async def keep_record(owner: Connection) -> None:
    """From now on the database notes what happens to jobs of the queue maintenance."""
    await owner.execute(_TRIGGERS)


async def read_record(owner: Connection) -> Record:
    """What it has noted."""
    at, begun = _MICROSECONDS.format("at"), _MICROSECONDS.format("begun")
    changes = await owner.fetch(
        f"select type, user_id, account, job, attempt, step, {begun}, {at}, xact from changes order by n"
    )
    starts = await owner.fetch(f"select key, {at}, xact from starts order by at")
    return Record(
        [Change(Who(row[0], str(row[1]), row[2]), *list(row)[3:]) for row in changes],
        [Start(*row) for row in starts],
    )


def disagreements(limits: Mapping[int, Limit], runs: Sequence[Run], record: Record) -> list[str]:
    """Where the records contradict each other. What a killed process claimed and never began is no contradiction."""
    claims = Counter((one.job, one.attempt) for one in record.changes if one.step == 1)
    ran = Counter((run.job, run.attempt) for run in runs)
    found = [f"attempt {one} was claimed {times} times" for one, times in claims.items() if times > 1]
    found += [f"attempt {one} ran {times} times" for one, times in ran.items() if times > 1]
    found += [f"attempt {one} ran and was not claimed" for one in ran if one not in claims]
    for id_, limit in limits.items():
        if limit.starts is not None:
            found += _unlike(id_, limit, record)
    return found


def _unlike(id_: int, limit: Limit, record: Record) -> list[str]:
    """The moments that a limit counts are those of claims: as many in each transaction, and within it."""
    prefix = f"job_limits/{id_}/"
    counted: dict[tuple[str, str], list[int]] = defaultdict(list)
    for start in record.starts:
        if start.key.startswith(prefix):
            counted[start.xact, start.key.removeprefix(prefix)].append(start.at)
    claimed: dict[tuple[str, str], list[Change]] = defaultdict(list)
    for change in record.changes:
        if change.step == 1 and change.who.type == limit.type:
            claimed[change.xact, limit.key(change.who)].append(change)
    return [
        f"{limit.type}: {len(claimed[one])} claims and {len(counted[one])} starts in transaction {one[0]}"
        for one in counted.keys() | claimed.keys()
        if len(claimed[one]) != len(counted[one])
        or not all(
            change.begun <= at <= change.at for change, at in zip(claimed[one], counted[one], strict=True)
        )
    ]


def findings(limits: Mapping[int, Limit], runs: Sequence[Run], record: Record, since: int) -> list[Finding]:
    """What each limit did. since = the moment (of the database) at which all jobs were due."""
    return [
        (_of_starts if limit.at_once is None else _of_places)(id_, limit, runs, record, since)
        for id_, limit in limits.items()
    ]


def _of_places(_id: int, limit: Limit, runs: Sequence[Run], record: Record, since: int) -> Finding:
    mine = _by_key(limit, record.changes, lambda change: change.who)
    ran = _by_key(limit, runs, lambda run: run.who)
    shares, really = [1.0], [1.0]
    for key, changes in mine.items():
        last = max(change.at for change in changes if change.step == 1)
        if (most := limit.allowed * (last - since)) > 0:
            shares.append(_area(changes, since, last, limit.allowed) / most)
        spans = [(run.begin, run.end) for run in ran[key] if run.end is not None]
        last_end = max(end for _, end in spans)
        whole = limit.allowed * (last_end - min(begin for begin, _ in spans))
        really.append(sum(end - begin for begin, end in spans) / whole)
    return Finding(
        limit=limit,
        jobs=len({change.job for changes in mine.values() for change in changes}),
        keys=len(mine),
        by_claims=max(_highest(change.step for change in changes) for changes in mine.values()),
        by_handlers=max(most_at_once(runs_of_key) for runs_of_key in ran.values()),
        used=min(shares),
        ran=min(really),
    )


def _of_starts(id_: int, limit: Limit, runs: Sequence[Run], record: Record, since: int) -> Finding:
    prefix = f"job_limits/{id_}/"
    seconds = limit.per_seconds or 0.0
    mine: dict[str, list[int]] = defaultdict(list)
    for start in record.starts:
        if start.key.startswith(prefix):
            mine[start.key].append(start.at)
    begins = _by_key(limit, runs, lambda run: run.who)
    return Finding(
        limit=limit,
        jobs=len({run.job for one in begins.values() for run in one}),
        keys=len(mine),
        by_claims=max(most_within(moments, seconds * 1e6) for moments in mine.values()),
        by_handlers=max(most_within([run.begin for run in one], seconds * 1e9) for one in begins.values()),
        used=min(_pace(moments, limit.allowed, seconds * 1e6, since) for moments in mine.values()),
        ran=None,
    )


def _by_key(limit: Limit, things: Iterable[T], who: Callable[[T], Who]) -> dict[str, list[T]]:
    found: dict[str, list[T]] = defaultdict(list)
    for thing in things:
        if who(thing).type == limit.type:
            found[limit.key(who(thing))].append(thing)
    return found


def most_at_once(runs: Iterable[Run]) -> int:
    """How many of these handlers ran at the same time. Each must have an end."""
    moments = [(run.begin, 1) for run in runs]
    moments += [(run.end, -1) for run in runs if run.end is not None]
    return _highest(step for _, step in sorted(moments))


def most_within(moments: Iterable[int], length: float) -> int:
    """How many of these moments lie in one stretch of time so long, wherever it begins; its end is not part of it."""
    found = sorted(moments)
    most = first = 0
    for place, moment in enumerate(found):
        while found[first] <= moment - length:
            first += 1
        most = max(most, place - first + 1)
    return most


def _highest(steps: Iterable[int]) -> int:
    running = most = 0
    for step in steps:
        running += step
        most = max(most, running)
    return most


def _area(changes: Sequence[Change], since: int, until: int, most: int) -> float:
    """Places in use, summed over time; more than there are do not make up for fewer."""
    running = 0
    area = 0.0
    for change, following in pairwise([*changes, None]):
        running += change.step if change else 0
        end = until if following is None else min(following.at, until)
        if change and end > max(change.at, since):
            area += min(running, most) * (end - max(change.at, since))
    return area


def _pace(moments: Sequence[int], allowed: int, window: float, since: int) -> float:
    """How soon each start came after the one that had to leave the window for it: 1 is at once."""
    padded = [since - window] * allowed + sorted(moments)  # the first ones had to wait for nothing
    waits = [later - earlier for earlier, later in zip(padded, padded[allowed:], strict=False)]
    return len(waits) * window / sum(waits)
