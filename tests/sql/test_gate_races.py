"""Limits under real sessions at once: never one more than allowed, never fewer while somebody asks, nothing stays."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import asyncpg

from tests.sql.calls import Calls, Connection, Json, outcome

SESSIONS = 4
PLACES = 4
TRIES = 10_000
"""Places that were asked for, over all calls of all sessions."""
AT_ONCE, OF_A_USER, STARTS = 5, 2, 40
BURST, WINDOW = 20, timedelta(seconds=0.25)
# Each change of state, in the order of commits: at its commit a transaction waits for those before it.
NOTED = """
    create table noted (place bigint generated always as identity, type text, user_id uuid, step integer);
    create function note() returns trigger language plpgsql as $$ begin
    lock table public.noted in share row exclusive mode;
    insert into public.noted (type, user_id, step)
    values (new.type, new.user_id, case when new.status = 'running' then 1 else -1 end);
    return null; end $$;
    create constraint trigger note after update on jobs_payment deferrable initially deferred for each row
    when (old.status <> new.status) execute function note();

    create table moments (key text, at timestamptz);
    create function note_moments() returns trigger language plpgsql as $$ begin
    insert into public.moments (key, at)
    select new.key, t from (select unnest(new.taken) as t except all select unnest(old.taken)) as fresh;
    return null; end $$;
    create trigger note after insert or update of taken on call_limits for each row execute function note_moments()
"""
ROWS = """
    insert into payment_jobs (type, user_id)
    select (array['all', 'all', 'starts', 'burst'])[1 + n % 4],
        ('00000000-0000-0000-0000-00000000000' || n / 4 % 5)::uuid
    from generate_series(1, 8000) as n
"""
TYPES = ["all", "starts", "burst"]


@dataclass
class Session:
    calls: Calls
    chance: random.Random
    held: list[Json] = field(default_factory=list[Json])
    floor: object = None


async def test_four_sessions_and_10000_tries_never_pass_a_limit(database: str, owner: Connection) -> None:
    """Some answers are late, some claims are rolled back as if their session had died, some sweep."""
    setting = Calls(owner)
    await setting.limit(per="user")
    await setting.limit(queue="payment", type="all", at_once=AT_ONCE)
    await setting.limit(queue="payment", type="all", per="user", at_once=OF_A_USER)
    await setting.limit(queue="payment", type="starts", starts=STARTS, per_seconds=3600)
    burst = await setting.limit(
        queue="payment", type="burst", starts=BURST, per_seconds=WINDOW.total_seconds()
    )
    await owner.execute(NOTED)
    await owner.execute(ROWS)
    async with AsyncExitStack() as stack:
        sessions: list[Session] = []
        for number in range(SESSIONS):
            connection = await asyncpg.connect(database)
            stack.push_async_callback(connection.close)
            sessions.append(Session(Calls(connection), random.Random(number)))
        async with asyncio.TaskGroup() as group:
            for session in sessions:
                group.create_task(_storm(session))

    steps = await owner.fetch("select type, user_id, step from noted order by place")
    assert _most(steps, lambda row: "all" if row["type"] == "all" else None) == AT_ONCE
    assert _most(steps, lambda row: row["user_id"] if row["type"] == "all" else None) == OF_A_USER
    started = Counter(row["type"] for row in steps if row["step"] == 1)
    assert started["starts"] == STARTS
    moments: list[datetime] = await owner.fetchval(
        "select array_agg(at order by at) from moments where key like $1", f"job_limits/{burst}/%"
    )
    assert len(moments) == started["burst"] > BURST
    closest = min(b - a for a, b in zip(moments, moments[BURST:], strict=False))
    assert closest >= WINDOW, f"{BURST + 1} in {closest}"

    await _holds_as_many_as_allowed(setting, sessions)


async def _storm(session: Session) -> None:
    chance = session.chance
    for _ in range(TRIES // SESSIONS // PLACES):
        if chance.random() < 0.05:
            await _die(session)
        ends = [job for job in session.held if chance.random() < 0.7]
        session.held = [job for job in session.held if job not in ends]
        kinds = chance.choices(["completed", "snooze", "retry"], [8, 1, 1], k=len(ends))
        said = [outcome(job, kind, delay_seconds=0) for job, kind in zip(ends, kinds, strict=True)]
        answer = await session.calls.finish(
            *said,
            claim={
                "queue": "payment",
                "types": TYPES,
                "max_jobs": PLACES,
                "lease_seconds": 600,
                "worker_id": "w",
                "woken_by": "finish",
                "floor": session.floor,
                "sweep": chance.random() < 0.05,
            },
        )
        assert all(one["answer"] == "recorded" for one in answer["outcomes"])
        session.held += answer["claim"]["jobs"]
        session.floor = answer["claim"]["floor"]


async def _die(session: Session) -> None:
    transaction = session.calls.connection.transaction()
    await transaction.start()
    await session.calls.claim(PLACES, types=TYPES)
    await transaction.rollback()


def _most(steps: list[asyncpg.Record], of: Callable[[asyncpg.Record], object]) -> int:
    running: Counter[object] = Counter()
    most = 0
    for row in steps:
        if (key := of(row)) is not None:
            running[key] += row["step"]
            most = max(most, running[key])
    return most


async def _holds_as_many_as_allowed(calls: Calls, sessions: list[Session]) -> None:
    """Nobody else asks now, and there is demand: the claim is given all that there is room for."""
    await calls.finish(*(outcome(job, "completed") for session in sessions for job in session.held))
    given = (await calls.claim(50, types=["all"], sweep=True))["jobs"]
    assert len(given) == AT_ONCE
    assert await calls.value("select count(*) from jobs where type = 'all' and status = 'running'") == AT_ONCE
    assert (
        await calls.value(
            "select count(*) from jobs as j where status = 'pending' and lane is not null and not exists"
            " (select from lanes as l where (l.lane, l.queue, l.type) = (j.lane, j.queue, j.type))"
        )
        == 0
    )
