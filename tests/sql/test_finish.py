"""From an outcome to the next state: every kind, once, fenced."""

import json
from collections.abc import Awaitable, Callable
from datetime import timedelta

import asyncpg
import pytest

from tests.sql.calls import Calls, Connection, outcome

MoveClock = Callable[[timedelta], Awaitable[None]]
WORKER = {"types": ["a"], "max_jobs": 5, "lease_seconds": 30, "worker_id": "w", "woken_by": "finish"}
ERROR = {"error_class": "ProviderError", "error_message": "503", "error_stack": "Traceback …"}


async def test_completed_keeps_the_result(server: Calls) -> None:
    await server.insert()
    job = await server.take()

    answer = await server.end(job, result={"charged": "12.50"})

    assert answer == {
        "id": job["id"],
        "attempt": 1,
        "answer": "recorded",
        "status": "completed",
        "run_in_seconds": None,
        "failed_job_id": None,
    }
    row = await server.row(job["id"])
    assert json.loads(row["result"]) == {"charged": "12.50"}
    assert row["lease_expires_at"] is None
    assert row["finished_at"] is not None


async def test_a_snooze_comes_back_and_does_not_count(server: Calls, move_clock: MoveClock) -> None:
    await server.insert(max_attempts=1)
    now = timedelta()
    for attempt in (1, 2, 3):
        job = await server.take()
        assert (job["attempt"], job["uncounted"]) == (attempt, attempt - 1)
        answer = await server.end(job, "snooze", delay_seconds=60)
        assert (answer["status"], answer["run_in_seconds"]) == ("pending", 60)
        now += timedelta(seconds=61)
        await move_clock(now)
    assert (await server.end(await server.take(), "retry"))["status"] == "failed"


async def test_retries_wait_5_10_15_seconds_and_then_there_is_a_dead_letter(
    server: Calls, move_clock: MoveClock
) -> None:
    made = await server.insert(data='{"n": 1}')
    now = timedelta()
    for delay in (5, 10, 15):
        answer = await server.end(await server.take(), "retry", **ERROR)
        assert (answer["status"], answer["run_in_seconds"]) == ("pending", delay)
        now += timedelta(seconds=delay + 1)
        await move_clock(now)

    answer = await server.end(await server.take(), "retry", **ERROR)

    assert answer["status"] == "failed"
    letter = await server.connection.fetchrow(
        "select * from failed_jobs where job_type = 'payment' order by failed_at desc"
    )
    assert letter is not None
    assert letter["id"] == answer["failed_job_id"]
    assert json.loads(letter["job_data"]) == {"type": "a", "data": {"n": 1}}
    assert (letter["job_id"], letter["attempts"], letter["attempt"]) == (made, 4, 4)
    assert (letter["error_class"], letter["error_message"]) == ("ProviderError", "503")
    assert letter["error_stack"] == "Traceback …"
    assert (await server.row(made))["last_error"] == "ProviderError: 503"


@pytest.mark.parametrize(("given", "kept"), [(0.25, 0.25), (0, 0), (-5, 0), (1e300, 315360000)])
async def test_a_retry_may_bring_its_own_delay(server: Calls, given: float, kept: float) -> None:
    await server.insert()
    assert (await server.end(await server.take(), "retry", delay_seconds=given))["run_in_seconds"] == kept


async def test_the_table_of_delays_stays_at_15_seconds(server: Calls, owner: Connection) -> None:
    seconds = [
        await owner.fetchval("select extract(epoch from retry_delay('retry', $1))::integer", counted)
        for counted in range(1, 7)
    ]
    assert seconds == [5, 10, 15, 15, 15, 15]


async def test_dead_and_cancel_are_for_good(server: Calls) -> None:
    await server.insert()
    await server.insert()
    first, second = (await server.claim())["jobs"]

    dead = await server.end(first, "dead", **ERROR)
    stopped = await server.end(second, "cancel", reason="the order is gone")

    assert (dead["status"], stopped["status"]) == ("failed", "cancelled")
    assert dead["failed_job_id"] is not None
    assert (await server.row(second["id"]))["last_error"] == "the order is gone"
    assert await server.value("select count(*) from failed_jobs") == 1


async def test_outcomes_of_any_kind_and_queue_go_in_one_call_and_the_next_jobs_come_back(
    server: Calls,
) -> None:
    await server.insert(queue="broker")
    for _ in range(4):
        await server.insert()
    jobs = (await server.claim(2))["jobs"] + (await server.claim(queue="broker"))["jobs"]

    answer = await server.finish(
        outcome(jobs[2], "completed"),
        outcome(jobs[1], "retry"),
        outcome(jobs[0], "snooze", delay_seconds=0),
        claim={"queue": "payment", **WORKER},
    )

    assert [said["id"] for said in answer["outcomes"]] == [jobs[2]["id"], jobs[1]["id"], jobs[0]["id"]]
    assert [said["status"] for said in answer["outcomes"]] == ["completed", "pending", "pending"]
    claimed = answer["claim"]["jobs"]
    assert {(job["id"], job["attempt"]) for job in claimed} >= {(jobs[0]["id"], 2)}
    assert len(claimed) == 3


