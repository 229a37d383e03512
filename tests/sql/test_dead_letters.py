"""From a dead letter back to a job: the same job again, once, with a fresh allowance."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import asyncpg

from tests.sql.calls import Calls, Connection

MoveClock = Callable[[timedelta], Awaitable[None]]


async def dead(server: Calls, type: str = "a", queue: str = "payment") -> tuple[int, int]:  # noqa: A002
    """A dead letter's id and its job's."""
    made = await server.insert(type, queue=queue)
    letter = (await server.end(await server.take(types=[type], queue=queue), "dead"))["failed_job_id"]
    assert isinstance(letter, int)
    return letter, made


async def test_a_replayed_job_is_the_same_job_with_a_fresh_allowance(
    server: Calls, move_clock: MoveClock
) -> None:
    letter, made = await dead(server)

    answer = await server.replay([letter])

    assert answer == {"replayed": [{"failed_job_id": letter, "job_id": made}], "skipped": []}
    job = await server.take()
    assert (job["id"], job["attempt"], job["uncounted"]) == (made, 2, 1)
    now = timedelta()
    for _ in range(3):
        assert (await server.end(job, "retry"))["status"] == "pending"
        now += timedelta(seconds=20)
        await move_clock(now)
        job = await server.take()
    last = await server.end(job, "retry")
    assert last["status"] == "failed"
    assert await server.value("select attempts from failed_jobs where id = $1", last["failed_job_id"]) == 4


async def test_a_dead_letter_is_replayed_at_most_once(server: Calls) -> None:
    letter, made = await dead(server)
    await server.replay([letter])
    await server.end(await server.take(), "dead")

    assert await server.replay([letter, 999]) == {"replayed": [], "skipped": [letter, 999]}
    assert [said["job_id"] for said in (await server.replay())["replayed"]] == [made]


async def test_filters_choose_and_narrow(server: Calls) -> None:
    a, b = (await dead(server))[0], (await dead(server, "b"))[0]
    other = (await dead(server, "b", "broker"))[0]

    narrowed = await server.replay([a, b], type="b")
    by_queue = await server.replay(job_type="broker")
    rest = await server.replay(max_jobs=5)

    assert [said["failed_job_id"] for said in narrowed["replayed"]] == [b]
    assert narrowed["skipped"] == [a]
    assert [said["failed_job_id"] for said in by_queue["replayed"]] == [other]
    assert [said["failed_job_id"] for said in rest["replayed"]] == [a]


async def test_the_oldest_go_first_when_there_are_more_than_asked_for(server: Calls) -> None:
    letters = [(await dead(server))[0] for _ in range(3)]
    answer = await server.replay(max_jobs=2)
    assert [said["failed_job_id"] for said in answer["replayed"]] == letters[:2]


async def test_a_dead_letter_whose_job_is_gone_is_skipped(server: Calls, owner: Connection) -> None:
    letter, made = await dead(server)
    await owner.execute("delete from jobs where id = $1", made)
    assert await server.replay([letter]) == {"replayed": [], "skipped": [letter]}


async def test_letters_that_cannot_be_replayed_do_not_stand_before_those_that_can(
    server: Calls, owner: Connection
) -> None:
    _, gone = await dead(server)
    letter, _ = await dead(server)
    await owner.execute("delete from jobs where id = $1", gone)
    assert [said["failed_job_id"] for said in (await server.replay(max_jobs=1))["replayed"]] == [letter]


async def test_a_letter_names_the_queue_of_its_job_whatever_the_worker_says(server: Calls) -> None:
    await server.insert()
    job = await server.take()
    await server.end({**job, "queue": "broker"}, "dead")
    assert await server.value("select job_type from failed_jobs") == "payment"


async def test_two_replays_at_once_replay_once(server: Calls, database: str) -> None:
    letters = [(await dead(server))[0] for _ in range(20)]
    other = await asyncpg.connect(database)
    try:
        answers = await asyncio.gather(server.replay(letters), Calls(other).replay(letters[::-1]))
    finally:
        await other.close()
    replayed = [said["failed_job_id"] for answer in answers for said in answer["replayed"]]
    assert sorted(replayed) == letters


async def test_cancelling_a_dead_job_leaves_it_to_its_letter(server: Calls) -> None:
    letter, made = await dead(server)
    assert (await server.cancel(made))["unchanged"] == [made]
    assert len((await server.replay([letter]))["replayed"]) == 1
