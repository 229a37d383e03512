"""Real sessions at once, with leases that run out in the middle: nothing is lost, run twice unnoticed, or stuck."""

import asyncio
import random
from collections import defaultdict

import asyncpg

from tests.sql.calls import Calls, Connection, Json, outcome

JOBS = 1_500
LOOPS = 4
TYPES = ["a", "b"]


async def test_loops_with_short_leases_finish_every_job(database: str, owner: Connection) -> None:
    """Each loop holds some answers back past their lease, shuffles its outcomes, repeats calls as if their answers
    had been lost, and sweeps now and then. What every session was told is then held against the rows."""
    await owner.execute(
        "insert into payment_jobs (type, priority, max_attempts)"
        " select (array['a', 'b'])[1 + n % 2], n % 3, 100 from generate_series(1, $1::integer) as n",
        JOBS,
    )
    connections = [await asyncpg.connect(database) for _ in range(LOOPS)]
    handed: dict[tuple[int, int], set[int]] = defaultdict(set)
    recorded: dict[tuple[int, int], list[str]] = defaultdict(list)
    try:
        async with asyncio.timeout(50), asyncio.TaskGroup() as group:
            for number, connection in enumerate(connections):
                group.create_task(_loop(number, Calls(connection), handed, recorded))
    finally:
        for connection in connections:
            await connection.close()

    rows = await owner.fetch("select * from jobs")
    assert {row["status"] for row in rows} == {"completed"}
    assert len(rows) == JOBS
    for row in rows:
        attempts = sorted(attempt for job, attempt in handed if job == row["id"])
        assert attempts == list(range(1, row["attempt"] + 1)), f"job {row['id']} has gaps: {attempts}"
        for attempt in attempts:
            assert len(handed[row["id"], attempt]) == 1, "one attempt was handed to two loops"
            assert len(recorded[row["id"], attempt]) <= 1, "two outcomes were recorded for one attempt"
        assert recorded[row["id"], row["attempt"]] == ["completed"]
        assert row["lease_expires_at"] is None
    stale = await owner.fetch("select job_id, attempt, kind from stale_outcomes")
    assert stale, "no lease ran out: this test has tested nothing"
    for said in stale:
        assert said["kind"] not in recorded[said["job_id"], said["attempt"]]
    assert await owner.fetchval("select count(*) from failed_jobs") == 0


async def _loop(
    number: int,
    calls: Calls,
    handed: dict[tuple[int, int], set[int]],
    recorded: dict[tuple[int, int], list[str]],
) -> None:
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
            "lease_seconds": chance.choice([0.005, 0.02, 0.5]),
            "worker_id": worker_id,
            "woken_by": "finish",
            "floor": floor,
            "sweep": chance.random() < 0.4,
        }
        answer = await calls.finish(*words, claim=claim)
        for job in answer["claim"]["jobs"]:
            handed[job["id"], job["attempt"]].add(number)
        if chance.random() < 0.1:  # the answer was lost: the same call again
            kept = [job["id"] for job in held] if late else []
            again = await calls.finish(*words, claim={**claim, "holding": kept})
            _hear(words, again["outcomes"], recorded, repeat_of=answer["outcomes"])
            answer = again
        else:
            _hear(words, answer["outcomes"], recorded)
        floor = answer["claim"]["floor"]
        held = (held if late else []) + answer["claim"]["jobs"]
        for job in answer["claim"]["jobs"]:
            handed[job["id"], job["attempt"]].add(number)
        if held and chance.random() < 0.5:
            lost = (await calls.heartbeat(*held, lease_seconds=0.05))["lost"]
            held = [job for job in held if [job["id"], job["attempt"]] not in lost or chance.random() < 0.5]
        if not held and await calls.value("select not exists (select from jobs where status <> 'completed')"):
            return


def _kind(chance: random.Random) -> str:
    return chance.choices(["completed", "retry", "snooze"], [8, 1, 1])[0]


def _hear(
    words: list[Json],
    answers: list[Json],
    recorded: dict[tuple[int, int], list[str]],
    repeat_of: list[Json] | None = None,
) -> None:
    for place, (said, answer) in enumerate(zip(words, answers, strict=True)):
        assert (answer["id"], answer["attempt"]) == (said["id"], said["attempt"])
        first = answer if repeat_of is None else repeat_of[place]
        if first["answer"] == "recorded":
            recorded[said["id"], said["attempt"]].append(said["kind"])
            # Later answers may be stale once the job has moved on by two attempts.
            assert repeat_of is None or answer["answer"] in ("repeated", "stale")
