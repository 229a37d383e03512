"""Real sessions at once, with leases that run out in the middle: nothing is lost, run twice unnoticed, or stuck."""

import asyncio
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from chaos import invariants
from chaos.evidence import Evidence, from_database
from devstack.postgres import SUPERUSER
from tests.sql.calls import Calls, Connection, Json, outcome, waits_for_a_lock

JOBS = 1_000
LOOPS = 4
TYPES = ["a", "b"]


@dataclass(slots=True)
class Book:
    """What all sessions were told, by (job, attempt)."""

    handed: dict[tuple[int, int], set[int]] = field(default_factory=lambda: defaultdict(set))
    recorded: dict[tuple[int, int], list[str]] = field(default_factory=lambda: defaultdict(list))
    said_twice: set[tuple[int, int]] = field(default_factory=set[tuple[int, int]])


# Those of the lab's invariants that the history of the database proves alone, without a ledger of effects.
PROVEN = (
    invariants.one_attempt_lives,
    invariants.attempts_have_no_gaps,
    invariants.states_follow_the_diagram,
    invariants.stale_outcomes_are_stale,
    invariants.retries_stay_within_allowance,
    invariants.dead_letters_are_complete,
    invariants.all_is_at_rest,
)


async def test_concurrent_sessions_leave_a_history_that_proves_every_rule(
    database: str, owner: Connection, checkout: Path
) -> None:
    """Each loop holds some answers back past their lease, shuffles its outcomes, repeats calls as if their answers
    had been lost, and sweeps now and then; others cancel jobs and replay dead letters. Every change of state is
    written down as it is committed, and held against the rules and against what each session was told."""
    admin = await asyncpg.connect(database, user=SUPERUSER)
    await admin.execute((checkout / "chaos" / "history.sql").read_text())
    # Fifty times as fast, so that nobody waits for the delays of retries.
    await owner.execute(
        "create or replace function public.clock_now() returns timestamptz language sql stable parallel safe"
        f" as $$ select pg_catalog.now() + 50 * (pg_catalog.now() - '{datetime.now(UTC)}'::timestamptz) $$"
    )
    await owner.execute(
        "insert into payment_jobs (type, priority, max_attempts)"
        " select (array['a', 'b'])[1 + n % 2], n % 3, case when n % 10 = 0 then 2 else 100 end"
        " from generate_series(1, $1::integer) as n",
        JOBS,
    )
    connections = [await asyncpg.connect(database) for _ in range(LOOPS + 1)]
    book = Book()
    try:
        async with asyncio.timeout(50), asyncio.TaskGroup() as group:
            meddler = group.create_task(_meddle(Calls(connections[-1])))
            async with asyncio.TaskGroup() as loops:
                for number, connection in enumerate(connections[:LOOPS]):
                    loops.create_task(_loop(number, Calls(connection), book))
            meddler.cancel()
        evidence = Evidence()
        await from_database(admin, evidence)
    finally:
        for connection in [admin, *connections]:
            await connection.close()

    assert len(evidence.jobs) == JOBS
    assert evidence.letters, "no job was given up: this test has tested nothing"
    for proven in PROVEN:
        assert list(proven(evidence)) == []
    _hold_the_book_against_the_history(book, evidence)


def _hold_the_book_against_the_history(book: Book, evidence: Evidence) -> None:
    """What a session was told is what the history has: who got which attempt, and which words ended it."""
    claimed: dict[tuple[int, int], str | None] = {}
    ended: dict[tuple[int, int], str | None] = {}
    for job_id, changes in evidence.changes.items():
        for change in changes:
            assert change.attempt is not None
            if change.after == "running":
                claimed[job_id, change.attempt] = change.worker_id
            elif change.before == "running":
                ended[job_id, change.attempt] = change.outcome
    assert {attempt: {f"w{number}" for number in whose} for attempt, whose in book.handed.items()} == {
        attempt: {worker} for attempt, worker in claimed.items()
    }
    assert {attempt: kinds for attempt, kinds in book.recorded.items() if kinds} == {
        attempt: [kind] for attempt, kind in ended.items() if kind != "vanished"
    }
    assert "vanished" in ended.values(), "no lease ran out: this test has tested nothing"
    assert evidence.stale, "no outcome was stale: this test has tested nothing"
    for said in evidence.stale:
        # Words said twice may be stale the second time: a job remembers its last outcome, not all of them.
        whose = (said.job_id, said.attempt)
        assert said.kind not in book.recorded[whose] or whose in book.said_twice


async def _meddle(calls: Calls) -> None:
    """Cancels jobs in whatever state they are, and replays what has failed, until it is stopped."""
    chance = random.Random(LOOPS)
    while True:
        await calls.cancel(*(chance.randint(1, JOBS) for _ in range(3)))
        await calls.replay(max_jobs=2)
        await asyncio.sleep(0.02)


