"""Limits: never more calls in any window than allowed, never fewer when somebody asks, and waits that are exact."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from itertools import count

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.sql.calls import Calls, Connection
from tests.sql.limit_model import Limit
from tests.waiting import until

MoveClock = Callable[[timedelta], Awaitable[None]]

USUAL = 60
EXAMPLES = int(os.environ.get("PULSE_EXAMPLES", USUAL))
NOTHING = timedelta()
MINUTE = timedelta(minutes=1)
SESSIONS = 8
BEGAN = datetime(2026, 11, 1, 4, 0, tzinfo=UTC)
"""Midnight in New York, on a day there that has 25 hours."""
NOTED = """
    create table noted (place bigint generated always as identity, at timestamptz);
    create function note() returns trigger language plpgsql as
    $$ begin insert into public.noted (at)
    select unnest(new.taken) except all select unnest(old.taken) order by 1; return new; end $$;
    create trigger note after update of taken on call_limits for each row execute function note()
"""
_keys = count(1)


async def take(
    session: Connection, key: str = "k", calls: int = 1, allowed: int = 2, per: timedelta = MINUTE
) -> timedelta:
    wait = await session.fetchval("select take_calls($1, $2, $3, $4)", key, calls, allowed, per)
    assert isinstance(wait, timedelta)
    return wait


async def stop_the_clock(session: Connection, at: datetime) -> None:
    await session.execute(
        "create or replace function public.call_moment() returns timestamptz language sql volatile"
        f" return '{at.isoformat()}'::timestamptz"
    )


@pytest.fixture
async def sessions(database: str) -> AsyncIterator[list[Connection]]:
    async with AsyncExitStack() as stack:
        opened: list[Connection] = []
        for _ in range(SESSIONS):
            opened.append(await asyncpg.connect(database))
            stack.push_async_callback(opened[-1].close)
        yield opened


async def test_what_is_over_the_limit_waits_exactly_until_the_oldest_call_is_over(owner: Connection) -> None:
    await stop_the_clock(owner, BEGAN)
    assert await take(owner) == NOTHING
    await stop_the_clock(owner, BEGAN + timedelta(seconds=20))
    assert await take(owner) == NOTHING
    await stop_the_clock(owner, BEGAN + timedelta(seconds=59, microseconds=999_999))
    assert await take(owner) == timedelta(microseconds=1)
    assert await take(owner, calls=2) == timedelta(seconds=20, microseconds=1)
    await stop_the_clock(owner, BEGAN + MINUTE)
    assert await take(owner) == NOTHING
    assert await take(owner) == timedelta(seconds=20)


async def test_keys_do_not_know_each_other(owner: Connection) -> None:
    assert [await take(owner, key, allowed=1) for key in ("a", "b")] == [NOTHING, NOTHING]
    assert await take(owner, "a", allowed=1) > NOTHING


@settings(
    max_examples=EXAMPLES,
    derandomize=EXAMPLES == USUAL,
    deadline=None,
    database=None,
    suppress_health_check=(HealthCheck.function_scoped_fixture, HealthCheck.too_slow),
)
@given(
    per=st.integers(1, 12),
    most=st.integers(1, 5),
    story=st.lists(st.tuples(st.integers(0, 4), st.integers(1, 5), st.integers(0, 9)), max_size=25),
)
def test_a_limit_answers_as_the_model_does(
    database: str, per: int, most: int, story: list[tuple[int, int, int]]
) -> None:
    """Each step: so many seconds pass, so many calls are asked for; now and then the key is held so long first."""

    async def play() -> None:
        session = await asyncpg.connect(database)
        try:
            await session.execute(
                "create or replace function public.call_moment() returns timestamptz language sql volatile"
                " return current_setting('test.moment')::timestamptz"
            )
            key, limit, now = f"story {next(_keys)}", Limit(), 0
            for passed, calls, hold in story:
                now += passed
                await session.execute(
                    "select set_config('test.moment', $1, false)", str(BEGAN + timedelta(seconds=now))
                )
                if hold > 6:
                    limit.held_until = max(limit.held_until, now + hold)
                    until_ = BEGAN + timedelta(seconds=now + hold)
                    await session.execute("select hold_calls($1, $2)", key, until_)
                asked = min(calls, most)
                wait = await take(session, key, asked, most, timedelta(seconds=per))
                assert wait == timedelta(seconds=limit.take(now, asked, most, per))
                known = await session.fetchval("select taken from call_limits where key = $1", key)
                expected = [BEGAN + timedelta(seconds=call) for call in limit.taken if call > now - per]
                assert (known or [])[-len(expected) or len(known or []) :] == expected
        finally:
            await session.close()

    asyncio.run(play())


async def test_of_many_sessions_at_once_exactly_as_many_get_a_call_as_are_allowed(
    owner: Connection, sessions: list[Connection]
) -> None:
    async def greedy(session: Connection) -> int:
        waits = [await take(session, allowed=100, per=timedelta(hours=1)) for _ in range(40)]
        return waits.count(NOTHING)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(greedy(session)) for session in sessions]
    assert sum(task.result() for task in tasks) == 100
    assert await owner.fetchval("select cardinality(taken) from call_limits") == 100


async def test_no_window_ever_holds_more_whoever_races_for_it_while_time_goes_on(
    owner: Connection, sessions: list[Connection]
) -> None:
    """Time runs a hundred times as fast, so that many windows pass; the moments are noted as they are taken."""
    await owner.execute(
        "create or replace function public.call_moment() returns timestamptz language sql volatile"
        f" return clock_timestamp() + 100 * (clock_timestamp() - '{datetime.now(UTC)}'::timestamptz)"
    )
    await owner.execute(NOTED)
    allowed, per = 20, timedelta(seconds=10)

    async def greedy(session: Connection, calls: int) -> None:
        while await owner_noted() < 10 * allowed:
            await take(session, calls=calls, allowed=allowed, per=per)

    looking = asyncio.Lock()

    async def owner_noted() -> int:
        async with looking:
            return int(await owner.fetchval("select count(*) from noted"))

    async with asyncio.timeout(40), asyncio.TaskGroup() as group:
        for number, session in enumerate(sessions):
            group.create_task(greedy(session, 1 + number % 3))
    moments = [row["at"] for row in await owner.fetch("select at from noted order by place")]
    assert moments == sorted(moments)
    spans = [later - sooner for sooner, later in zip(moments, moments[allowed:], strict=False)]
    assert min(spans) >= per


async def test_a_call_that_queued_behind_somebody_slow_counts_from_when_it_went_out(
    owner: Connection, sessions: list[Connection]
) -> None:
    slow, queued, *_ = sessions
    await take(slow, allowed=5)
    transaction = slow.transaction()
    await transaction.start()
    await take(slow, allowed=5)
    waiting = asyncio.create_task(take(queued, allowed=5))
    await until("the second call waits for the key", lambda: _waits_for_a_lock(owner, queued))
    let_go = await owner.fetchval("select clock_timestamp()")
    await transaction.commit()
    assert await waiting == NOTHING
    assert await owner.fetchval("select taken[3] from call_limits") >= let_go


async def _waits_for_a_lock(owner: Connection, session: Connection) -> bool:
    return bool(
        await owner.fetchval(
            "select wait_event_type = 'Lock' from pg_stat_activity where pid = $1", session.get_server_pid()
        )
    )


async def test_a_refusal_writes_nothing_and_waits_for_nobody(
    owner: Connection, sessions: list[Connection]
) -> None:
    await take(owner, calls=2)
    row = "select xmin::text, xmax::text, ctid::text, * from call_limits"
    before = await owner.fetchrow(row)
    async with asyncio.timeout(20), sessions[0].transaction():
        assert await take(owner) > NOTHING
        assert await owner.fetchrow(row) == before
        await sessions[0].execute("select from call_limits for update")
        assert await take(owner) > NOTHING


async def test_a_held_key_gives_nothing_before_and_a_hold_is_never_shortened(owner: Connection) -> None:
    await stop_the_clock(owner, BEGAN)
    for seconds in (30, 10):
        await owner.execute("select hold_calls('k', $1)", BEGAN + timedelta(seconds=seconds))
    assert await take(owner) == timedelta(seconds=30)
    await stop_the_clock(owner, BEGAN + timedelta(seconds=30))
    assert await take(owner, calls=2) == NOTHING
    await owner.execute("select hold_calls('k', $1)", BEGAN + timedelta(seconds=40))
    assert await take(owner) == MINUTE
    with pytest.raises(asyncpg.InvalidParameterValueError, match="a hold ends"):
        await owner.execute("select hold_calls('k', 'infinity')")


async def test_a_clock_that_is_set_back_costs_one_window_and_no_more(owner: Connection) -> None:
    await stop_the_clock(owner, BEGAN + timedelta(hours=1))
    await take(owner, calls=2)
    await stop_the_clock(owner, BEGAN)
    assert await take(owner) == MINUTE
    await stop_the_clock(owner, BEGAN + timedelta(seconds=50))
    assert await take(owner) == timedelta(seconds=10)
    await stop_the_clock(owner, BEGAN + MINUTE)
    assert await take(owner, calls=2) == NOTHING


async def test_a_day_has_24_hours_wherever_the_session_is(owner: Connection) -> None:
    await owner.execute("set time zone 'America/New_York'")
    await stop_the_clock(owner, BEGAN)
    await take(owner, calls=2, per=timedelta(days=1))
    assert await take(owner, per=timedelta(days=1)) == timedelta(hours=24)


async def test_a_limit_that_is_changed_holds_from_the_next_call(owner: Connection) -> None:
    await stop_the_clock(owner, BEGAN)
    await take(owner, calls=3, allowed=5)
    assert await take(owner, allowed=3) == MINUTE
    assert await take(owner, allowed=4) == NOTHING


@pytest.mark.parametrize(
    ("calls", "allowed", "per"),
    [(0, 1, MINUTE), (2, 1, MINUTE), (1, 10_001, MINUTE), (1, 1, NOTHING), (1, 1, None), (None, 1, MINUTE)],
)
async def test_what_can_never_be_is_refused(
    owner: Connection, calls: int | None, allowed: int, per: timedelta | None
) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError, match="cannot take"):
        await owner.fetchval("select take_calls('k', $1, $2, $3)", calls, allowed, per)
    assert await owner.fetchval("select count(*) from call_limits") == 0


async def test_keys_that_mean_nothing_any_more_are_pruned(
    server: Calls, owner: Connection, move_clock: MoveClock
) -> None:
    await take(owner, "over", per=MINUTE)
    await take(owner, "in use", per=timedelta(hours=2))
    await owner.execute("select hold_calls('held', now() + interval '2 hours')")
    await server.prune()
    assert await owner.fetchval("select count(*) from call_limits") == 3
    await move_clock(timedelta(hours=1))
    await server.prune()
    assert {row["key"] for row in await owner.fetch("select key from call_limits")} == {"in use", "held"}
    await move_clock(timedelta(hours=3))
    assert (await server.prune(max_jobs=1))["more"]
    await server.prune()
    assert await owner.fetchval("select count(*) from call_limits") == 0
