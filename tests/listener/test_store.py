"""What the store sends and reads: each function of the queue once, against the real ones; and every kind of no."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from aiohttp import web

from devstack.gateway import Gateway
from devstack.keys import LOCAL
from listener.errors import StoreRefused, StoreUnavailable
from listener.jobs import AttemptRef, NewJob, WokenBy
from listener.outbox import is_about_content
from listener.outcomes import Answer, Completed, Snooze
from listener.store import ClaimRequest, Store, connected
from tests.listener.working import QUEUE, Connection, row

USER = UUID(int=42)


@pytest.fixture
async def store(gateway: Gateway) -> AsyncIterator[Store]:
    async with connected(gateway.url, LOCAL.service_role, "test-worker") as connection:
        yield connection


def ask(
    *types: str, max_jobs: int = 10, sweep: bool = False, holding: list[AttemptRef] | None = None
) -> ClaimRequest:
    lease = timedelta(seconds=60)
    return ClaimRequest(QUEUE, types, max_jobs, lease, WokenBy.START, sweep=sweep, holding=holding)


async def test_a_job_comes_back_as_it_was_sent(store: Store) -> None:
    data = {"price": Decimal("0.1"), "at": datetime(2026, 1, 1, tzinfo=UTC), "user": USER, "text": "äß€😀"}
    run_at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    sent = NewJob(QUEUE, "note", data, USER, 7, run_at, 9, "once")
    (enqueued,) = await store.enqueue([sent])
    claim = await store.claim(ask("note"))
    (job,) = claim.jobs
    assert (job.id, job.queue, job.type, job.user_id) == (enqueued.id, QUEUE, "note", USER)
    assert (job.priority, job.max_attempts) == (7, 9)
    assert job.run_at == job.created_at, "a time of the past is now"
    assert (job.attempt, job.uncounted) == (1, 0)
    assert job.data == {
        "price": "0.1",
        "at": "2026-01-01T00:00:00+00:00",
        "user": str(USER),
        "text": "äß€😀",
    }
    assert claim.waited > timedelta()
    assert job.created_at.tzinfo is not None


async def test_fractions_are_read_as_decimals(store: Store, owner: Connection) -> None:
    await owner.execute("""insert into maintenance_jobs (type, data) values ('note', '{"price": 0.10}')""")
    (job,) = (await store.claim(ask("note"))).jobs
    assert job.data == {"price": Decimal("0.10")}
    assert isinstance(job.data["price"], Decimal)


async def test_what_has_no_json_is_refused_before_it_is_sent(store: Store) -> None:
    """As data of a wrong shape is by the database, and not as an accident of this process."""
    deep: dict[str, object] = {}
    for _ in range(100_000):
        deep = {"a": deep}
    for data in ({"x": float("nan")}, {"x": {1, 2}}, deep):
        with pytest.raises(StoreRefused) as raised:
            await store.enqueue([NewJob("maintenance", "prune", data)])
        assert is_about_content(raised.value)
    assert store.calls == 3


async def test_the_same_key_is_the_same_job(store: Store) -> None:
    job = NewJob(QUEUE, "note", idempotency_key="once")
    other = NewJob(QUEUE, "note", idempotency_key="twice")
    (first,) = await store.enqueue([job])
    again = await store.enqueue([other, job])
    assert first.created
    assert [one.created for one in again] == [True, False]
    assert again[1].id == first.id


async def test_the_key_of_a_job_is_the_same_in_all_its_attempts(store: Store) -> None:
    await store.enqueue([NewJob(QUEUE, "note")])
    (first,) = (await store.claim(ask("note"))).jobs
    outcome = (first.ref, Snooze(timedelta(), "again"))
    (recorded,), claim = await store.finish([outcome], ask("note"))
    assert claim is not None
    (second,) = claim.jobs
    assert recorded.run_in == timedelta()
    assert (second.attempt, second.uncounted) == (2, 1)
    assert first.key == second.key
    assert first.ref != second.ref


async def test_finish_answers_in_the_order_given_and_once(store: Store, owner: Connection) -> None:
    ids = [one.id for one in await store.enqueue([NewJob(QUEUE, "note")] * 3)]
    jobs = (await store.claim(ask("note"))).jobs
    outcomes = [(job.ref, Completed({"n": job.id})) for job in reversed(jobs)]
    strange = (AttemptRef(QUEUE, 999, 1), Completed())
    old = (AttemptRef(QUEUE, ids[0], 0), Completed())
    answers, claim = await store.finish([*outcomes, strange, old], None)
    assert claim is None
    assert [one.ref.id for one in answers] == [*reversed(ids), 999, ids[0]]
    assert [one.answer for one in answers] == [Answer.RECORDED] * 3 + [Answer.STALE] * 2
    assert answers[3].status == "gone"
    again, _ = await store.finish(outcomes, None)
    assert {one.answer for one in again} == {Answer.REPEATED}
    assert (await row(owner, ids[0]))["result"] == json.dumps({"n": ids[0]})


async def test_heartbeat_tells_what_is_lost_and_what_to_cancel(store: Store, owner: Connection) -> None:
    await store.enqueue([NewJob(QUEUE, "note")] * 2)
    kept, cancelled = (await store.claim(ask("note"))).jobs
    await owner.fetchval("select cancel(array[$1::bigint])", cancelled.id)
    strange = AttemptRef(QUEUE, kept.id, 5)
    beat = await store.heartbeat([kept.ref, cancelled.ref, strange], timedelta(seconds=60))
    assert beat.cancel == [(cancelled.id, 1)]
    assert beat.lost == [(kept.id, 5)]
    nothing = await store.heartbeat([], timedelta(seconds=60))
    assert (nothing.lost, nothing.cancel) == ([], [])


async def test_claim_tells_when_to_look_again(store: Store) -> None:
    assert (await store.claim(ask("note"))).next_in is None
    later = datetime.now(UTC) + timedelta(hours=1)
    await store.enqueue([NewJob(QUEUE, "note"), NewJob(QUEUE, "note"), NewJob(QUEUE, "note", run_at=later)])
    assert (await store.claim(ask("note", max_jobs=1))).next_in == timedelta()
    last = await store.claim(ask("note"))
    assert last.next_in is not None
    assert timedelta(minutes=59) < last.next_in <= timedelta(hours=1)


async def test_the_canary_is_a_row(store: Store, owner: Connection) -> None:
    await store.canary("tweet")
    assert await owner.fetchval("select token from realtime_canary") == "tweet"


@pytest.mark.parametrize(
    ("job", "sentence"),
    [
        (NewJob("nowhere", "note"), "^enqueue: unknown queue: make it with select create_queue"),
        (NewJob(QUEUE, "Not A Word"), "^enqueue: type must be a lower-case word"),
        (NewJob(QUEUE, "note", [1]), "^enqueue: data must be a JSON object"),  # type: ignore[arg-type]
        (NewJob(QUEUE, "note", priority=101), "^enqueue: priority must be from 0 to 100"),
        (NewJob(QUEUE, "note", max_attempts=0), "^enqueue: max_attempts must be 1 or more"),
        (NewJob(QUEUE, "note", idempotency_key=""), "^enqueue: idempotency_key must be"),
        (NewJob(QUEUE, "note", {"text": "\0"}), "enqueue: "),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_does_not_fit_is_refused_with_a_sentence(
    store: Store, owner: Connection, job: NewJob, sentence: str
) -> None:
    good = NewJob(QUEUE, "note")
    with pytest.raises(StoreRefused, match=sentence) as refused:
        await store.enqueue([good, job, good])
    assert refused.value.status < 500
    assert await owner.fetchval("select count(*) from jobs") == 0  # all or none


async def test_a_refusal_does_not_quote_the_row(store: Store) -> None:
    with pytest.raises(StoreRefused) as refused:
        await store.enqueue([NewJob(QUEUE, "note", {"name": "Alice Smith"}, priority=101)])
    assert "Alice" not in str(refused.value)


@pytest.mark.parametrize(
    ("key", "status"), [(LOCAL.anon, 401), (LOCAL.mint("authenticated"), 403), ("garbage", 401)]
)
async def test_a_key_that_may_not(gateway: Gateway, key: str, status: int) -> None:
    async with connected(gateway.url, key, "test-worker") as store:
        with pytest.raises(StoreRefused) as refused:
            await store.heartbeat([], timedelta(seconds=1))
    assert refused.value.status == status
    assert key not in str(refused.value)


async def test_every_call_that_was_not_answered_may_be_repeated(gateway: Gateway, store: Store) -> None:
    gateway.faults.rest.plan("lose_answer", "enqueue")
    gateway.faults.rest.plan("status", "canary")
    with pytest.raises(StoreUnavailable, match="enqueue: "):
        await store.enqueue([NewJob(QUEUE, "note", idempotency_key="once")])
    with pytest.raises(StoreUnavailable, match="canary: HTTP 503"):
        await store.canary("tweet")
    (again,) = await store.enqueue([NewJob(QUEUE, "note", idempotency_key="once")])
    assert not again.created
    await store.canary("tweet")
    assert store.calls == 4


async def test_nobody_there() -> None:
    async with connected("http://127.0.0.1:9", LOCAL.service_role, "test-worker") as store:
        with pytest.raises(StoreUnavailable):
            await store.canary("tweet")


@asynccontextmanager
async def answering(answer: web.Response) -> AsyncIterator[Store]:
    """A server between us and the API that says this to everything."""

    async def always(_: web.Request) -> web.Response:
        return answer

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", always)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with connected(url, LOCAL.service_role, "test-worker") as store:
            yield store
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (200, "<html>please log in</html>", StoreUnavailable),
        (200, '{"jobs": ', StoreUnavailable),
        (500, "oops", StoreUnavailable),
        (502, "<html>", StoreUnavailable),
        (520, "", StoreUnavailable),
        (408, "{}", StoreUnavailable),
        (429, '{"message": "slow down"}', StoreUnavailable),
        (400, '{"code": "22023", "message": "no", "hint": "do so"}', StoreRefused),
        (404, "[]", StoreRefused),
        (401, "null", StoreRefused),
        (403, "<html>", StoreRefused),
        (301, "", StoreRefused),
    ],
)
async def test_answers_that_are_not_from_our_functions(
    status: int, body: str, error: type[Exception]
) -> None:
    async with answering(web.Response(status=status, text=body)) as store:
        with pytest.raises(error):
            await store.claim(ask("note"))


async def test_an_answer_that_breaks_off_is_no_answer() -> None:
    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        writer.close()

    server = await asyncio.start_server(half, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with connected(url, LOCAL.service_role, "test-worker") as store:
            with pytest.raises(StoreUnavailable):
                await store.claim(ask("note"))