async def _loop(number: int, calls: Calls, book: Book) -> None:
    chance = random.Random(number)
    worker_id = f"w{number}"
    held: list[Json] = []
    floor: object = None
    while True:
        chance.shuffle(held)
        late = chance.random() < 0.3
        words = [] if late else [outcome(job, _kind(chance), delay_seconds=0) for job in held]
        claim: Json = {
            "queue": "payment",
            "types": TYPES,
            "max_jobs": chance.choice([0, 5, 20, 20]),
            "lease_seconds": chance.choice([0.25, 1, 25]),
            "worker_id": worker_id,
            "woken_by": "finish",
            "floor": floor,
            "sweep": chance.random() < 0.4,
        }
        answer = await calls.finish(*words, claim=claim)
        for job in answer["claim"]["jobs"]:
            book.handed[job["id"], job["attempt"]].add(number)
        if chance.random() < 0.1:  # the answer was lost: the same call again
            kept = [(job["id"], job["attempt"]) for job in held] if late else []
            again = await calls.finish(*words, claim={**claim, "holding": kept})
            _hear(words, again["outcomes"], book, repeat_of=answer["outcomes"])
            answer = again
        else:
            _hear(words, answer["outcomes"], book)
        floor = answer["claim"]["floor"]
        held = (held if late else []) + answer["claim"]["jobs"]
        for job in answer["claim"]["jobs"]:
            book.handed[job["id"], job["attempt"]].add(number)
        if held and chance.random() < 0.5:
            lost = (await calls.heartbeat(*held, lease_seconds=2.5))["lost"]
            held = [job for job in held if [job["id"], job["attempt"]] not in lost or chance.random() < 0.5]
        if not held and await calls.value(
            "select not exists (select from jobs where status in ('pending', 'running'))"
        ):
            return


def _kind(chance: random.Random) -> str:
    return chance.choices(["completed", "retry", "snooze"], [8, 1, 1])[0]


def _hear(words: list[Json], answers: list[Json], book: Book, repeat_of: list[Json] | None = None) -> None:
    for place, (said, answer) in enumerate(zip(words, answers, strict=True)):
        attempt = (said["id"], said["attempt"])
        assert (answer["id"], answer["attempt"]) == attempt
        if repeat_of is not None:
            book.said_twice.add(attempt)
            assert answer["answer"] != "recorded" or repeat_of[place]["answer"] != "recorded"
        first = answer if repeat_of is None else repeat_of[place]
        if first["answer"] == "recorded":
            book.recorded[attempt].append(said["kind"])


async def test_words_that_queued_behind_a_sweep_are_judged_by_what_it_left(
    server: Calls,
    owner: Connection,
    database: str,
    move_clock: Callable[[timedelta], Awaitable[None]],
) -> None:
    made = await server.insert()
    job = await server.take(lease_seconds=5)
    await move_clock(timedelta(seconds=6))
    looker = await asyncpg.connect(database)
    try:
        async with asyncio.TaskGroup() as group, owner.transaction():
            assert (await Calls(owner).claim(0, sweep=True))["lost"]["retried"] == 1
            assert await server.heartbeat(job) == {"lost": [], "cancel": []}, "it waits for nobody"
            said = group.create_task(server.end(job))
            await waits_for_a_lock(looker, server.connection)
    finally:
        await looker.close()

    assert said.result()["answer"] == "stale"
    assert await server.heartbeat(job) == {"lost": [[made, 1]], "cancel": []}
    row = await server.row(made)
    assert (row["status"], row["lease_expires_at"]) == ("pending", None)


async def test_outcomes_that_queued_behind_a_heartbeat_are_recorded(
    server: Calls, owner: Connection, database: str
) -> None:
    for _ in range(5):
        await server.insert()
    jobs = (await server.claim())["jobs"]
    looker = await asyncpg.connect(database)
    try:
        async with asyncio.TaskGroup() as group, owner.transaction():
            await Calls(owner).heartbeat(*jobs[:2])
            said = group.create_task(server.finish(*(outcome(job, "completed") for job in jobs)))
            await waits_for_a_lock(looker, server.connection)
    finally:
        await looker.close()

    assert [answer["answer"] for answer in said.result()["outcomes"]] == ["recorded"] * len(jobs)
    assert (await server.row(jobs[0]["id"]))["status"] == "completed"


async def test_a_deadlock_with_a_stranger_leaves_as_an_error_that_is_worth_repeating(
    server: Calls, owner: Connection, database: str
) -> None:
    """PostgREST repeats 40P01 for ever. Our functions never lock each other out; somebody's own UPDATE could."""
    await server.insert()
    await server.insert()
    first, second = (await server.claim())["jobs"]
    caller = await asyncpg.connect(database, user="supabase_admin")
    stranger = await asyncpg.connect(database, user="supabase_admin")
    try:
        # The session that notices is the one that gives up: let it be the caller.
        await caller.execute("set deadlock_timeout = '2s'")
        await stranger.execute("set deadlock_timeout = '60s'")
        async with asyncio.TaskGroup() as group, stranger.transaction():
            await stranger.execute("select from jobs where id = $1 for update", second["id"])
            said = group.create_task(_refusal(Calls(caller), first, second))
            await waits_for_a_lock(owner, caller)
            await stranger.execute("select from jobs where id = $1 for update", first["id"])
    finally:
        await caller.close()
        await stranger.close()
    assert said.result() == "PT503"


async def _refusal(calls: Calls, *jobs: Json) -> str | None:
    with pytest.raises(asyncpg.PostgresError) as refused:
        await calls.finish(*(outcome(job, "completed") for job in jobs))
    return refused.value.sqlstate
