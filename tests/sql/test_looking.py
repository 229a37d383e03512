"""What an operator sees of the queue, and how little it touches however much there is."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from tests.sql.calls import Calls, Connection, Json

MoveClock = Callable[[timedelta], Awaitable[None]]
USER = "11111111-1111-1111-1111-111111111111"
FINISHED = 50_000
PENDING = 5_000


class Looks(Calls):
    """The functions of sql/095 and 102 by name, with named arguments."""

    async def look(self, function: str, **arguments: object) -> Any:
        named = ", ".join(f"{name} => ${n}" for n, name in enumerate(arguments, start=1))
        return json.loads(await self.connection.fetchval(f"select {function}({named})", *arguments.values()))

    async def ids(self, **filters: object) -> list[int]:
        return [job["id"] for job in (await self.look("list_jobs", **filters))["jobs"]]


@pytest.fixture
async def looks(database: str) -> AsyncIterator[Looks]:
    """As service_role, as an operator over RPC."""
    connection = await asyncpg.connect(database)
    try:
        await connection.execute("set role service_role")
        yield Looks(connection)
    finally:
        await connection.close()


async def test_jobs_are_listed_newest_first_by_each_filter(looks: Looks, owner: Connection) -> None:
    first = await looks.insert("a", user_id=USER)
    second = await looks.insert("b", queue="alerts")
    third = await looks.insert("a", queue="payment", data='{"card": "4242"}')
    (taken,) = (await looks.claim(1))["jobs"]
    assert taken["id"] == first
    await owner.execute("update jobs set created_at = created_at - interval '2 hours' where id = $1", second)
    assert await looks.ids() == [third, second, first]
    assert await looks.ids(queue="payment") == [third, first]
    assert await looks.ids(type="b") == [second]
    assert await looks.ids(status="running") == [first]
    assert await looks.ids(status="running", queue="alerts") == []
    assert await looks.ids(status="pending") == [third, second]
    assert await looks.ids(user_id=USER) == [first]
    assert await looks.ids(within_seconds=3600.0) == [third, first]
    assert await looks.ids(ids=[first, second, 999], queue="alerts") == [second]
    told = await looks.look("list_jobs")
    assert "4242" not in json.dumps(told)
    assert told["before"] is None


async def test_of_a_progress_the_numbers_are_told_and_not_the_note(looks: Looks) -> None:
    await looks.insert("a")
    job = await looks.take()
    report = {"queue": "payment", "id": job["id"], "attempt": 1}
    progress = {"done": 3, "of": 10, "note": "for the user"}
    await looks.look("report_progress", reports=json.dumps([{**report, "progress": progress}]))
    (told,) = (await looks.look("list_jobs"))["jobs"]
    assert told["progress"] == {"done": 3, "of": 10, "attempt": 1}


async def test_failed_jobs_are_found_by_their_dead_letters_each_once(looks: Looks) -> None:
    for _ in range(3):
        await looks.insert("a")
    ended = [(await looks.claim(1))["jobs"][0] for _ in range(3)]
    for job in ended[:2]:
        await looks.end(job, "dead", error_class="Broken", error_message="it broke")
    assert await looks.ids(status="failed") == [ended[1]["id"], ended[0]["id"]]
    assert await looks.ids(status="failed", max_jobs=1) == [ended[1]["id"]]
    assert await looks.ids(status="failed", before=ended[1]["id"]) == [ended[0]["id"]]
    await looks.replay([1])
    assert await looks.ids(status="failed") == [ended[1]["id"]]
    again = await looks.take()
    await looks.end(again, "dead", error_class="Broken", error_message="again")
    assert await looks.ids(status="failed") == [ended[1]["id"], ended[0]["id"]]


async def test_pages_hold_every_job_once(looks: Looks, owner: Connection) -> None:
    await owner.execute("insert into payment_jobs (type) select 'a' from generate_series(1, 30)")
    await owner.execute("insert into alerts_jobs (type) select 'a' from generate_series(1, 15)")
    for filters in ({}, {"queue": "payment"}, {"type": "a"}, {"status": "pending"}):
        seen: list[int] = []
        before: int | None = None
        for _ in range(20):
            page = await looks.look("list_jobs", before=before, max_jobs=7, **filters)
            seen += [job["id"] for job in page["jobs"]]
            before = page["before"]
            if before is None:
                break
        expected = await owner.fetch(
            "select id from jobs where $1::text is null or queue = $1 order by id desc", filters.get("queue")
        )
        assert seen == [row["id"] for row in expected]


async def test_a_look_without_a_match_ends_and_says_where_to_go_on(looks: Looks, owner: Connection) -> None:
    await owner.execute(
        "insert into payment_jobs (type, created_at) select 'a', now() - interval '3 days'"
        " from generate_series(1, 45000)"
    )
    page = await looks.look("list_jobs", type="rare")
    assert (page["jobs"], page["before"]) == ([], 25001)
    page = await looks.look("list_jobs", type="rare", before=25001)
    assert (page["jobs"], page["before"]) == ([], 5001)
    page = await looks.look("list_jobs", type="rare", before=5001)
    assert (page["jobs"], page["before"]) == ([], None)
    page = await looks.look("list_jobs", within_seconds=86400.0)
    assert (page["jobs"], page["before"]) == ([], None)


async def test_dead_letters_that_a_replay_would_take(looks: Looks, owner: Connection) -> None:
    for type_ in ("a", "b", "a"):
        await looks.insert(type_, user_id=USER if type_ == "b" else None)
    jobs = [(await looks.claim(1, types=("a", "b")))["jobs"][0] for _ in range(3)]
    for job, error in zip(jobs, ("Broken", "TimedOut", "Broken"), strict=True):
        await looks.end(job, "dead", error_class=error, error_message="why")

    async def letters(**filters: object) -> list[int]:
        said = await looks.look("list_dead_letters", **filters)
        return [one["id"] for one in said["dead_letters"]]

    assert await letters() == [3, 2, 1]
    assert await letters(type="b") == [2]
    assert await letters(error_class="Broken") == [3, 1]
    assert await letters(queue="alerts") == []
    assert await letters(user_id=USER) == [2]
    assert await letters(job_ids=[jobs[0]["id"], 77]) == [1]
    assert await letters(max_letters=1) == [3]
    assert await letters(max_letters=2, before=3) == [2, 1]
    await owner.execute("update failed_jobs set failed_at = failed_at - interval '2 hours' where id = 3")
    assert await letters(within_seconds=3600.0) == [2, 1]
    await looks.replay([1])
    await owner.execute("delete from jobs where id = $1", jobs[1]["id"])
    assert await letters() == [3]


async def test_the_history_of_a_job_is_told_whole_and_its_payload_only_when_asked_for(looks: Looks) -> None:
    id_ = await looks.insert("a", data='{"card": "4242"}', idempotency_key="secret-key")
    job = await looks.take()
    await looks.end(job, "dead", error_class="Broken", error_message="it broke", error_stack="where")
    await looks.replay([1])
    again = await looks.take()
    await looks.end(again, result={"card": "4242"})
    assert (await looks.end(job, "retry"))["answer"] == "stale"
    told = await looks.look("job_history", job_id=id_)
    assert told["job"]["status"] == "completed"
    assert [one["id"] for one in told["dead_letters"]] == [1]
    assert told["dead_letters"][0]["replayed_at"] is not None
    assert [(one["attempt"], one["kind"]) for one in told["stale_outcomes"]] == [(1, "retry")]
    assert told["carried"] is None
    assert not {"4242", "secret-key"} & set(json.dumps(told).replace('"', " ").split())
    told = await looks.look("job_history", job_id=id_, with_data=True)
    assert told["carried"] == {
        "data": {"card": "4242"},
        "result": {"card": "4242"},
        "idempotency_key": "secret-key",
    }
    assert (await looks.look("job_history", job_id=999))["job"] is None


async def test_all_queues_at_a_glance(looks: Looks, owner: Connection, move_clock: MoveClock) -> None:
    for priority in (0, 5):
        await looks.insert("a", priority=priority)
    await owner.execute("insert into alerts_jobs (type, run_at) values ('a', now() + interval '1 hour')")
    await looks.claim(1)
    await looks.insert("dead", queue="broker")
    (dead,) = (await looks.claim(1, queue="broker", types=("dead",)))["jobs"]
    await looks.end(dead, "dead")
    await move_clock(timedelta(seconds=40))
    said = await looks.look("queue_stats")
    by_queue: dict[str, Json] = {one["queue"]: one for one in said["queues"]}
    assert set(by_queue) == {"payment", "broker", "alerts", "maintenance"}
    payment = by_queue["payment"]
    assert 39 < payment.pop("oldest_due_seconds") < 60
    assert payment == {
        "queue": "payment",
        "pending": 1,
        "due": 1,
        "held": 0,
        "running": 1,
        "lost": 1,
        "dead_letters": 0,
        "failed_last_hour": 0,
        "counted_all": True,
        "paused": [],
    }
    assert (by_queue["alerts"]["pending"], by_queue["alerts"]["due"]) == (1, 0)
    assert by_queue["alerts"]["oldest_due_seconds"] is None
    assert (by_queue["broker"]["dead_letters"], by_queue["broker"]["failed_last_hour"]) == (1, 1)


async def test_what_is_paused_and_what_a_limit_keeps_back_is_told(looks: Looks, owner: Connection) -> None:
    await owner.fetchval("select limit_jobs('payment', 'a', 'all', 1)")
    await looks.value("select pause_jobs('payment', 'b', 'a look')")
    for _ in range(3):
        await looks.insert("a")
    assert len((await looks.claim(3))["jobs"]) == 1
    (payment,) = [one for one in (await looks.look("queue_stats"))["queues"] if one["queue"] == "payment"]
    assert (payment["running"], payment["due"] + payment["held"]) == (1, 2)
    assert payment["held"] > 0
    assert [(one["type"], one["reason"]) for one in payment["paused"]] == [("b", "a look")]


async def test_a_large_backlog_is_estimated(looks: Looks, owner: Connection) -> None:
    await owner.execute("insert into payment_jobs (type) select 'a' from generate_series(1, 3000)")
    await owner.execute("analyze jobs_payment")
    payment = next(one for one in (await looks.look("queue_stats"))["queues"] if one["queue"] == "payment")
    assert (payment["pending"], payment["due"], payment["counted_all"]) == (3000, 200, False)


async def test_what_a_purge_would_delete_is_counted_before(looks: Looks, owner: Connection) -> None:
    await owner.execute(
        "insert into payment_jobs (type, status, attempt, finished_at)"
        " select 'a', case when n <= 4 then 'completed' else 'failed' end, 1, now() - interval '10 days'"
        " from generate_series(1, 6) as n"
    )
    await looks.insert("a")
    assert (await looks.look("count_prunable", completed_days=7.0, failed_days=90.0))["jobs"] == 4
    assert (await looks.look("count_prunable", completed_days=7.0, failed_days=5.0))["jobs"] == 6
    assert (await looks.prune(7, 5))["jobs"] == 6


async def read(looks: Looks) -> int:
    """Index entries and rows of tables that the current transaction has read in the queue's tables."""
    found = await looks.connection.fetchval(
        """
        select
            sum(pg_stat_get_xact_tuples_returned(x.indexrelid))
            + 1000000 * sum(pg_stat_get_xact_numscans(x.indrelid))
        from pg_index as x
        where x.indrelid in ('jobs_payment'::regclass, 'failed_jobs'::regclass, 'stale_outcomes'::regclass)
        """
    )
    return int(found)


