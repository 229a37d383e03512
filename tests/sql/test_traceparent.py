"""A trace travels in the row: named by whoever inserts it, or by the request that it was inserted by."""

import aiohttp
import asyncpg
import pytest

from devstack.gateway import Gateway
from devstack.keys import LOCAL
from tests.sql.calls import Calls, Connection

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OTHER = "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-00"
NO_TRACES = [
    "",
    "00-xyz",
    TRACE.upper(),
    "ff" + TRACE[2:],
    TRACE + "-more",
    f"{TRACE}\n",
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
]


async def test_it_is_in_the_row_and_handed_out_with_the_job(server: Calls) -> None:
    await server.insert(traceparent=TRACE)
    await server.enqueue({"queue": "payment", "type": "a", "traceparent": OTHER})
    await server.insert()
    assert [job["traceparent"] for job in (await server.claim())["jobs"]] == [TRACE, OTHER, None]


@pytest.mark.parametrize("wrong", NO_TRACES)
async def test_what_is_no_trace_is_refused_with_a_sentence(server: Calls, wrong: str) -> None:
    for insert in (
        lambda: server.insert(traceparent=wrong),
        lambda: server.enqueue({"queue": "payment", "type": "a", "traceparent": wrong}),
    ):
        with pytest.raises(asyncpg.CheckViolationError, match="traceparent must be 00-<32 hex>-<16 hex>"):
            await insert()


async def test_every_attempt_and_every_replay_is_part_of_it(server: Calls) -> None:
    id_ = await server.insert(traceparent=TRACE)
    await server.end(await server.take(), "retry", error_class="E", delay_seconds=0)
    ended = await server.end(await server.take(sweep=True), "dead", error_class="E")
    await server.replay([ended["failed_job_id"]])
    job = await server.take(sweep=True)
    assert (job["id"], job["traceparent"]) == (id_, TRACE)


async def test_a_request_that_carries_one_gives_it_to_all_that_comes_of_it(
    gateway: Gateway, owner: Connection
) -> None:
    """Also where a function of the database inserts the job, that knows nothing of traces."""
    await owner.execute(
        "create function make_jobs() returns void language sql as"
        " $$ insert into public.jobs (queue, type) values ('payment', 'a'), ('broker', 'b') $$;"
        "grant execute on function make_jobs() to service_role;"
        "notify pgrst, 'reload schema'"
    )
    asked: list[tuple[str, dict[str, object], str | None]] = [
        ("payment_jobs", {"type": "c"}, TRACE),
        ("rpc/make_jobs", {}, TRACE),
        ("rpc/enqueue", {"jobs": [{"queue": "payment", "type": "d"}]}, TRACE),
        ("rpc/enqueue", {"jobs": [{"queue": "payment", "type": "e", "traceparent": OTHER}]}, TRACE),
        ("payment_jobs", {"type": "f"}, "00-xyz"),
        ("payment_jobs", {"type": "g"}, None),
        ("payment_jobs", {"type": "h", "traceparent": OTHER}, TRACE),
    ]
    async with aiohttp.ClientSession(gateway.url) as http:
        for path, words, trace in asked:
            headers = {"apikey": LOCAL.secret, "Authorization": f"Bearer {LOCAL.secret}"}
            headers |= {"traceparent": trace} if trace else {}
            async with http.post(f"/rest/v1/{path}", json=words, headers=headers) as answer:
                assert answer.status < 300, await answer.text()
    rows = await owner.fetch("select type, traceparent from jobs order by type")
    expected = [TRACE, TRACE, TRACE, TRACE, OTHER, None, None, OTHER]
    assert [row["traceparent"] for row in rows] == expected


async def test_another_header_that_quotes_one_is_none(server: Calls) -> None:
    await server.connection.execute(
        "select set_config('request.headers', $1, false)",
        '{"x-note": "\\"traceparent\\":\\"' + TRACE + '\\""}',
    )
    assert await server.value("select trace_of_request()") is None
    await server.connection.execute("select set_config('request.headers', '', false)")
    assert await server.value("select trace_of_request()") is None