async def test_the_merged_claim_takes_every_argument_of_claim(server: Calls) -> None:
    await server.insert("unknown")
    lost = (await server.insert(), await server.claim(1))[0]
    fresh = await server.insert()

    claim = {
        "queue": "payment",
        **WORKER,
        "floor": [[0, "2020-01-01T00:00:00Z", 7]],
        "sweep": True,
        "holding": [],
    }
    claimed = (await server.finish(claim=claim))["claim"]

    assert [job["id"] for job in claimed["jobs"]] == [lost, fresh]
    assert claimed["unknown_types"] == {"unknown": 1}
    nulls = {"queue": "payment", **WORKER, "floor": None, "sweep": None, "holding": None}
    assert (await server.finish(claim=nulls))["claim"]["jobs"] == []


async def test_nothing_to_say_is_fine(server: Calls) -> None:
    assert await server.finish() == {"outcomes": [], "claim": None}


# The fence ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["completed", "snooze", "cancel", "retry", "dead"])
async def test_the_same_words_again_are_repeated_and_change_nothing(server: Calls, kind: str) -> None:
    await server.insert()
    job = await server.take()
    first = await server.end(job, kind, delay_seconds=60, **ERROR)
    before = await server.row(job["id"])

    again = await server.end(job, kind, delay_seconds=60, **ERROR)

    assert again["answer"] == "repeated"
    assert {**again, "answer": "recorded", "run_in_seconds": first["run_in_seconds"]} == first
    assert await server.row(job["id"]) == before
    assert await server.value("select count(*) from stale_outcomes") == 0


async def test_the_same_words_are_repeated_while_the_next_attempt_runs(server: Calls) -> None:
    await server.insert()
    job = await server.take()
    await server.end(job, "retry", delay_seconds=0)
    await server.take()

    assert (await server.end(job, "retry", delay_seconds=0))["answer"] == "repeated"
    assert (await server.end(job, "completed"))["answer"] == "stale"
    row = await server.row(job["id"])
    assert (row["status"], row["attempt"]) == ("running", 2)


async def test_a_stale_outcome_changes_nothing_and_is_kept_once(server: Calls) -> None:
    await server.insert()
    job = await server.take()
    await server.end(job, "retry", delay_seconds=0)
    await server.take()
    before = await server.row(job["id"])

    for _ in range(2):
        answer = await server.end(job, "completed", result={"done": True})
        assert (answer["answer"], answer["status"]) == ("stale", "running")

    assert await server.row(job["id"]) == before
    [kept] = await server.connection.fetch("select * from stale_outcomes")
    assert (kept["job_id"], kept["attempt"], kept["kind"]) == (job["id"], 1, "completed")
    assert (kept["job_attempt"], kept["job_status"]) == (2, "running")
    assert json.loads(kept["outcome"])["result"] == {"done": True}


async def test_an_outcome_of_a_job_that_is_gone_is_stale(server: Calls) -> None:
    answer = await server.end({"queue": "payment", "id": 404, "attempt": 1})
    assert (answer["answer"], answer["status"]) == ("stale", None)


async def test_one_batch_can_carry_two_attempts_of_one_job(server: Calls) -> None:
    await server.insert()
    first = await server.take()
    await server.end(first, "retry", delay_seconds=0)
    second = await server.take()

    answers = (await server.finish(outcome(first, "retry"), outcome(second, "completed")))["outcomes"]

    assert [said["answer"] for said in answers] == ["repeated", "recorded"]
    assert (await server.row(first["id"]))["status"] == "completed"


@pytest.mark.parametrize(("second", "answer"), [("dead", "repeated"), ("completed", "stale")])
async def test_a_batch_that_says_two_things_of_one_attempt_means_the_first(
    server: Calls, second: str, answer: str
) -> None:
    await server.insert()
    job = await server.take()

    said = (await server.finish(outcome(job, "dead"), outcome(job, second)))["outcomes"]

    assert [words["answer"] for words in said] == ["recorded", answer]
    assert (await server.row(job["id"]))["status"] == "failed"
    assert await server.value("select count(*) from failed_jobs") == 1


async def test_an_unknown_kind_refuses_the_batch_by_name(server: Calls) -> None:
    await server.insert()
    job = await server.take()
    with pytest.raises(asyncpg.InvalidParameterValueError, match="kind 'vanished'"):
        await server.end(job, "vanished")
    assert (await server.row(job["id"]))["status"] == "running"