@pytest.mark.parametrize("analysed", ["never analysed", "analysed while empty", "analysed when full"])
async def test_no_look_reads_more_than_it_shows(looks: Looks, owner: Connection, analysed: str) -> None:
    async def everything() -> dict[str, int]:
        cost: dict[str, int] = {}
        for name, function, arguments in (
            ("newest", "list_jobs", {}),
            ("queue", "list_jobs", {"queue": "payment"}),
            ("pending", "list_jobs", {"status": "pending"}),
            ("running", "list_jobs", {"status": "running"}),
            ("failed", "list_jobs", {"status": "failed"}),
            ("ids", "list_jobs", {"ids": [5, 500]}),
            ("next page", "list_jobs", {"before": 1000}),
            ("dead letters", "list_dead_letters", {}),
            ("history", "job_history", {"job_id": 500}),
            ("stats", "queue_stats", {}),
            ("purge", "count_prunable", {"completed_days": 7.0, "failed_days": 90.0}),
        ):
            async with looks.connection.transaction():
                before = await read(looks)
                await looks.look(function, **arguments)
                cost[name] = await read(looks) - before
        return cost

    await owner.execute("alter table jobs_payment set (autovacuum_enabled = off)")
    if analysed == "analysed while empty":
        await owner.execute("analyze jobs, failed_jobs, stale_outcomes")
    for _ in range(6):
        await everything()
    await owner.execute(
        "insert into jobs_payment (type, status, attempt, created_at, finished_at, last_outcome)"
        " select 'a', 'completed', 1, now(), now(), 'completed' from generate_series(1, $1::integer)",
        FINISHED,
    )
    await owner.execute(
        "insert into jobs_payment (type) select 'a' from generate_series(1, $1::integer)", PENDING
    )
    if analysed == "analysed when full":
        await owner.execute("analyze jobs")
    cost = await everything()
    assert cost.pop("stats") < 500
    assert cost.pop("purge") < 22_000
    assert max(cost.values()) < 200, cost
