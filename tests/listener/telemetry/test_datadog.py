"""Numbers arrive at Datadog's HTTP API: each count once, also over an outage, and the key is in no word of ours."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from listener.destinations import Datadog
from listener.errors import PulseError
from listener.events import Called
from listener.outcomes import Completed
from listener.telemetry import catalogue as c
from listener.telemetry.counts import Buckets, Counts
from listener.telemetry.datadog import DatadogApi, below
from tests.listener.telemetry.test_counts import finished

KEY = "0123456789abcdef0123456789abcdef"
TEN = timedelta(seconds=10)


class Intake:
    """A double of the API: takes what is right, or answers as it is told to."""

    def __init__(self) -> None:
        self.series: list[dict[str, Any]] = []
        self.status = 202
        self.asked = 0

    async def answer(self, request: web.Request) -> web.Response:
        self.asked += 1
        assert (request.method, request.path) == ("POST", "/api/v2/series")
        assert request.content_type == "application/json"
        if request.headers.get("DD-API-KEY") != KEY:
            return web.json_response({"errors": ["Forbidden"]}, status=403)
        if self.status == 202:
            self.series += (await request.json())["series"]
        headers = {"Location": "/elsewhere"} if self.status == 302 else {}
        return web.json_response({"errors": []}, status=self.status, headers=headers)

    def of(self, metric: str) -> list[dict[str, Any]]:
        return [one for one in self.series if one["metric"] == metric]


@pytest.fixture
async def intake() -> Intake:
    return Intake()


@pytest.fixture
async def base(intake: Intake) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", intake.answer)
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/")


@pytest.fixture
async def api(base: str) -> AsyncIterator[DatadogApi]:
    async with aiohttp.ClientSession() as session:
        yield DatadogApi(Datadog(base, KEY), session, TEN)


@pytest.fixture
def counts() -> Counts:
    return Counts({"payment": ["stripe_webhook"], "broker": ["execute_order"]})


async def test_a_job_is_counted_with_the_tags_of_the_brief(
    api: DatadogApi, intake: Intake, counts: Counts
) -> None:
    counts(finished(Completed(), queue="payment", type_="stripe_webhook"))
    await api.send(counts.read())
    (one,) = intake.of("worker.job.processed")
    assert one["tags"] == ["type:payment", "job:stripe_webhook", "status:success"]
    assert (one["type"], one["interval"], one["points"][0]["value"]) == (1, 10, 1)
    assert one["points"][0]["timestamp"] > 1_700_000_000
    assert one["resources"][0]["type"] == "host"
    assert [one["points"][0]["value"] for one in intake.of("worker.job.duration.avg")] == [2.0]
    assert [one["points"][0]["value"] for one in intake.of("worker.job.duration.count")] == [1]


@pytest.mark.parametrize("status", [302, 400, 429, 500, 503])
async def test_what_was_not_taken_goes_with_the_next(
    api: DatadogApi, intake: Intake, counts: Counts, status: int
) -> None:
    counts(finished(Completed()))
    await api.send(counts.read())
    counts(finished(Completed()))
    intake.status = status
    with pytest.raises(PulseError, match=f"^HTTP {status}$"):
        await api.send(counts.read())
    counts(finished(Completed()))
    intake.status = 202
    await api.send(counts.read())
    await api.send(counts.read())
    assert [one["points"][0]["value"] for one in intake.of("worker.job.processed")] == [1, 2]
    assert [one["points"][0]["value"] for one in intake.of("worker.job.duration.count")] == [1, 2]


async def test_a_key_that_is_refused_is_named_and_not_shown(base: str, counts: Counts) -> None:
    async with aiohttp.ClientSession() as session:
        api = DatadogApi(Datadog(base, "another-key-of-somebody"), session, TEN)
        with pytest.raises(PulseError, match="403: DATADOG_API_KEY is refused") as told:
            await api.send(counts.read())
    assert "another-key" not in f"{told.value!r} {Datadog(base, KEY)!r}"


async def test_nobody_there_is_told(counts: Counts) -> None:
    async with aiohttp.ClientSession() as session:
        api = DatadogApi(Datadog("http://127.0.0.1:9", KEY), session, TEN)
        with pytest.raises(PulseError, match=r"^no connection \(ClientConnectorError\)$"):
            await api.send(counts.read())


async def test_gauges_go_each_time_and_counters_only_when_something_was_added(
    api: DatadogApi, intake: Intake, counts: Counts
) -> None:
    for _ in range(2):
        numbers = counts.read()
        numbers.values[c.DUE]["payment",] = 12
        await api.send(numbers)
    assert [one["points"][0]["value"] for one in intake.series] == [12, 12]
    assert {one["type"] for one in intake.series} == {3}


async def test_nineteen_of_twenty_lie_below_what_is_said(
    api: DatadogApi, intake: Intake, counts: Counts
) -> None:
    for n in range(100):
        counts(Called("claim", timedelta(seconds=0.02 if n < 90 else 0.2), "ok"))
    await api.send(counts.read())
    ((slow,), (mean,)) = (intake.of(f"worker.call.duration.{part}") for part in ("95percentile", "avg"))
    assert slow["points"][0]["value"] == pytest.approx(0.175)  # in the middle of its bucket, from 0.1 to 0.25
    assert mean["points"][0]["value"] == pytest.approx(0.038)


def test_a_share_is_told_within_the_bounds_whatever_the_buckets_hold() -> None:
    buckets = Buckets(len(c.CALL.bounds))
    buckets.counts[-1] = 5  # beyond all bounds
    assert below(c.CALL, buckets, 0.95) == c.CALL.bounds[-1]
    buckets.counts[0] = 1_000
    assert 0 < below(c.CALL, buckets, 0.95) <= c.CALL.bounds[0]
