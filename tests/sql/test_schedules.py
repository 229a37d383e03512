"""The table of schedules: what operators may write there, what code may change, and one job per slot."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import asyncpg
import pytest

from listener.timetable import Rule, RuleError
from tests.sql.calls import Connection, Json
from tests.sql.schedule_calls import HOUR, Schedules, set_clock


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"every_seconds": None, "cron": "60 * * * *"}, "schedule one: the minute in cron is not understood"),
        ({"every_seconds": None, "cron": "0 8 * * mon-"}, "schedule one: the day of the week in cron"),
        ({"every_seconds": None, "cron": "0 8 * *"}, "schedule one: cron has five fields"),
        (
            {"every_seconds": None, "cron": "0 0 * * *", "timezone": "Berlin"},
            "timezone must be the name of one",
        ),
        (
            {"every_seconds": None, "cron": "0 0 * * *", "timezone": "UTC+3"},
            "timezone must be the name of one",
        ),
        ({"queue": "nowhere"}, "schedule one: its queue does not exist: select create_queue"),
        ({"queue": "unknown_queue"}, "its queue does not exist"),
        ({"every_seconds": None}, "say either cron or every_seconds"),
        ({"cron": "0 0 * * *"}, "say either cron or every_seconds"),
        ({"every_seconds": 0}, "every_seconds must be from 1"),
        ({"timezone": "Europe/Berlin"}, "every_seconds has no timezone"),
        ({"missed": "twice"}, "missed is skip, once or all"),
        ({"overlap": "wait"}, "overlap is allow or skip"),
        ({"data": "[]"}, "data must be a JSON object"),
        ({"type": "Prune"}, "type must be a lower-case word"),
        ({"name": "two words"}, "name must be 1 to 100 letters"),
    ],
)
async def test_what_cannot_be_meant_is_refused_in_a_sentence(
    schedules: Schedules, columns: Json, words: str
) -> None:
    with pytest.raises(asyncpg.PostgresError, match=re.escape(words)):
        await schedules.add(**columns)


def an_expression(chance: Random) -> str:
    """Five fields or so, right or wrong."""
    odd = "*/5 */0 L LW 5L 9L mon#1 mon#6 MON-FRI jan dec-jan 7 8 0-7 1- -1 5/15 0-59/61 1,2,3 1,,2 montue 007".split()
    number = [str(chance.randint(0, 62)) for _ in range(3)]
    pick = [*odd, *number, "-".join(number[:2]), f"{number[0]}-{number[1]}/{number[2]}", *["*"] * 30]
    return " ".join(chance.choice(pick) for _ in range(chance.choice([5, 5, 5, 5, 5, 4, 6])))


async def test_cron_is_refused_in_the_table_where_it_would_not_be_understood_later(owner: Connection) -> None:
    drawn = [an_expression(Random(seed)) for seed in range(4000)]
    drawn += [
        "0 8 * * mon-fri",
        "*/15 0-6,20-23 1,15,L * 1-5/2",
        "0 0 LW jan,JUL *",
        "59 23 31 12 7",
        " 1\t2  * * 5#2 ",
    ]
    rows = await owner.fetch(
        "select e.cron, cron_problem(e.cron) as problem from unnest($1::text[]) as e (cron)", drawn
    )
    taken = 0
    for row in rows:
        try:
            Rule(cron=row["cron"]).after(datetime(2027, 1, 1, tzinfo=UTC))
        except RuleError as error:
            never = "does not come" in str(error) or "Bad day-of-month" in str(error)
            assert row["problem"] is not None or never, row["cron"]
        else:
            odd = re.search(r"/\d{4}|\b0\d\d|L[W]?/|\dL.|,,", row["cron"].upper())
            assert row["problem"] is None or odd, row["cron"]
            taken += row["problem"] is None
    assert taken > 100


async def test_a_slot_is_one_job_and_is_settled_with_it(
    schedules: Schedules, owner: Connection, now: datetime
) -> None:
    await schedules.add(data='{"a": 1}', slot_as="at")
    (seen,) = await schedules.due()
    assert (await schedules.run(seen, next_in=HOUR))["jobs"] == []
    await set_clock(owner, now + HOUR)
    (seen,) = await schedules.due()
    first = await schedules.run(seen, now + HOUR)
    assert [(job["key"], job["created"]) for job in first["jobs"]] == [("one@2027-03-28T13:00Z", True)]
    assert (await schedules.run(seen, now + HOUR))["moved"], (
        "said again after a lost answer, or by another process"
    )
    assert await schedules.jobs() == [
        ("prune", "one@2027-03-28T13:00Z", {"a": 1, "at": "2027-03-28T13:00:00Z"})
    ]
    assert await schedules.due() == []
    state = await schedules.state()
    assert (state["last_slot"], state["next_slot"]) == (
        "2027-03-28T13:00:00+00:00",
        "2027-03-28T14:00:00+00:00",
    )
    assert (state["last_job"]["id"], state["last_job"]["status"]) == (first["jobs"][0]["id"], "pending")


async def test_a_slot_stays_one_job_when_the_job_has_been_forgotten(
    schedules: Schedules, owner: Connection, now: datetime
) -> None:
    await schedules.add()
    (seen,) = await schedules.due()
    await set_clock(owner, now + HOUR)
    await schedules.run(seen, now + HOUR)
    await owner.execute("delete from jobs")
    assert (await schedules.run(seen, now + HOUR))["moved"]
    assert await schedules.jobs() == []


async def test_a_slot_that_another_version_inserted_is_not_inserted_again(
    schedules: Schedules, owner: Connection, now: datetime
) -> None:
    await schedules.declare({"name": "prune", "queue": "maintenance", "type": "prune", "every_seconds": 3600})
    (old,) = await schedules.enqueue(
        {"queue": "maintenance", "type": "prune", "data": {}, "idempotency_key": "prune@2027-03-28T12:00Z"}
    )
    (seen,) = await schedules.due()
    turn = await schedules.run(seen, now)
    assert [(job["id"], job["created"]) for job in turn["jobs"]] == [(old["id"], False)]
    assert len(await schedules.jobs()) == 1
    assert (await schedules.state())["last_job"]["id"] == old["id"]


async def test_a_row_that_another_process_is_at_is_left_to_it(
    schedules: Schedules, owner: Connection, now: datetime
) -> None:
    await schedules.add()
    (seen,) = await schedules.due()
    async with owner.transaction():
        await owner.execute("select from schedules for update")
        assert (await schedules.run(seen, next_in=HOUR))["moved"], "without waiting"
    assert not (await schedules.run(seen, next_in=HOUR))["moved"]


async def test_what_was_reckoned_from_an_older_rule_or_by_an_older_clock_is_not_done(
    schedules: Schedules, owner: Connection, now: datetime
) -> None:
    await schedules.add()
    (seen,) = await schedules.due()
    await schedules.connection.execute("update schedules set every_seconds = 60")
    assert (await schedules.run(seen, now))["moved"]
    (seen,) = await schedules.due()
    assert (await schedules.run(seen, now + HOUR))["moved"], "a slot that has not come"
    await schedules.connection.execute("select pause_schedule('one')")
    assert (await schedules.run(seen, next_in=HOUR))["moved"]
    assert await schedules.jobs() == []


async def test_what_the_database_refuses_is_told_tried_again_later_and_hinders_no_other(
    schedules: Schedules, owner: Connection, now: datetime
) -> None:
    await schedules.add()
    await schedules.add(name="two", type="other")
    await owner.execute("alter table jobs_maintenance add constraint \"not today\" check (type <> 'prune')")
    await set_clock(owner, now + HOUR)
    waits: list[float] = []
    for _ in range(9):
        for seen in await schedules.due():
            turn = await schedules.run(seen, now + HOUR)
            assert turn["refused"] == ("not today" if seen["name"] == "one" else None)
        assert await schedules.due() == [], "nobody tries at once"
        retry_at = await owner.fetchval("select retry_at from schedules where name = 'one'")
        waits.append((retry_at - await owner.fetchval("select clock_now()")).total_seconds())
        await set_clock(owner, retry_at)
    assert waits == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    assert [key for _, key, _ in await schedules.jobs()] == ["two@2027-03-28T13:00Z"]
    assert json.loads(await schedules.value("select schedule_states() -> 0"))["problem"] == "not today"
    await owner.execute('alter table jobs_maintenance drop constraint "not today"')
    await schedules.connection.execute("select resume_schedule('one')")
    (seen,) = [one for one in await schedules.due() if one["name"] == "one"]
    assert (await schedules.run(seen, now + HOUR))["refused"] is None
    assert json.loads(await schedules.value("select schedule_states() -> 0"))["problem"] is None


async def test_a_queue_that_somebody_has_locked_holds_up_no_schedule_of_another(
    schedules: Schedules, owner: Connection, now: datetime
) -> None:
    """As the building of an index does it; all schedules of the queue together wait for it once."""
    for name, queue in (("a", "maintenance"), ("b", "payment"), ("c", "maintenance")):
        await schedules.add(name=name, queue=queue)
    await set_clock(owner, now + HOUR)
    slot = (now + HOUR).isoformat()
    said = [
        {
            **{name: one[name] for name in ("name", "edition", "settled_to")},
            "slots": [slot],
            "settles_to": slot,
        }
        for one in await schedules.due()
    ]
    async with owner.transaction():
        await owner.execute("lock table jobs_maintenance in share mode")
        answers = json.loads(
            await schedules.connection.fetchval("select run_slots($1)", json.dumps(said), timeout=20)
        )
    refused = "somebody holds a lock on the table of its queue"
    assert [one["refused"] for one in answers] == [refused, None, refused]
    assert await owner.fetchval("select array_agg(queue) from jobs") == ["payment"]
    assert await owner.fetchval(
        "select bool_and(problem = $1) from schedules where queue <> 'payment'", refused
    )


async def test_a_payload_that_its_schema_refuses_is_told_with_its_field(
    schedules: Schedules, owner: Connection, now: datetime
) -> None:
    schema = {"type": "object", "properties": {"completed_days": {"type": "number", "minimum": 0}}}
    published = [{"queue": "maintenance", "type": "prune", "schema": schema}]
    await owner.execute("select publish_schemas($1)", json.dumps(published))
    await schedules.add(data='{"completed_days": -17}')
    (seen,) = await schedules.due()
    await set_clock(owner, now + HOUR)
    refused = (await schedules.run(seen, now + HOUR))["refused"]
    assert refused.startswith("maintenance job prune: ")
    assert "completed_days" in refused
    assert "17" not in refused
    assert (await schedules.state())["problem"] == refused
    await schedules.connection.execute("""update schedules set data = '{"completed_days": 3}'""")
    (seen,) = await schedules.due()
    assert (await schedules.run(seen, now + HOUR))["refused"] is None


async def test_a_slot_whose_last_job_is_not_done_gets_none_where_the_schedule_has_it_so(
    schedules: Schedules, owner: Connection, now: datetime
) -> None:
    await schedules.add(overlap="skip", missed="all")
    await schedules.add(name="two", type="other")
    hours = [now + n * HOUR for n in range(1, 6)]

    async def run_to(*slots: datetime) -> dict[str, int]:
        await set_clock(owner, slots[-1])
        turns = [await schedules.run(seen, *slots) for seen in await schedules.due()]
        return {turn["name"]: turn["left_out"] for turn in turns}

    assert await run_to(*hours[:2]) == {"one": 1, "two": 0}, "of two that are handed on together the first"
    assert await run_to(hours[2]) == {"one": 1, "two": 0}, "it waits"
    claimed = await schedules.take(queue="maintenance", types=["prune"])
    assert await run_to(hours[3]) == {"one": 1, "two": 0}, "it runs"
    await schedules.end(claimed, "completed")
    assert await run_to(hours[4]) == {"one": 0, "two": 0}
    keys = [key for _, key, _ in await schedules.jobs() if key.startswith("one")]
    assert keys == ["one@2027-03-28T13:00Z", "one@2027-03-28T17:00Z"]
    (one, _) = json.loads(await schedules.value("select schedule_states()"))
    assert (one["overlap"], one["left_out"]) == ("skip", 3)


async def test_slots_of_a_pause_are_gone(schedules: Schedules, owner: Connection, now: datetime) -> None:
    await schedules.add()
    (seen,) = await schedules.due()
    await schedules.run(seen, next_in=HOUR)
    await schedules.connection.execute("select pause_schedule('one')")
    await set_clock(owner, now + 10 * HOUR)
    assert await schedules.due() == []
    assert (await schedules.state())["next_slot"] is None
    await schedules.connection.execute("select resume_schedule('one')")
    (seen,) = await schedules.due()
    assert datetime.fromisoformat(seen["settled_to"]) == now + 10 * HOUR
    await schedules.connection.execute("select resume_schedule('one')")
    assert await schedules.due() == [seen], "to resume what runs changes nothing"


async def test_a_schedule_is_run_by_hand_besides_its_slots(schedules: Schedules, now: datetime) -> None:
    await schedules.add(paused=True)
    answers = [
        json.loads(await schedules.value("select run_schedule('one', $1)", key)) for key in (None, "k", "k")
    ]
    assert answers[1] == answers[2] != answers[0]
    assert [(type_, key) for type_, key, _ in await schedules.jobs()] == [("prune", None), ("prune", "k")]
    assert (await schedules.state())["last_job"]["id"] == answers[1]["job_id"]
    with pytest.raises(asyncpg.PostgresError, match="there is no schedule two"):
        await schedules.connection.execute("select run_schedule('two')")


async def test_a_clock_that_was_set_back_is_told_with_its_mend_and_runs_nothing_again(
    schedules: Schedules, owner: Connection, now: datetime
) -> None:
    await schedules.add()
    (seen,) = await schedules.due()
    await set_clock(owner, now + 48 * HOUR)
    await schedules.run(seen, now + 48 * HOUR)
    await set_clock(owner, now)
    assert await schedules.due() == []
    assert "settled up to 2027-03-30 12:00 UTC" in (await schedules.state())["problem"]
    await schedules.connection.execute("select resume_schedule('one')")
    assert (await schedules.state())["problem"] is None
    (seen,) = await schedules.due()
    assert datetime.fromisoformat(seen["settled_to"]) == now


async def test_a_schedule_whose_jobs_nobody_runs_or_that_fail_says_so(
    schedules: Schedules, owner: Connection, now: datetime
) -> None:
    await schedules.add()
    (seen,) = await schedules.due()
    await set_clock(owner, now + HOUR)
    assert "it stands still" in (await schedules.state())["problem"]
    job = (await schedules.run(seen, now + HOUR))["jobs"][0]["id"]
    assert (await schedules.state())["problem"] is None
    says: Json = {
        "worker_id": "w",
        "host": "h",
        "version": "1",
        "queues": [],
        "types": {"maintenance": ["other"]},
    }
    says |= {"places": 1, "running": 0, "problems": [], "up_seconds": 0}
    await owner.execute("select tell_worker($1)", json.dumps(says))
    assert (await schedules.state())[
        "problem"
    ] == "no running worker has a handler prune of the queue maintenance"
    await set_clock(owner, now + HOUR + timedelta(minutes=6))
    assert (await schedules.state())[
        "problem"
    ] == f"its last job {job} has been due for 00:06:00, and nobody runs it"
    claimed = await schedules.take(queue="maintenance", types=["prune"])
    await schedules.end(claimed, "dead", error={"class": "Reject", "message": "no"})
    assert (await schedules.state())["problem"] == f"its last job {job} failed"


async def test_every_statement_of_the_page_works_as_it_stands_there(
    schedules: Schedules, checkout: Path
) -> None:
    blocks = re.findall(r"```sql\n(.*?)```", (checkout / "docs" / "schedules.md").read_text(), re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        await schedules.connection.execute(block)
    state = await schedules.state()
    assert (state["name"], state["cron"], state["paused"]) == ("night_prune", "30 4 * * *", False)
    assert (
        state["overlap"],
        await schedules.value("select at_once from job_limits where type = 'prune'"),
    ) == ("skip", 1)
    assert [type_ for type_, _, _ in await schedules.jobs()] == ["prune"]
