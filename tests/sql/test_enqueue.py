"""From a producer's words to rows: both doors are equal, and what is refused is refused with a sentence."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest

from tests.sql.calls import Calls, Connection, Json

SYSTEM_COLUMNS = (
    "id",
    "status",
    "attempt",
    "uncounted",
    "lease_expires_at",
    "worker_id",
    "cancel_requested",
    "result",
    "last_error",
    "last_outcome",
    "woken_by",
    "created_at",
    "updated_at",
    "finished_at",
)
USER = UUID("11111111-1111-1111-1111-111111111111")


async def test_a_row_for_a_queues_table_and_a_row_for_the_parent_are_equal(server: Calls) -> None:
    direct = await server.insert("a", data='{"n": 1}')
    parent = await server.value(
        """insert into jobs (queue, type, data) values ('payment', 'a', '{"n": 1}') returning id"""
    )
    [called] = await server.enqueue({"queue": "payment", "type": "a", "data": {"n": 1}})

    rows = [await server.row(found) for found in (direct, parent, called["id"])]

    told_apart = ("id", "run_at", "created_at", "updated_at")
    alike = [{name: value for name, value in row.items() if name not in told_apart} for row in rows]
    assert alike[0] == alike[1] == alike[2]
    assert alike[0]["queue"] == "payment"
    assert alike[0]["max_attempts"] == 4
    for row in rows:
        assert row["run_at"] == row["created_at"] == row["updated_at"]


async def test_enqueue_sets_all_that_a_producer_may_set(server: Calls) -> None:
    run_at = datetime(2031, 2, 3, 4, 5, 6, tzinfo=UTC)
    [made] = await server.enqueue(
        {
            "queue": "alerts",
            "type": "send_email",
            "data": {"to": "x"},
            "user_id": str(USER),
            "priority": 7,
            "run_at": run_at.isoformat(),
            "max_attempts": 2,
            "idempotency_key": "k",
        }
    )
    row = await server.row(made["id"])
    assert (row["queue"], row["type"], json.loads(row["data"])) == ("alerts", "send_email", {"to": "x"})
    assert (row["user_id"], row["priority"], row["run_at"]) == (USER, 7, run_at)
    assert (row["max_attempts"], row["idempotency_key"]) == (2, "k")


async def test_enqueue_answers_in_the_order_given_and_ids_follow_it(server: Calls) -> None:
    keys = ["c", None, "a", "b", None]
    made = await server.enqueue(*({"queue": "payment", "type": "a", "idempotency_key": k} for k in keys))

    assert [(await server.row(job["id"]))["idempotency_key"] for job in made] == keys
    ids = [job["id"] for job in made]
    assert ids == sorted(ids)


async def test_a_key_makes_one_job_per_queue_however_often_it_is_sent(server: Calls) -> None:
    job = {"queue": "payment", "type": "a", "idempotency_key": "k"}
    elsewhere = {**job, "queue": "broker"}

    first = await server.enqueue(job, elsewhere, job)
    again = await server.enqueue({"queue": "payment", "type": "a"}, job)

    assert [made["created"] for made in first] == [True, True, False]
    assert first[2]["id"] == first[0]["id"] != first[1]["id"]
    assert [made["created"] for made in again] == [True, False]
    assert again[1]["id"] == first[0]["id"]
    with pytest.raises(asyncpg.UniqueViolationError):
        await server.insert("a", idempotency_key="k")


@pytest.mark.parametrize(
    ("words", "differs"),
    [
        ({"data": None}, None),
        ({"data": {}}, None),
        ({"priority": 7, "max_attempts": 1, "run_at": "2099-01-01T00:00:00Z"}, None),
        ({"data": {"n": 1}}, True),
        ({"type": "b"}, True),
        ({"user_id": "6f9619ff-8b86-4011-b42d-00cf4fc964ff"}, True),
    ],
    ids=str,
)
async def test_a_key_that_comes_again_with_another_job_is_told(
    server: Calls, words: Json, differs: bool | None
) -> None:
    job = {"queue": "payment", "type": "a", "idempotency_key": "k"}
    (first,) = await server.enqueue(job)
    (again,) = await server.enqueue({**job, **words})
    assert (again["id"], again["created"], again.get("differs")) == (first["id"], False, differs)
    held = {"type": "a", "user_id": "6f9619ff-8b86-4011-b42d-00cf4fc964ff", "data": {"a": [1.0]}}
    said = await server.enqueue(
        *[{**job, "idempotency_key": "l", **one} for one in (held, {**held, "data": {"a": [1]}})]
    )
    assert [one.get("differs") for one in said] == [None, None], "a number is what it is worth"


async def test_nothing_to_enqueue_is_nothing(server: Calls) -> None:
    assert await server.enqueue() == []


async def test_batches_with_the_same_keys_in_opposite_order_do_not_lock_each_other_out(
    server: Calls, database: str
) -> None:
    jobs = [{"queue": "payment", "type": "a", "idempotency_key": f"k{n}"} for n in range(200)]
    other = await asyncpg.connect(database)
    try:
        answers = await asyncio.gather(server.enqueue(*jobs), Calls(other).enqueue(*reversed(jobs)))
    finally:
        await other.close()

    assert sum(made["created"] for answer in answers for made in answer) == len(jobs)
    assert [made["id"] for made in answers[0]] == [made["id"] for made in reversed(answers[1])]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"data": "[]"}, "data must be a JSON object, for example {}"),
        ({"data": json.dumps({"a": "x" * 1_000_000})}, "data must be at most 1 MB as JSON text"),
        (
            {
                "data": '{"a": [1e131071, 1e131071, 1e131071, 1e131071, 1e131071, 1e131071, 1e131071, 1e131071]}'
            },
            "data must be at most 1 MB as JSON text",
        ),
        ({"data": '{"a":' * 100 + "1" + "}" * 100}, "data must be nested less than 100 levels deep"),
        ({"data": '{"a":' + "[" * 1500 + "]" * 1500 + "}"}, "data must be nested less than 100 levels deep"),
        ({"type": "Sync-Positions"}, "type must be a lower-case word, for example sync_positions"),
        ({"priority": 101}, "priority must be from 0 to 100, larger is sooner"),
        ({"priority": -1}, "priority must be from 0 to 100, larger is sooner"),
        ({"type": "a" * 101}, "type must be a lower-case word, for example sync_positions"),
        ({"run_at": datetime.max.replace(tzinfo=UTC)}, "run_at must be a time in the years 1 to 9999"),
        ({"run_at": datetime.min.replace(tzinfo=UTC)}, "run_at must be a time in the years 1 to 9999"),
        ({"max_attempts": 0}, "max_attempts must be 1 or more"),
        ({"idempotency_key": ""}, "idempotency_key must be 1 to 500 characters, or null"),
    ],
)
async def test_a_refusal_says_what_would_be_right(
    server: Calls, columns: dict[str, object], message: str
) -> None:
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await server.insert(**{"type": "a", **columns})  # type: ignore[arg-type]  # the values are wrong on purpose
    assert message in str(refused.value)


async def test_an_unknown_queue_is_refused_with_the_mend(server: Calls) -> None:
    with pytest.raises(asyncpg.CheckViolationError, match=r"make it with select create_queue\('name'\)"):
        await server.enqueue({"queue": "nope", "type": "a"})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("{}", "must be a JSON array of objects"),
        ("[1]", "must be a JSON array of objects"),
        ('[{"queue": "payment", "type": "a", "runAt": 1}]', '"runAt" is not a column that a producer sets'),
        ('[{"queue": "payment", "type": "a", "status": "running"}]', '"status" is not a column'),
    ],
)
async def test_a_batch_that_would_be_misread_is_refused(server: Calls, words: str, message: str) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError) as refused:
        await server.value("select enqueue($1)", words)
    assert message in str(refused.value)


async def test_one_refused_job_refuses_the_batch(server: Calls) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await server.enqueue(
            {"queue": "payment", "type": "a"}, {"queue": "payment", "type": "a", "priority": -1}
        )
    assert await server.value("select count(*) from jobs") == 0


@pytest.mark.parametrize("column", SYSTEM_COLUMNS)
@pytest.mark.parametrize("table", ["jobs", "payment_jobs"])
async def test_a_producer_cannot_set_what_the_system_owns(server: Calls, table: str, column: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await server.connection.execute(f"insert into {table} (type, {column}) values ('a', null)")


async def test_a_later_run_at_is_kept_to_the_microsecond(server: Calls, owner: Connection) -> None:
    run_at = datetime.now(UTC) + timedelta(hours=1)
    found = await server.insert("a", run_at=run_at)
    assert (await server.row(found))["run_at"] == run_at
